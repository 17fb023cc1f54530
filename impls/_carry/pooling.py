"""Pooling over what is present; a window without anything present gives 0 and is absent."""

from typing import Any

import torch
from torch import Tensor, nn

from harness.api import CaseError
from impls._carry.masks import Carried, filled, holes, without_holes


class MaskedMaxPool:
    """Mixed in before `torch.nn.MaxPoolNd`: the largest present entry of every window, any rank.

    The new mask is 1 where anything in the window is present, with one channel for a shared mask.
    A mask of ones gives what `torch.nn.MaxPoolNd` does.

    Raises:
        CaseError: `return_indices`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.return_indices:
            raise CaseError(
                "return_indices=True must be False: the mask is what is returned beside"
            )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Carried:
        """Return the pooled signal and its mask; arguments as `torch.nn.MaxPoolNd` takes them."""
        if mask is None:
            return Carried(super().forward(x), None)
        absent = holes(x, mask)
        seen = super().forward((~absent).to(x.dtype))
        y = super().forward(filled(x, absent, -torch.inf))
        return Carried(filled(y, seen == 0), seen.to(mask.dtype))


class MaskedAvgPool:
    """Mixed in before `torch.nn.AvgPoolNd`: the mean of every window's present entries, any rank.

    Padding counts as present zeros where `count_include_pad` is set, as it is by default, so that a
    mask of ones gives what `torch.nn.AvgPoolNd` does. The new mask is 1 where anything in the window
    is present.

    Raises:
        CaseError: `divisor_override`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if (override := getattr(self, "divisor_override", None)) is not None:
            raise CaseError(f"divisor_override={override} must be None: what is present is counted")

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Carried:
        """Return the pooled signal and its mask; arguments as `torch.nn.AvgPoolNd` takes them."""
        if mask is None:
            return Carried(super().forward(x), None)
        absent = holes(x, mask)
        wide = torch.promote_types(x.dtype, torch.float32)
        share = super().forward((~absent).to(wide))
        # one number divides all three, whatever it is
        inside = super().forward(x.new_ones((1, 1, *x.shape[2:]), dtype=wide))
        mean = super().forward(filled(x, absent).to(wide))
        counted = torch.where(share > 0, share + (1 - inside), 1)
        y = filled(mean / counted, share == 0)
        return Carried(y.to(x.dtype), (share > 0).to(mask.dtype))


class MaskedMaxPool1d(MaskedMaxPool, nn.MaxPool1d):
    """Over 1 spatial axis."""


class MaskedMaxPool2d(MaskedMaxPool, nn.MaxPool2d):
    """Over 2 spatial axes."""


class MaskedMaxPool3d(MaskedMaxPool, nn.MaxPool3d):
    """Over 3 spatial axes."""


class MaskedAvgPool1d(MaskedAvgPool, nn.AvgPool1d):
    """Over 1 spatial axis."""


class MaskedAvgPool2d(MaskedAvgPool, nn.AvgPool2d):
    """Over 2 spatial axes."""


class MaskedAvgPool3d(MaskedAvgPool, nn.AvgPool3d):
    """Over 3 spatial axes."""


class MaskedMean(nn.Module):
    """The mean of what is present, over all spatial axes; any rank.

    Args:
        keepdim: Whether the spatial axes stay, with size 1.
    """

    def __init__(self, *, keepdim: bool = False) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Carried:
        """Return `(N, C)`, 0 where nothing is present, and whether anything is, `(1|N, 1|C)`.

        Args:
            x: `(N, C, *S)`.
            mask: 1 = present, `(1|N, 1|C, *S)`.

        Raises:
            CaseError: a mask of another shape, or a signal without spatial axes.
        """
        axes = tuple(range(2, x.dim()))
        if not axes:
            raise CaseError(
                f"x.shape={tuple(x.shape)} must have spatial axes behind batch, channels"
            )
        if mask is None:
            return Carried(x.mean(axes, keepdim=self.keepdim), None)
        wide = torch.promote_types(x.dtype, torch.float32)
        count = (~holes(x, mask)).sum(axes, keepdim=self.keepdim)
        total = without_holes(x, mask).sum(axes, keepdim=self.keepdim, dtype=wide)
        return Carried((total / count.clamp(min=1)).to(x.dtype), (count > 0).to(mask.dtype))

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"keepdim={self.keepdim}"
