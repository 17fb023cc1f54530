"""Tiling and concatenating with tiles just long enough to show every border output once."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from torch import Tensor

from harness.api import ConvCase
from impls._shared import onednn
from impls._shared.convolution import convolve
from impls._shared.eager import follow, is_eager
from impls._shared.onednn import convolve_faster
from impls._shared.sources import (
    on_axes,
    out_size_of,
    over_output,
    source_axes,
    spread,
    sum_small_first,
)
from impls.tile_concat.tap_sums import FEW, plan_of, rule_of
from impls.tile_concat.tiles import repeated, tile_of

# Measured on one CPU core, in multiply-adds of a convolution: what a source costs in calls, per
# weight that is read, or moved and summed; and what one of a convolution by a slow loop is worth.
CALLS, PER_WEIGHT_READ, PER_WEIGHT_SUMMED, LOOPED = 4e6, 30, 75, 4.0


def saves_enough(case: ConvCase) -> bool:
    """Return whether short tiles save more than they cost, both in multiply-adds of one CPU core.

    Every tiled source costs its calls, and its weights: read once where their products with
    windows are formed, else moved and summed. Where the library convolves by its slow loop, what
    is saved is worth more.
    """
    geometry = (case.in_size, case.kernel_size, case.stride, case.padding, case.dilation)
    mode = case.option("padding_mode", "zeros")
    tiles = [tile_of(*axis, mode) for axis in zip(*geometry, strict=True)]
    kept = [(out - t.repeats + 1) / out for out, t in zip(case.out_size, tiles, strict=True)]
    saved = cost = 0.0
    for axes, channels in zip(source_axes(case.spatial_dims), case.sources, strict=True):
        tiled = [share for axis, share in enumerate(kept) if axis not in axes]
        saved += channels * (1 - prod(tiled))
        if channels and tiled:
            few = prod(on_axes(case.out_size, axes)) <= FEW
            weights = case.c_out * channels // case.groups * case.taps
            cost += CALLS + weights * (PER_WEIGHT_READ if few else PER_WEIGHT_SUMMED)
    worth = LOOPED if onednn.pays(case) else 1.0
    return worth * saved / case.c_in * case.macs >= max(cost, CALLS)


def short_tiles(
    x: Sequence[Tensor | None],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str = "zeros",
) -> Tensor:
    """Return `y = sum_i conv(short tile(x_i), w_i) + b`, interior outputs repeated.

    A tiled source gives the same output wherever its window lies in the image, so a tile a little
    longer than the kernel shows them all; the image alone is convolved in full. The weight is used
    as it is.
    """
    geometry = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation)}
    sides = {"size": tuple(size), "kernel_size": tuple(kernel_size), **geometry}
    zeros = padding_mode == "zeros" or not any(padding)
    if groups == 1 and zeros and x[0] is not None and is_eager(*x, weight, bias):
        plan = plan_of(tuple([source is not None for source in x]), **sides)

        def plain(*tensors: Any) -> Tensor:
            *sources, taps, added = tensors
            return _by_tiles(sources, taps, added, groups=1, padding_mode="zeros", **sides)

        return follow(rule_of(plan, plain), *x, weight, bias)
    return _by_tiles(x, weight, bias, groups=groups, padding_mode=padding_mode, **sides)


def _by_tiles(
    x: Sequence[Tensor | None], weight: Tensor, bias: Tensor | None, *, size: Sequence[int],
    kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int, padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    rank, out_size = len(size), out_size_of(size, kernel_size, stride, padding, dilation)
    tiles = [
        tile_of(*axis, padding_mode)
        for axis in zip(size, kernel_size, stride, padding, dilation, strict=True)
    ]
    terms, end = [], weight.shape[1]
    for axes, source in reversed(list(zip(source_axes(rank), x, strict=True))):
        if source is None:
            continue
        start = end - source.shape[1] // groups
        taps, end = weight.narrow(1, start, end - start), start
        own = [axis in axes for axis in range(rank)]
        short = [full if spans else t.size for spans, full, t in zip(own, size, tiles, strict=True)]
        sides = [p if spans else t.padding for spans, p, t in zip(own, padding, tiles, strict=True)]
        # of tiles a few samples long oneDNN is the slower one
        convolution = convolve_faster if all(own) else convolve
        term = convolution(
            spread(source, axes, rank).expand(*source.shape[:2], *short), taps, bias,
            stride=stride, padding=sides, dilation=dilation, groups=groups,
            padding_mode=padding_mode,
        )  # fmt: skip
        terms.append((axes, term))
        bias = None
    axes, y = sum_small_first(terms, rank, partial(repeated, tiles))
    y = repeated(tiles, y, tuple(axis for axis in range(rank) if axis not in axes))
    return over_output(y, out_size)
