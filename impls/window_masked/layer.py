"""Drop-in layers of the convolution with a mask for every window."""

from typing import Any

from torch import Tensor, nn

import impls.window_masked as variant
from harness.api import CaseError
from impls._shared.layer import ConvLayer, LazyConvLayer


class WindowMaskedConv(ConvLayer):
    """`torch.nn.ConvNd` whose kernel is masked anew at every output; any rank."""

    @classmethod
    def arguments_like(cls, module: Any) -> dict[str, Any]:
        """Return the constructor's arguments for the geometry of `module`, a `torch.nn.ConvNd`.

        Raises:
            CaseError: it pads by another mode than `zeros`.
        """
        given = super().arguments_like(module)
        if (mode := given["padding_mode"]) != "zeros":
            raise CaseError(f"padding_mode={mode!r} must be 'zeros'")
        return given

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return `y[q] = sum w[u] m[u,q] x[q*s - p + u*d] + b`."""
        options = self.geometry()
        mode = options.pop("padding_mode")
        if mode != "zeros":
            raise CaseError(f"padding_mode={mode!r} must be 'zeros'")
        return variant.functional(x, self.weight, self.bias, mask, **options)


class WindowMaskedConv1d(WindowMaskedConv, nn.Conv1d):
    """Over 1 spatial axis."""


class WindowMaskedConv2d(WindowMaskedConv, nn.Conv2d):
    """Over 2 spatial axes."""


class WindowMaskedConv3d(WindowMaskedConv, nn.Conv3d):
    """Over 3 spatial axes."""


class LazyWindowMaskedConv1d(LazyConvLayer, WindowMaskedConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = WindowMaskedConv1d


class LazyWindowMaskedConv2d(LazyConvLayer, WindowMaskedConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = WindowMaskedConv2d


class LazyWindowMaskedConv3d(LazyConvLayer, WindowMaskedConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = WindowMaskedConv3d
