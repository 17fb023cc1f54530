"""Drop-in layers of masked convolution."""

from typing import Any

from torch import Tensor, nn

import impls.masked as variant
from impls._shared.layer import LazyConvLayer, PairLayer
from impls.masked.oracle import MaskedOutput


class MaskedConv(PairLayer):
    """`torch.nn.ConvNd` whose output is scaled by the mask at the window's centre; any rank.

    Args:
        apply_mask: Whether the input is masked first. Without it, what stands in holes acts on
            their neighbours: the input is expected to be masked already.
        return_mask: True returns the pair; False the output alone; None the pair where the call
            gives a mask.
    """

    shown = ("apply_mask", *PairLayer.shown)

    def __init__(self, *args: Any, apply_mask: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.apply_mask = apply_mask

    def forward(self, x: Tensor, mask: Tensor | None = None) -> MaskedOutput | Tensor:
        """Return the output and the mask for the next layer, None without a mask."""
        options = self.geometry() | {"apply_mask": self.apply_mask}
        pair = variant.functional(x, self.weight, self.bias, mask, **options)
        return self.returned(pair, mask)


class MaskedConv1d(MaskedConv, nn.Conv1d):
    """Over 1 spatial axis."""


class MaskedConv2d(MaskedConv, nn.Conv2d):
    """Over 2 spatial axes."""


class MaskedConv3d(MaskedConv, nn.Conv3d):
    """Over 3 spatial axes."""


class LazyMaskedConv1d(LazyConvLayer, MaskedConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = MaskedConv1d


class LazyMaskedConv2d(LazyConvLayer, MaskedConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = MaskedConv2d


class LazyMaskedConv3d(LazyConvLayer, MaskedConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = MaskedConv3d
