"""Drop-in layers of partial convolution."""

from typing import Any

from torch import Tensor, nn

import impls.partial as variant
from harness.api import CaseError
from impls._shared.layer import LazyConvLayer, PairLayer
from impls.partial.oracle import PartialOutput


class PartialConv(PairLayer):
    """`torch.nn.ConvNd` re-weighted by the coverage of every window; any rank; stateless.

    Args:
        multi_channel: Whether masks have one channel per input channel, or one in all. A mask of
            the other kind raises.
        return_mask: True returns the pair; False the output alone; None the pair where the call
            gives a mask.
    """

    shown = ("multi_channel", *PairLayer.shown)

    def __init__(self, *args: Any, multi_channel: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.multi_channel = multi_channel

    def forward(self, x: Tensor, mask: Tensor | None = None) -> PartialOutput | Tensor:
        """Return the output and the mask for the next layer."""
        channel = -len(self.kernel_size) - 1
        if mask is not None and mask.dim() == x.dim() >= -channel:  # else it is refused below
            expected = self.in_channels if self.multi_channel else 1
            if mask.shape[channel] != expected:
                raise CaseError(
                    f"mask.shape={tuple(mask.shape)} needs {expected} channels, "
                    f"since multi_channel={self.multi_channel} and in_channels={self.in_channels}; "
                    "impls.MaskedSequential repeats a shared mask"
                )
        pair = variant.functional(x, self.weight, self.bias, mask, **self.geometry())
        return self.returned(pair, mask)


class PartialConv1d(PartialConv, nn.Conv1d):
    """Over 1 spatial axis."""


class PartialConv2d(PartialConv, nn.Conv2d):
    """Over 2 spatial axes."""


class PartialConv3d(PartialConv, nn.Conv3d):
    """Over 3 spatial axes."""


class LazyPartialConv1d(LazyConvLayer, PartialConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = PartialConv1d


class LazyPartialConv2d(LazyConvLayer, PartialConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = PartialConv2d


class LazyPartialConv3d(LazyConvLayer, PartialConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = PartialConv3d
