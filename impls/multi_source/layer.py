"""Drop-in layers of multi-source convolution."""

from collections.abc import Sequence
from math import sqrt
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import Parameter, UninitializedParameter

import impls.multi_source as variant
from harness.api import PADDING_MODES, CaseError, per_axis
from impls._shared.layer import Size
from impls._shared.source_layer import (
    SourceLayer,
    TakesImage,
    TakesLine,
    TakesVolume,
    channels_per_source,
    learned_channels,
)
from impls._shared.sources import NAMES, on_axes, source_axes
from impls.multi_source.conversion import from_tile_concat, to_tile_concat


class SourceWeights(nn.Module):
    """A weight per source and one bias, initialised as the layer that each source alone would have.

    `weight` and `bias` belong to the widest source, under the names that `torch.nn.ConvNd` gives
    them; the others are `weight_row`, `weight_scalar` and so on. An absent source has none.

    Args:
        in_channels: Channels of every source, 0 where there is none; None to learn them late.
        out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device,
            dtype: As `torch.nn.ConvNd` takes them.
    """

    def __init__(
        self,
        in_channels: Sequence[int] | None,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if padding_mode not in PADDING_MODES:
            raise CaseError(f"padding_mode={padding_mode!r} must be one of {PADDING_MODES}")
        rank, named = self.rank, isinstance(padding, str)
        self.out_channels, self.groups, self.padding_mode = out_channels, groups, padding_mode
        self.kernel_size = per_axis("kernel_size", kernel_size, rank)
        self.stride = per_axis("stride", stride, rank)
        self.padding = padding if named else per_axis("padding", padding, rank)
        self.dilation = per_axis("dilation", dilation, rank)
        for name in self.weight_names():
            self.register_parameter(name, UninitializedParameter(device=device, dtype=dtype))
        made = Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", made)
        self.source_channels: tuple[int, ...] = ()
        if in_channels is not None:
            self.take_channels(channels_per_source(in_channels, rank))

    @classmethod
    def weight_names(cls) -> tuple[str, ...]:
        """Return the parameters' names in the order of the sources."""
        return ("weight", *(f"weight_{name}" for name in NAMES[cls.rank][1:]))

    @property
    def weights(self) -> tuple[Tensor | None, ...]:
        """The weight of every source, None where it is absent."""
        return tuple(getattr(self, name) for name in self.weight_names())

    @property
    def in_channels(self) -> tuple[int, ...]:
        """Channels of every source."""
        return self.source_channels

    def take_channels(self, channels: tuple[int, ...]) -> None:
        """Give every source its channels, and its weight if it has none yet."""
        for label, count in (("out_channels", (self.out_channels,)), ("in_channels", channels)):
            if any(c % self.groups for c in count):
                raise CaseError(f"{label}={count} is not divisible by groups={self.groups}")
        self.source_channels = channels
        fresh = False
        spans = source_axes(self.rank)
        for name, axes, count in zip(self.weight_names(), spans, channels, strict=True):
            weight = getattr(self, name)
            if not isinstance(weight, UninitializedParameter):
                continue
            if count:
                kernel = on_axes(self.kernel_size, axes)
                weight.materialize((self.out_channels, count // self.groups, *kernel))
                fresh = True
            else:
                setattr(self, name, None)
        if fresh:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight as its own `torch.nn.ConvNd` or `Linear` would, in their order."""
        bias = self.bias
        for weight in self.weights:
            if weight is None:
                continue
            nn.init.kaiming_uniform_(weight, a=sqrt(5))
            if bias is not None:
                bound = 1 / sqrt(weight[0].numel())
                nn.init.uniform_(bias, -bound, bound)
            bias = None

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        rest = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        first = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{first}, {rest}, bias={self.bias is not None}"


class MultiSourceConv(SourceLayer, SourceWeights):
    """A sum of one convolution per source, over the axes that it spans; any rank."""

    def convolve_sources(self, x: Sequence[Tensor | None], size: Sequence[int] | None) -> Tensor:
        """Return `sum_i conv(x_i, w_i) + b`."""
        return variant.functional(
            x, self.weights, self.bias, size=size, kernel_size=self.kernel_size, **self.geometry()
        )

    @classmethod
    def from_tile_concat(cls, layer: Any, **options: Any) -> Self:
        """Return the layer that computes what `layer` does, a `TileConcatConv` of the same rank.

        Raises:
            CaseError: zero padding acts along an axis that a source is tiled over.
        """
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        geometry = {name: getattr(layer, name) for name in names}
        weight, bias = layer.weight, layer.bias
        made = cls(
            layer.source_channels, layer.out_channels, layer.kernel_size, bias=bias is not None,
            device=weight.device, dtype=weight.dtype, **geometry, **options,
        )  # fmt: skip
        del geometry["stride"]
        with torch.no_grad():
            found = from_tile_concat(weight, layer.source_channels, **geometry)
            for own, value in zip((*made.weights, made.bias), (*found, bias), strict=True):
                if own is not None:
                    own.copy_(value)
        return made

    from_other = from_tile_concat  # what `impls.convert` calls

    def to_tile_concat(self) -> dict[str, Tensor]:
        """Return the state of a `TileConcatConv`, or `torch.nn.ConvNd`, that computes the same.

        Raises:
            CaseError: zero padding cuts off every tap at some output.
        """
        state = {
            "weight": to_tile_concat(
                self.weights, kernel_size=self.kernel_size, padding=self.padding,
                dilation=self.dilation, padding_mode=self.padding_mode,
            ).detach()
        }  # fmt: skip
        return state if self.bias is None else state | {"bias": self.bias.detach().clone()}


class LazyMultiSourceConv(LazyModuleMixin):
    """Mixed in before a layer: the channels of every source are learned at the first call.

    A source that the first call does not give is absent from then on.
    """

    def __init__(self, out_channels: int, kernel_size: Size, *args: Any, **kwargs: Any) -> None:
        super().__init__(None, out_channels, kernel_size, *args, **kwargs)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Load a state; a source that a whole state lacks is absent."""
        names = [name for name in self.weight_names() if prefix + name not in state_dict]
        for name in names if len(names) < len(self.weight_names()) else ():
            if isinstance(getattr(self, name), UninitializedParameter):
                setattr(self, name, None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def initialize_parameters(self, *x: Tensor | None, **named: Any) -> None:
        """Make the parameters for the sources of a call."""
        self.take_channels(learned_channels(x, named, self.rank))


class MultiSourceConv1d(TakesLine, MultiSourceConv):
    """Over 1 spatial axis."""


class MultiSourceConv2d(TakesImage, MultiSourceConv):
    """Over 2 spatial axes."""


class MultiSourceConv3d(TakesVolume, MultiSourceConv):
    """Over 3 spatial axes."""


class LazyMultiSourceConv1d(LazyMultiSourceConv, MultiSourceConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = MultiSourceConv1d


class LazyMultiSourceConv2d(LazyMultiSourceConv, MultiSourceConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = MultiSourceConv2d


class LazyMultiSourceConv3d(LazyMultiSourceConv, MultiSourceConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = MultiSourceConv3d
