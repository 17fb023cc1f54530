"""Layers without a padding argument: the output has the size of the input, divided by the stride."""

from typing import Any

from torch import Tensor
from torch.nn.modules.conv import _LazyConvXdMixin
from torch.nn.parameter import UninitializedParameter

from harness.api import CaseError
from impls._shared.layer import ConvLayer, Size


class SameSizeLayer(ConvLayer):
    """Mixed into a subclass of `torch.nn.ConvNd`: its constructor without padding.

    Raises:
        CaseError: an even kernel, which has no centre.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias, **kwargs
        )
        if any(k % 2 == 0 for k in self.kernel_size):
            raise CaseError(f"kernel_size={self.kernel_size} must be odd on every axis")

    @classmethod
    def arguments_like(cls, module: Any) -> dict[str, Any]:
        """Return the constructor's arguments for the geometry of `module`, a `torch.nn.ConvNd`.

        Raises:
            CaseError: its output has another size.
        """
        given = super().arguments_like(module)
        padding = given.pop("padding")
        del given["padding_mode"]
        axes = zip(module.kernel_size, module.dilation, strict=True)
        half = tuple(d * (k - 1) // 2 for k, d in axes)
        if padding != "same" and padding != half and not (padding == "valid" and not any(half)):
            raise CaseError(f"padding={padding} must be dilation*(kernel_size-1)/2 = {half}")
        return given

    def geometry(self) -> dict[str, Any]:
        """Return the keyword arguments of the functional form that every such layer has."""
        absent = ("padding", "padding_mode")
        return {name: value for name, value in super().geometry().items() if name not in absent}


class LazySameSizeLayer(_LazyConvXdMixin):
    """Mixed in before such a layer: `in_channels` is learned at the first call."""

    def __init__(
        self,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        # No bias here: its tensor would be replaced below.
        super().__init__(0, 0, kernel_size, stride, dilation, groups, False, *args, **kwargs)
        factory = {name: kwargs[name] for name in ("device", "dtype") if name in kwargs}
        self.weight = UninitializedParameter(**factory)
        self.out_channels = out_channels
        if bias:
            self.bias = UninitializedParameter(**factory)

    def initialize_parameters(self, x: Tensor) -> None:
        """Shape every parameter after the channels of `x`."""
        super().initialize_parameters(x)
        # a state that was loaded before the first call has the shapes, but leaves this at 0
        self.in_channels = self._get_in_channels(x)

    def _get_num_spatial_dims(self) -> int:
        return len(self.kernel_size)
