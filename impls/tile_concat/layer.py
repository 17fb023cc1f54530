"""Drop-in layers of tiling, concatenating and convolving."""

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn

import impls.tile_concat as variant
from impls._shared.layer import LazyConvLayer, Size
from impls._shared.source_layer import (
    SourceLayer,
    TakesImage,
    TakesLine,
    TakesVolume,
    channels_per_source,
    learned_channels,
)


class TileConcatConv(SourceLayer):
    """`torch.nn.ConvNd` over the concatenated sources, so that its checkpoints load; any rank.

    Args:
        in_channels: Channels of every source, 0 where there is none.
        out_channels, kernel_size, args, kwargs: As `torch.nn.ConvNd` takes them.
    """

    def __init__(
        self, in_channels: Sequence[int] | int, out_channels: int, kernel_size: Size,
        *args: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        late = in_channels == 0
        channels = () if late else channels_per_source(in_channels, self.rank)
        super().__init__(sum(channels), out_channels, kernel_size, *args, **kwargs)
        self.source_channels = channels

    def extra_repr(self) -> str:
        """Return the constructor's arguments, channels by source."""
        first, _, rest = super().extra_repr().partition(", ")
        return f"{self.source_channels if first != '0' else first}, {rest}"

    @classmethod
    def from_multi_source(cls, layer: Any, **options: Any) -> Self:
        """Return the layer that computes what `layer` does, a `MultiSourceConv` of the same rank.

        Raises:
            CaseError: zero padding cuts off every tap at some output.
        """
        state = layer.to_tile_concat()
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        made = cls(
            layer.source_channels, layer.out_channels, layer.kernel_size, bias="bias" in state,
            device=state["weight"].device, dtype=state["weight"].dtype,
            **{name: getattr(layer, name) for name in names}, **options,
        )  # fmt: skip
        made.load_state_dict(state)
        return made

    from_other = from_multi_source  # what `impls.convert` calls

    def convolve_sources(self, x: Sequence[Tensor | None], size: Sequence[int] | None) -> Tensor:
        """Return `conv(concat_i tile(x_i), w) + b`."""
        return variant.functional(x, self.weight, self.bias, size=size, **self.geometry())


class LazyTileConcatConv(LazyConvLayer):
    """Mixed in before a layer: the channels of every source are learned at the first call."""

    def initialize_parameters(self, *x: Tensor | None, **named: Any) -> None:
        """Make the parameters for the sources of a call."""
        self.source_channels = learned_channels(x, named, self.rank)
        self.in_channels = sum(self.source_channels)
        super().initialize_parameters(None)

    def _get_in_channels(self, _: None) -> int:
        return self.in_channels


class TileConcatConv1d(TakesLine, TileConcatConv, nn.Conv1d):
    """Over 1 spatial axis."""


class TileConcatConv2d(TakesImage, TileConcatConv, nn.Conv2d):
    """Over 2 spatial axes."""


class TileConcatConv3d(TakesVolume, TileConcatConv, nn.Conv3d):
    """Over 3 spatial axes."""


class LazyTileConcatConv1d(LazyTileConcatConv, TileConcatConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = TileConcatConv1d


class LazyTileConcatConv2d(LazyTileConcatConv, TileConcatConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = TileConcatConv2d


class LazyTileConcatConv3d(LazyTileConcatConv, TileConcatConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = TileConcatConv3d
