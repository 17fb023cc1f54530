"""The definition of masked convolution."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import Shape, correlate, per_channel
from harness.api import apply_mask as select  # `apply_mask` is an option here


class MaskedOutput(NamedTuple):
    """What masked convolution returns: the output, and the mask for the next layer if any."""

    output: Tensor
    mask: Tensor | None


def at_centres(
    mask: Tensor, kernel_size: Shape, *, stride: Shape, padding: Shape, dilation: Shape
) -> Tensor:
    """Return `m[centre(q)]`, `centre(q) = q*s - p + d*(K-1)/2` clamped into the image.

    Args:
        mask: Shape `(..., *S)`.
        kernel_size, stride, padding, dilation: One entry per spatial axis; kernels are odd.
    """
    first = mask.dim() - len(kernel_size)
    axes = zip(kernel_size, stride, padding, dilation, strict=True)
    for axis, (k, s, p, d) in enumerate(axes, start=first):
        size = mask.shape[axis]
        out_size = (size + 2 * p - d * (k - 1) - 1) // s + 1
        centres = torch.arange(out_size, device=mask.device) * s - p + d * (k - 1) // 2
        mask = mask.index_select(axis, centres.clamp(0, size - 1))
    return mask


def updated_mask(weight: Tensor, mask: Tensor, groups: int, **geometry: Any) -> Tensor:
    """Return `m' = sum_c A m[centre] / sum_c A`, `A = sum_u |w|`; a mean where `sum_c A = 0`.

    Shape `(1|N, C_out, *S_out)`; `(1|N, 1, *S_out)` for a shared mask, whose share is itself.
    """
    sampled = at_centres(mask, weight.shape[2:], **geometry)
    if mask.shape[1] == 1:
        return sampled
    importance = weight.abs().sum(tuple(range(2, weight.dim())))
    silent = importance.sum(1, keepdim=True) == 0
    importance = torch.where(silent, 1.0, importance).unflatten(0, (groups, -1))
    share = torch.einsum("gkc,ngc...->ngk...", importance, sampled.unflatten(1, (groups, -1)))
    share = share / importance.sum(2).view(1, *importance.shape[:2], *(1 for _ in mask.shape[2:]))
    return share.flatten(1, 2).clamp(0, 1)


def masked(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int, padding_mode: str = "zeros",
    apply_mask: bool = False,
) -> MaskedOutput:  # fmt: skip
    """Return `y = (conv(x, w) + b) * m'` and `m'`; `m'` is a constant for autograd.

    Source: masked_torch README, with the centre of every window clamped into the image.
    """
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    if mask is not None:
        mask = mask.detach()
        x = select(x, mask) if apply_mask else x
    y = correlate(x, weight, groups=groups, padding_mode=padding_mode, **geometry)
    y = y if bias is None else y + per_channel(bias, y)
    if mask is None:
        return MaskedOutput(y, None)
    updated = updated_mask(weight.detach(), mask.to(x.dtype), groups, **geometry)
    return MaskedOutput(y * updated, updated)
