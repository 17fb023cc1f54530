"""Drop-in layers of the convolution of a masked signal."""

from torch import Tensor, nn

import impls.input_masked as variant
from impls._shared.layer import ConvLayer, LazyConvLayer


class InputMaskedConv(ConvLayer):
    """`torch.nn.ConvNd` of what a mask leaves of its input; any rank."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return `conv(x*m, w) + b`."""
        return variant.functional(x, self.weight, self.bias, mask, **self.geometry())


class InputMaskedConv1d(InputMaskedConv, nn.Conv1d):
    """Over 1 spatial axis."""


class InputMaskedConv2d(InputMaskedConv, nn.Conv2d):
    """Over 2 spatial axes."""


class InputMaskedConv3d(InputMaskedConv, nn.Conv3d):
    """Over 3 spatial axes."""


class LazyInputMaskedConv1d(LazyConvLayer, InputMaskedConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = InputMaskedConv1d


class LazyInputMaskedConv2d(LazyConvLayer, InputMaskedConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = InputMaskedConv2d


class LazyInputMaskedConv3d(LazyConvLayer, InputMaskedConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = InputMaskedConv3d
