"""Drop-in layers of the convolution with a chosen boundary method."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

import impls.boundary as variant
from harness.api import CaseError
from impls._shared.layer import Size
from impls._shared.same_size import LazySameSizeLayer, SameSizeLayer


class BoundaryConv(SameSizeLayer):
    """`torch.nn.ConvNd` of the input's size with a boundary method; any rank.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, bias: As in ConvNd.
        method: How the image is continued. `explicit` stacks one kernel per displacement of the
            window, all equal at first; `random` draws noise in training and none in evaluation.
        generator: Of the noise; None = that of torch.

    Raises:
        CaseError: an unknown method, or an even kernel.
    """

    shown = ("method",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        method: str = "replicate",
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        if method not in variant.METHODS:
            raise CaseError(f"method={method!r} must be one of {', '.join(variant.METHODS)}")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, groups, bias, **kwargs
        )
        self.method = method
        self.generator = generator
        self._stack_kernels()

    def _stack_kernels(self) -> None:
        plain = self.weight
        lazy = isinstance(plain, UninitializedParameter) or plain.numel() == 0
        if self.method == "explicit" and not lazy:
            stacked = plain.detach().expand(*self.kernel_size, *plain.shape)
            self.weight = nn.Parameter(stacked.clone())

    def finish_conversion(self) -> None:
        """Stack the kernels of `explicit`, which makes a new parameter of them."""
        self._stack_kernels()

    def reset_parameters(self) -> None:
        """Initialise as ConvNd does; stacked kernels all alike."""
        stacked = self.weight
        rank = len(self.kernel_size)
        if stacked.dim() <= rank + 2:
            super().reset_parameters()
            return
        self.weight = nn.Parameter(stacked.detach()[(0,) * rank].clone())
        super().reset_parameters()
        with torch.no_grad():
            stacked.copy_(self.weight.expand_as(stacked))
        self.weight = stacked

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the continued image."""
        rank = len(self.kernel_size)
        fits = x.dim() in (rank + 1, rank + 2)  # what does not is refused below
        drawn = self.method == "random" and self.training and fits
        noise = self._draw(x) if drawn else None
        return variant.functional(
            x, self.weight, self.bias, noise, method=self.method, **self.geometry()
        )

    def _draw(self, x: Tensor) -> Tensor:
        before = x.dim() - len(self.kernel_size)
        axes = zip(x.shape[before:], self.kernel_size, self.dilation, strict=True)
        size = [n + d * (k - 1) for n, k, d in axes]
        return torch.randn(
            (*x.shape[:before], *size), generator=self.generator, dtype=x.dtype, device=x.device
        )


class BoundaryConv1d(BoundaryConv, nn.Conv1d):
    """Over 1 spatial axis."""


class BoundaryConv2d(BoundaryConv, nn.Conv2d):
    """Over 2 spatial axes."""


class BoundaryConv3d(BoundaryConv, nn.Conv3d):
    """Over 3 spatial axes."""


class LazyBoundaryConv(LazySameSizeLayer):
    """Mixed in before a layer: stacked kernels, too, are shaped at the first call."""

    def initialize_parameters(self, x: Tensor) -> None:
        """Shape every parameter after the channels of `x`."""
        fresh = self.has_uninitialized_params()
        super().initialize_parameters(x)
        if fresh:
            self._stack_kernels()


class LazyBoundaryConv1d(LazyBoundaryConv, BoundaryConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = BoundaryConv1d


class LazyBoundaryConv2d(LazyBoundaryConv, BoundaryConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = BoundaryConv2d


class LazyBoundaryConv3d(LazyBoundaryConv, BoundaryConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = BoundaryConv3d
