"""Tiled sources beside an image, without tiles: what they add is made once per class of outputs."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared import native
from impls._shared.native_sources import cost_where, takes_sources
from impls._shared.onednn import SlowPaths, slow_paths
from impls._shared.sources import source_axes
from impls.tile_concat.short_tiles import short_tiles
from impls.tile_concat.tiles import tile_of


def classes_in_one_pass(
    x: Sequence[Tensor | None], weight: Tensor, bias: Tensor | None = None, *, size: Shape,
    kernel_size: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int,
    padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    """Return `y = conv(image) + what every tiled source adds to each class of outputs + b`.

    Outputs whose windows have the same taps in the image get the same of a tiled source: it is
    multiplied once for each such class, by the weight as it lies, and one pass over the output adds
    it. Without an image, with groups or another padding, tiles are convolved.
    """
    if _takes(x, weight, bias, groups, padding, padding_mode):
        present = tuple([source is not None for source in x])
        axes = tuple(zip(size, kernel_size, stride, padding, dilation, strict=True))
        plan = _plan(present, x[0].shape, x[0].dtype, axes)
        y: Tensor = _operation()(
            [source for source in x if source is not None], [weight], bias, plan.spans, plan.tiles,
            stride, padding, dilation, *plan.slow,
        )  # fmt: skip
        return y
    return short_tiles(
        x, weight, bias, size=size, kernel_size=kernel_size, stride=stride, padding=padding,
        dilation=dilation, groups=groups, padding_mode=padding_mode,
    )  # fmt: skip


def _takes(x: Any, weight: Any, bias: Any, groups: int, padding: Shape, padding_mode: str) -> bool:
    few = max(weight.shape[2:]) < 63  # taps, of which each has a bit
    return few and takes_sources(x, [weight], bias, groups, padding, padding_mode)


of_native = cost_where(_takes)


class _Plan(NamedTuple):
    """What the operation takes beside tensors.

    Args:
        spans: Of every source that is there, bit `a` for axis `a`.
        tiles: Per axis how many classes of outputs there are, and of each its first output, how
            many it has, and bit `u` for every tap `u` of it that lands in the image.
        slow: Where the library is.
    """

    spans: tuple[int, ...]
    tiles: tuple[int, ...]
    slow: SlowPaths


@lru_cache(maxsize=1024)
def _plan(
    present: tuple[bool, ...], shape: torch.Size, dtype: torch.dtype,
    axes: tuple[tuple[int, ...], ...],
) -> _Plan:  # fmt: skip
    spans = tuple(
        sum(1 << axis for axis in own)
        for own, is_there in zip(source_axes(len(axes)), present, strict=True) if is_there
    )  # fmt: skip
    tiles = tuple(number for axis in axes for number in _classes(*axis))
    kernel_size, dilation = tuple(axis[1] for axis in axes), tuple(axis[4] for axis in axes)
    return _Plan(spans, tiles, slow_paths(shape, kernel_size, dilation, 1, dtype))


def _classes(size: int, taps: int, stride: int, padding: int, dilation: int) -> list[int]:
    """Return the entries of `_Plan.tiles` of one axis."""
    tile = tile_of(size, taps, stride, padding, dilation, "zeros")
    ring = tile.padding and padding
    count = (tile.size + 2 * ring - dilation * (taps - 1) - 1) // stride + 1
    found, first = [count], 0
    for place in range(count):
        outputs = tile.repeats if place == tile.before else 1
        reads = [place * stride - ring + u * dilation for u in range(taps)]
        found += [first, outputs, sum(1 << u for u, at in enumerate(reads) if 0 <= at < tile.size)]
        first += outputs
    return found


@lru_cache(maxsize=1)
def _operation() -> Any:
    return native.operations().sources.default
