"""Batch normalisation over what is present."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impls._carry.masks import Carried, filled, holes


class MaskedBatchNorm:
    """Mixed in before `torch.nn.BatchNormNd`: statistics of what is present, any rank.

    `y = (x - mean) / sqrt(var + eps) * weight + bias` where something is present, else 0; mean and
    variance are per channel, over the present entries of batch and space. A mask of ones, or none,
    gives what `torch.nn.BatchNormNd` does, running statistics included. A channel of which nothing
    is present leaves its statistics as they are, one of which a single entry is leaves its variance;
    a batch of which nothing is present is not counted. Parameters, buffers and keys are those of
    `torch.nn.BatchNormNd`.

    Source: masked_torch README, "better statistical handling and normalization".
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Carried:
        """Return the normalised signal and the mask.

        Args:
            x: `(N, C, *S)`.
            mask: 1 = present, `(1|N, 1|C, *S)`; present is what is above 0, whatever the number.

        Raises:
            CaseError: a mask of another shape.
        """
        if mask is None:
            return Carried(super().forward(x), None)
        self._check_input_dim(x)
        absent = holes(x, mask)
        x = filled(x, absent)
        if self.training or self.running_mean is None:
            y = self._by_batch(x, absent)
        else:
            y = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return Carried(filled(y, absent), mask)

    def _by_batch(self, x: Tensor, absent: Tensor) -> Tensor:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        column = (-1, *(1 for _ in x.shape[2:]))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # a mask that the batch shares counts once per sample
        copies = x.shape[0] if absent.shape[0] == 1 else 1
        count = (~absent).sum(axes) * copies
        divisor = count.clamp(min=1).to(wide.dtype)
        mean = wide.sum(axes) / divisor
        centred = filled(wide - mean.view(column), absent)
        variance = centred.square().sum(axes) / divisor
        if self.training and self.track_running_stats:
            self._track(mean.detach(), variance.detach(), count)
        scale = torch.rsqrt(variance + self.eps)
        y = centred * (scale if self.weight is None else scale * self.weight).view(column)
        return (y if self.bias is None else y + self.bias.view(column)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_((count > 0).any())
            if self.momentum is None:
                share = 1 / self.num_batches_tracked.clamp(min=1)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        for held, seen, known in (
            (self.running_mean, mean, count > 0), (self.running_var, unbiased, count > 1)
        ):  # fmt: skip
            moved = held + (0 if share is None else share) * (seen - held)
            held.copy_(torch.where(known, moved.to(held.dtype), held))


class MaskedBatchNorm1d(MaskedBatchNorm, nn.BatchNorm1d):
    """Over 1 spatial axis, or none: `(N, C, L)` or `(N, C)`."""


class MaskedBatchNorm2d(MaskedBatchNorm, nn.BatchNorm2d):
    """Over 2 spatial axes."""


class MaskedBatchNorm3d(MaskedBatchNorm, nn.BatchNorm3d):
    """Over 3 spatial axes."""
