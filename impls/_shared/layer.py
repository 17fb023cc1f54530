"""What the drop-in layers share: parameters of `torch.nn.ConvNd`, calls of the functional form."""

from collections.abc import Sequence
from typing import Any

from torch.nn.modules.conv import _LazyConvXdMixin
from torch.nn.parameter import UninitializedParameter

Size = int | Sequence[int]


class ConvLayer:
    """Mixed into a subclass of `torch.nn.ConvNd`, whose parameters and keys stay as they are.

    Args:
        implementation: Pins one implementation by name; None lets every call take the fastest.
    """

    def __init__(self, *args: Any, implementation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.implementation = implementation

    def geometry(self) -> dict[str, Any]:
        """Return the keyword arguments of the functional form that every layer has."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.padding_mode,
            "implementation": self.implementation,
        }

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        pinned = f", implementation={self.implementation!r}" if self.implementation else ""
        return super().extra_repr() + pinned


class LazyConvLayer(_LazyConvXdMixin):
    """Mixed in before a layer: `in_channels` is learned at the first call."""

    def __init__(
        self,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        # No bias here: its tensor would be replaced below.
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, **kwargs)
        factory = {name: kwargs[name] for name in ("device", "dtype") if name in kwargs}
        self.weight = UninitializedParameter(**factory)
        self.out_channels = out_channels
        if bias:
            self.bias = UninitializedParameter(**factory)

    def initialize_parameters(self, x: Any, *_: Any, **__: Any) -> None:
        """Shape every parameter after the channels of a call's signal, given by place or name."""
        super().initialize_parameters(x)
        # a state that was loaded before the first call has the shapes, but leaves this at 0
        self.in_channels = self.weight.shape[1] * self.groups

    def _get_num_spatial_dims(self) -> int:
        return len(self.kernel_size)
