"""Tiling and concatenating with tiles just long enough to show every border output once."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from harness.api import ConvCase
from impls._shared.convolution import convolve
from impls._shared.onednn import convolve_faster
from impls._shared.sources import (
    out_size_of,
    over_output,
    source_axes,
    spread,
    sum_small_first,
)


class Tile(NamedTuple):
    """How far to tile along an axis, and which output, `before` others, then stands for many."""

    size: int
    padding: int
    before: int
    repeats: int


def tile_of(
    size: int, kernel_size: int, stride: int, padding: int, dilation: int, mode: str
) -> Tile:
    """Return the shortest tile whose outputs are all that a tile over `size` samples gives.

    Outputs whose window lies inside are equal, so one is enough: the samples between are left out.
    """
    field = dilation * (kernel_size - 1) + 1
    if mode != "zeros" or not padding:  # a constant that is continued has no border
        return Tile(field, 0, 0, (size + 2 * padding - field) // stride + 1)
    first, last = -(-padding // stride), (size + padding - field) // stride
    repeats = max(last - first + 1, 1)
    return Tile(size - (repeats - 1) * stride, padding, first, repeats)


def saves_enough(case: ConvCase) -> bool:
    """Return whether short tiles pay: a convolution per source costs about 2 million multiply-adds.

    Measured on one CPU core. Below some hundred outputs reading the weights is what takes the time.
    """
    geometry = (case.in_size, case.kernel_size, case.stride, case.padding, case.dilation)
    mode = case.option("padding_mode", "zeros")
    tiles = [tile_of(*axis, mode) for axis in zip(*geometry, strict=True)]
    kept = [(out - t.repeats + 1) / out for out, t in zip(case.out_size, tiles, strict=True)]
    spans = source_axes(case.spatial_dims)
    saved = sum(
        channels * (1 - prod(share for axis, share in enumerate(kept) if axis not in axes))
        for axes, channels in zip(spans, case.sources, strict=True)
    )
    # a source alone, too, pays for repeating its outputs
    extra = max(1, sum(map(bool, case.sources)) - 1)
    return prod(case.out_size) >= 128 and saved / case.c_in * case.macs >= 2e6 * extra


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
    axes, y = sum_small_first(terms, rank, partial(_repeat, tiles))
    y = _repeat(tiles, y, tuple(axis for axis in range(rank) if axis not in axes))
    return over_output(y, out_size)


def _repeat(tiles: Sequence[Tile], term: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return `term` with the outputs along `axes` that stand for many repeated."""
    for axis in axes:
        tile, place = tiles[axis], 2 + axis
        count = term.shape[place]
        if count > 1 and tile.repeats > 1:  # a single output is repeated by broadcasting
            shape = list(term.shape)
            shape[place] = tile.repeats
            behind = tile.before + 1
            pieces = [
                term.narrow(place, 0, tile.before),
                term.narrow(place, tile.before, 1).expand(shape),
                term.narrow(place, behind, count - behind),
            ]
            term = torch.cat(pieces, dim=place)
    return term
