"""Drop-in layers of the convolution that continues the image by polynomials."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

import impls.diff as variant
from impls._shared.layer import Size
from impls._shared.same_size import LazySameSizeLayer, SameSizeLayer


class DiffConv(SameSizeLayer):
    """`torch.nn.ConvNd` of the input's size, without padding artefacts; any rank.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, bias: As in ConvNd.
        keep_img_grad_at_invalid: Whether border outputs pass gradients to the signal.
        train_edge_kernel: Whether border outputs have a kernel (and bias) of their own.
        optimized_for: `memory` or `speed`: a hint.
        degree: Of the polynomials; None = `kernel_size - 1`.
    """

    shown = ("keep_img_grad_at_invalid", "optimized_for", "degree", "train_edge_kernel")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        keep_img_grad_at_invalid: bool = True,
        train_edge_kernel: bool = False,
        optimized_for: str = "memory",
        degree: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, groups, bias, **kwargs
        )
        self.keep_img_grad_at_invalid = keep_img_grad_at_invalid
        self.optimized_for = optimized_for
        self.degree = degree
        self.register_parameter("edge_kernel", None)
        self.register_parameter("edge_bias", None)
        if train_edge_kernel:
            self.edge_kernel = nn.Parameter(torch.empty_like(self.weight))
            if bias:
                self.edge_bias = nn.Parameter(torch.empty_like(self.bias))
            self._reset_edge()

    @property
    def train_edge_kernel(self) -> bool:
        """Whether border outputs have a kernel of their own."""
        return self.edge_kernel is not None

    def reset_parameters(self) -> None:
        """Initialise as ConvNd does; the edge kernel likewise, with draws of its own."""
        super().reset_parameters()
        self._reset_edge()

    def _reset_edge(self) -> None:
        edge = self.__dict__["_parameters"].get("edge_kernel")
        if edge is None or edge.numel() == 0:
            return
        nn.init.kaiming_uniform_(edge, a=5**0.5)
        if self.edge_bias is not None:
            bound = edge[0].numel() ** -0.5
            nn.init.uniform_(self.edge_bias, -bound, bound)

    def finish_conversion(self) -> None:
        """Let border outputs begin with the kernel and bias of the others."""
        if self.edge_kernel is None:
            return
        with torch.no_grad():
            self.edge_kernel.copy_(self.weight)
            if self.edge_bias is not None:
                self.edge_bias.copy_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return `conv_valid(P x, w) + b`."""
        return variant.functional(
            x, self.weight, self.bias, self.edge_kernel, self.edge_bias,
            keep_img_grad_at_invalid=self.keep_img_grad_at_invalid, degree=self.degree,
            optimized_for=self.optimized_for, **self.geometry(),
        )  # fmt: skip


class DiffConv1d(DiffConv, nn.Conv1d):
    """Over 1 spatial axis."""


class DiffConv2d(DiffConv, nn.Conv2d):
    """Over 2 spatial axes."""


class DiffConv3d(DiffConv, nn.Conv3d):
    """Over 3 spatial axes."""


class LazyDiffConv(LazySameSizeLayer):
    """Mixed in before a layer: the edge kernel, too, is shaped at the first call."""

    def __init__(
        self, out_channels: int, kernel_size: Size, stride: Size = 1, dilation: Size = 1,
        groups: int = 1, bias: bool = True, keep_img_grad_at_invalid: bool = True,
        train_edge_kernel: bool = False, *args: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            out_channels, kernel_size, stride, dilation, groups, bias, keep_img_grad_at_invalid,
            False, *args, **kwargs,
        )  # fmt: skip
        if train_edge_kernel:
            factory = {name: kwargs[name] for name in ("device", "dtype") if name in kwargs}
            self.edge_kernel = UninitializedParameter(**factory)
            self.edge_bias = None if self.bias is None else UninitializedParameter(**factory)

    def initialize_parameters(self, x: Tensor) -> None:
        """Shape every parameter after the channels of `x`."""
        if isinstance(self.edge_kernel, UninitializedParameter):
            channels = self._get_in_channels(x) // self.groups
            self.edge_kernel.materialize((self.out_channels, channels, *self.kernel_size))
            if self.edge_bias is not None:
                self.edge_bias.materialize((self.out_channels,))
        super().initialize_parameters(x)


class LazyDiffConv1d(LazyDiffConv, DiffConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = DiffConv1d


class LazyDiffConv2d(LazyDiffConv, DiffConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = DiffConv2d


class LazyDiffConv3d(LazyDiffConv, DiffConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = DiffConv3d
