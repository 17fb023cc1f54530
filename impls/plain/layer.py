"""Drop-in layers of the plain convolution."""

from torch import Tensor, nn

import impls.plain as variant
from impls._shared.layer import ConvLayer, LazyConvLayer


class PlainConv(ConvLayer):
    """`torch.nn.ConvNd` over this variant's implementations; any rank."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `conv(x, w) + b`."""
        return variant.functional(x, self.weight, self.bias, **self.geometry())


class PlainConv1d(PlainConv, nn.Conv1d):
    """Over 1 spatial axis."""


class PlainConv2d(PlainConv, nn.Conv2d):
    """Over 2 spatial axes."""


class PlainConv3d(PlainConv, nn.Conv3d):
    """Over 3 spatial axes."""


class LazyPlainConv1d(LazyConvLayer, PlainConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = PlainConv1d


class LazyPlainConv2d(LazyConvLayer, PlainConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = PlainConv2d


class LazyPlainConv3d(LazyConvLayer, PlainConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = PlainConv3d
