"""Tiling and concatenating by short tiles, whose outputs are repeated and added in one pass."""

from collections.abc import Sequence

from torch import Tensor

from impls._shared.convolution import convolve
from impls._shared.sources import out_size_of, source_axes, spread
from impls._shared.triton_broadcast import Repeat
from impls._shared.triton_sources import sum_of_sources
from impls.tile_concat.tiles import tile_of


def fused_sum(
    x: Sequence[Tensor | None], weight: Tensor, bias: Tensor | None = None, *,
    size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], groups: int, padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    """Return `y = sum_i conv(short tile(x_i), w_i) + b`: what is repeated is never written apart."""
    rank, out_size = len(size), out_size_of(size, kernel_size, stride, padding, dilation)
    axes_of = zip(size, kernel_size, stride, padding, dilation, strict=True)
    tiles = [tile_of(*axis, padding_mode) for axis in axes_of]
    terms, end = {}, weight.shape[1]
    for axes, source in reversed(list(zip(source_axes(rank), x, strict=True))):
        if source is None:
            continue
        start = end - source.shape[1] // groups
        taps, end = weight.narrow(1, start, end - start), start
        short = [full if a in axes else tiles[a].size for a, full in enumerate(size)]
        sides = [p if a in axes else tiles[a].padding for a, p in enumerate(padding)]
        terms[axes] = convolve(
            spread(source, axes, rank).expand(*source.shape[:2], *short), taps, bias,
            stride=stride, padding=sides, dilation=dilation, groups=groups,
            padding_mode=padding_mode,
        )  # fmt: skip
        bias = None
    return sum_of_sources(terms, out_size, [Repeat(t.before, t.repeats) for t in tiles])
