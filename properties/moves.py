"""What every axis of every argument is, so that a law moves all of them together.

Derived from the shapes that a variant declares: a case whose sizes are all different tells by the
size of an axis what it runs along.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Outputs, Trial
from harness.tolerance import Bound
from harness.variant import Role, Value, Variant


class Along(StrEnum):
    """What an axis runs along."""

    COPIES = "one entry for all"
    BATCH = "samples"
    CHANNEL = "channels of the signal"
    SHARE = "channels of the signal in one group"
    FILTER = "channels of the output"
    PIXEL = "positions of the image"
    OUTPUT = "positions of the output"
    TAP = "taps of the kernel"


class Axis(NamedTuple):
    """One axis of a tensor; `number` says which spatial axis it belongs to."""

    along: Along
    number: int = 0

    def is_spatial(self, number: int | None = None) -> bool:
        """Return whether it belongs to a spatial axis, or to the one of this number."""
        spatial = self.along in (Along.PIXEL, Along.OUTPUT, Along.TAP)
        return spatial and number in (None, self.number)


Axes = tuple[Axis, ...]
Move = Callable[[Tensor, Axes], Tensor]
PER_AXIS = ("size", "kernel_size", "stride", "padding", "dilation")


def spans(rank: int) -> list[tuple[int, ...]]:
    """Return the spatial axes of every source, most axes first.

    >>> spans(2)
    [(0, 1), (0,), (1,), ()]
    """
    return [own for n in range(rank, -1, -1) for own in combinations(range(rank), n)]


@functools.lru_cache(maxsize=4096)
def _axes_of(
    variant: Variant, rank: int, options: tuple[tuple[str, str], ...]
) -> dict[str, Axes | tuple[Axes, ...] | None]:
    sources = (183,) * 2**rank if variant.domain.sources else ()
    case = ConvCase(
        n=101, c_in=sum(sources) or 183, c_out=177, groups=3, in_size=(211, 229, 251)[:rank],
        kernel_size=(3, 5, 7)[:rank], stride=(2,) * rank, padding=(1, 2, 3)[:rank],
        dilation=(1,) * rank, options=options, sources=sources,
    )  # fmt: skip
    known = {1: Axis(Along.COPIES), case.n: Axis(Along.BATCH), case.c_out: Axis(Along.FILTER)}
    for channels in (case.c_in, *case.sources):
        known |= {channels: Axis(Along.CHANNEL), channels // case.groups: Axis(Along.SHARE)}
    for number in range(rank):
        size, p = case.in_size[number], case.padding[number]
        known |= {s: Axis(Along.PIXEL, number) for s in (size, size + 2 * p)}
        known[case.kernel_size[number]] = Axis(Along.TAP, number)
        known[case.out_size[number]] = Axis(Along.OUTPUT, number)

    def axes(name: str, shape: Any) -> Any:
        if shape is None:
            return None
        if unknown := {entry for entry in shape if isinstance(entry, int)} - known.keys():
            raise ValueError(
                f"{name}.shape={shape} has an axis of {min(unknown)}, which must be one of the "
                f"sizes of {case}"
            )
        return tuple(known[part] if isinstance(part, int) else axes(name, part) for part in shape)

    return {arg.name: axes(arg.name, arg.shape(case)) for arg in variant.args}


def axes_of(t: Trial) -> dict[str, Any]:
    """Return the axes of every argument, by name; a tuple of them where it is several tensors."""
    return _axes_of(t.variant, t.case.spatial_dims, t.case.options)


def moved(t: Trial, move: Move) -> dict[str, Value]:
    """Return every argument, each of its tensors moved."""

    def through(value: Value, axes: Any) -> Value:
        if isinstance(value, tuple):
            pairs = zip(value, axes, strict=True)
            return tuple(None if part is None else move(part, own) for part, own in pairs)
        return None if value is None else move(value, axes)

    found = axes_of(t)
    return {name: through(value, found[name]) for name, value in t.tensors.items()}


def moved_outputs(t: Trial, outputs: Mapping[str, Tensor], move: Move) -> Outputs:
    """Return every output moved."""
    return {name: move(value, _output_axes(t, value)) for name, value in outputs.items()}


def moved_bounds(
    t: Trial, bounds: Mapping[str, Bound], move: Move, factor: float = 2
) -> dict[str, Bound]:
    """Return the bounds of moved outputs, twice them for the difference of two such."""
    return {
        name: Bound(error=factor * move(b.error, _output_axes(t, b.error)), tier=b.tier)
        for name, b in bounds.items()
    }


def _output_axes(t: Trial, value: Tensor) -> Axes:
    channels = Along.FILTER if value.shape[1] == t.case.c_out else Along.COPIES
    space = (Axis(Along.OUTPUT, number) for number in range(value.dim() - 2))
    return (Axis(Along.BATCH), Axis(channels), *space)


def commutes(
    t: Trial, own: Outputs, move: Move, what: str, keywords: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Value] | None = None,
) -> None:  # fmt: skip
    """Require `f(arguments moved) = f(arguments) moved`.

    Args:
        t: The trial.
        own: `f(arguments)`.
        move: Moves a tensor whose axes it is told.
        what: Names the move where it fails.
        keywords: Those that are other after the move.
        arguments: The moved arguments, where moving every tensor on its own is not all.
    """
    got = t.called(keywords or {}, **(moved(t, move) if arguments is None else arguments))
    t.agree(got, moved_outputs(t, own, move), moved_bounds(t, t.bound(), move), what)


# -- space -------------------------------------------------------------------------------------


def flip(number: int) -> Move:
    """Return the move that mirrors one spatial axis."""
    return lambda v, axes: v.flip([i for i, a in enumerate(axes) if a.is_spatial(number)])


def swap(first: int, second: int) -> Move:
    """Return the move that swaps two spatial axes: positions with positions, taps with taps."""
    place = {first: second, second: first}

    def move(v: Tensor, axes: Axes) -> Tensor:
        new = [place.get(a.number, a.number) if a.is_spatial() else None for a in axes]
        return v.permute(_sorted_runs(new, [a.number for a in axes]))

    return move


def _sorted_runs(numbers: Sequence[int | None], old: Sequence[int]) -> list[int]:
    """Return an order of axes that sorts every run of spatial axes by `numbers`.

    A run ends where the old numbers stop rising, as from the taps to the positions of a mask for
    every window, or where another axis comes between.
    """
    runs: list[list[int]] = []
    for i, number in enumerate(numbers):
        rises = i > 0 and number is not None and numbers[i - 1] is not None and old[i] > old[i - 1]
        if rises:
            runs[-1].append(i)
        else:
            runs.append([i])
    return [i for run in runs for i in sorted(run, key=lambda i: numbers[i] or 0)]


def swapped(t: Trial, first: int, second: int) -> tuple[dict[str, Value], dict[str, Any]]:
    """Return the arguments and per-axis keywords with two spatial axes swapped."""
    place = list(range(t.case.spatial_dims))
    place[first], place[second] = second, first
    all_spans = spans(t.case.spatial_dims)
    targets = [all_spans.index(tuple(sorted(place[a] for a in own))) for own in all_spans]
    arguments = placed(t, moved(t, swap(first, second)), targets, len(all_spans))
    keywords = per_axis(t, lambda entries: tuple(entries[a] for a in place))
    return arguments, keywords


def per_axis(t: Trial, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> dict[str, Any]:
    """Return those keywords of the call that have one entry per spatial axis, changed."""
    return {name: change(t.keywords[name]) for name in PER_AXIS if name in t.keywords}


def placed(
    t: Trial, arguments: Mapping[str, Value], targets: Sequence[int], count: int
) -> dict[str, Value]:
    """Return the arguments with source `i` at place `targets[i]` of `count`, absent ones left out.

    A weight over all sources has its channels in their order.
    """
    if not t.case.sources:
        return dict(arguments)
    result: dict[str, Value] = {}
    for name, value in arguments.items():
        if isinstance(value, tuple):
            parts: list[Tensor | None] = [None] * count
            for part, target in zip(value, targets, strict=True):
                parts[target] = part if part is not None else parts[target]
            result[name] = tuple(parts)
        elif name in t.names(Role.WEIGHT) and isinstance(value, Tensor):
            blocks = value.split([channels // t.case.groups for channels in t.case.sources], dim=1)
            order = sorted(range(len(targets)), key=lambda i: targets[i])
            result[name] = torch.cat([blocks[i] for i in order], dim=1)
        else:
            result[name] = value
    return result


def extended(number: int, count: int, stride: int, *, present: bool) -> Move:
    """Return the move that puts `count * stride` pixels before a spatial axis, `count` outputs.

    They repeat what the axis holds, or are absent: zeros.
    """

    def move(v: Tensor, axes: Axes) -> Tensor:
        for i, axis in enumerate(axes):
            if axis == (Along.PIXEL, number):
                v = _extended(v, i, count * stride, present=present)
            elif axis == (Along.OUTPUT, number):
                v = _extended(v, i, count, present=True)
        return v

    return move


def _extended(v: Tensor, dim: int, count: int, *, present: bool) -> Tensor:
    index = torch.arange(-count, 0, device=v.device) % v.shape[dim]
    front = v.index_select(dim, index)
    return torch.cat([front if present else torch.zeros_like(front), v], dim)


# -- channels ----------------------------------------------------------------------------------


def permute_channels(t: Trial, *, filters: int = 0, channels: int = 0, groups: int = 0) -> Move:
    """Return the move that rolls filters and channels within their group, and whole groups.

    The channels of every source are rolled on their own.
    """
    g = t.case.groups
    shares = [count // g for count in t.case.sources or (t.case.c_in,)]

    def order(size: int, shift: int) -> Tensor:
        return torch.arange(size).view(g, -1).roll((groups, shift), (0, 1)).flatten()

    def move(v: Tensor, axes: Axes) -> Tensor:
        for dim, axis in enumerate(axes):
            size = v.shape[dim]
            if axis.along is Along.FILTER:
                index = order(size, filters)
            elif axis.along is Along.CHANNEL:
                index = order(size, channels)
            elif axis.along is Along.SHARE:
                parts = torch.arange(size).split(shares if size == sum(shares) else size)
                index = torch.cat([part.roll(channels) for part in parts])
            else:
                continue
            v = v.index_select(dim, index.to(v.device))
        return v

    return move


def of_group(t: Trial, group: int) -> Move:
    """Return the move that keeps the channels and the filters of one group."""
    g = t.case.groups

    def move(v: Tensor, axes: Axes) -> Tensor:
        for dim, axis in enumerate(axes):
            if axis.along in (Along.FILTER, Along.CHANNEL):
                v = v.narrow(dim, group * (v.shape[dim] // g), v.shape[dim] // g)
        return v

    return move
