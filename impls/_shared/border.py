"""Which outputs of a same-size convolution have a window that leaves the image, and by how much."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Piece = TypeVar("Piece")


class Run(NamedTuple):
    """Neighbouring outputs along one axis whose windows leave the image by as many taps.

    Args:
        index: The displacement: `(kernel_size-1)/2` inside; less where taps are missing before the
            image, more where they are missing behind it.
        first: The first of the outputs.
        count: How many.
    """

    index: int
    first: int
    count: int


def displacements(size: int, taps: int, stride: int, dilation: int) -> list[Run]:
    """Return the runs of outputs along one axis, in order, empty ones left out.

    No window may leave the image on both sides: `size >= dilation * (taps - 1)`.
    """
    half = taps // 2
    starts = [i * dilation for i in range(half + 1)]
    starts += [size - i * dilation for i in range(half, -1, -1)]
    firsts = [-(-start // stride) for start in starts]
    runs = enumerate(pairwise(firsts))
    return [Run(index, first, stop - first) for index, (first, stop) in runs if stop > first]


def interior(size: int, taps: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return `(first, stop)` of the outputs along one axis whose window is inside the image."""
    padding, outputs = dilation * (taps - 1) // 2, (size - 1) // stride + 1
    first = min(outputs, -(-padding // stride))
    return first, max(first, (size - 1 - padding) // stride + 1)


def assemble(
    pieces: Sequence[Sequence[Piece]],
    compute: Callable[[tuple[Piece, ...]], Tensor],
    chosen: tuple[Piece, ...] = (),
) -> Tensor:
    """Return the tensor whose box at `(piece, piece, ...)`, one per spatial axis, is computed."""
    if len(chosen) == len(pieces):
        return compute(chosen)
    parts = [assemble(pieces, compute, (*chosen, piece)) for piece in pieces[len(chosen)]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2 + len(chosen))


class Box(NamedTuple):
    """Outputs `first <= q < stop` along every spatial axis, all inside or all at the border."""

    first: tuple[int, ...]
    stop: tuple[int, ...]
    inside: bool


def frame(
    out_size: Sequence[int],
    inner: Sequence[tuple[int, int]],
    compute: Callable[[Box], Tensor],
    chosen: tuple[tuple[int, int], ...] = (),
) -> Tensor:
    """Return the tensor of `out_size` from its interior box and two bands per axis around it."""

    def box(*rest: tuple[int, int], inside: bool) -> Box:
        first, stop = zip(*chosen, *rest, strict=True)
        return Box(first, stop, inside)

    axis = len(chosen)
    if axis == len(out_size):
        return compute(box(inside=True))
    (first, stop), size = inner[axis], out_size[axis]
    others = [(0, other) for other in out_size[axis + 1 :]]
    parts = []
    if first > 0:
        parts.append(compute(box((0, first), *others, inside=False)))
    if stop > first:
        parts.append(frame(out_size, inner, compute, (*chosen, (first, stop))))
    if size > stop:
        parts.append(compute(box((stop, size), *others, inside=False)))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2 + axis)


def window_of(
    x: Tensor, starts: Sequence[int], counts: Sequence[int], stride: Sequence[int],
    field: Sequence[int],
) -> Tensor:  # fmt: skip
    """Return the box of `x` that `counts` outputs read, the first window beginning at `starts`."""
    for axis, (start, count, s, f) in enumerate(
        zip(starts, counts, stride, field, strict=True), start=2
    ):
        x = x.narrow(axis, start, (count - 1) * s + f)
    return x
