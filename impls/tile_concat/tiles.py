"""Tiles just long enough to show every border output once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


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


def repeated(tiles: Sequence[Tile], term: Tensor, axes: Sequence[int]) -> Tensor:
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
