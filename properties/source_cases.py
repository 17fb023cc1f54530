"""Several sources: their weights, tied or not, and moves to where their laws hold.

A weight over tiled sources is *tied* to weights per source by summing the taps of each source over
the axes that it is tiled along.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Outputs, Trial
from harness.tensors import each
from harness.variant import Value
from properties import moves
from properties.masked_cases import taps_inside


def tiled_axes(case: ConvCase, axes: Sequence[int]) -> list[int]:
    """Return the axes that a source which spans `axes` is tiled along."""
    return [axis for axis in range(case.spatial_dims) if axis not in axes]


def per_source(t: Trial, weight: Value) -> list[Tensor | None]:
    """Return the taps of every source, None where it is absent."""
    if isinstance(weight, tuple):
        return list(weight)
    assert weight is not None
    sizes = [channels // t.case.groups for channels in t.case.sources]
    return [part if part.shape[1] else None for part in weight.split(sizes, dim=1)]


def joined(t: Trial, parts: Sequence[Tensor | None]) -> Value:
    """Return the weight argument whose parts these are."""
    if isinstance(t.tensors["weight"], tuple):
        return tuple(parts)
    return torch.cat([part for part in parts if part is not None], dim=1)


def tie(t: Trial, weight: Tensor) -> tuple[Tensor | None, ...]:
    """Return `w_i = sum of W_i over the axes that source i is tiled along`."""
    pairs = zip(moves.spans(t.case.spatial_dims), per_source(t, weight), strict=True)
    return tuple(
        part if part is None or not (tiled := tiled_axes(t.case, axes)) else part.sum([2 + a for a in tiled])
        for axes, part in pairs
    )  # fmt: skip


def untie(t: Trial, weights: Sequence[Tensor | None], place: Callable[[int], int]) -> Tensor:
    """Return a weight over tiled sources that `weights` is tied to: all at one tap per axis."""
    parts = []
    for axes, weight in zip(moves.spans(t.case.spatial_dims), weights, strict=True):
        if weight is not None:
            part = weight.new_zeros((*weight.shape[:2], *t.case.kernel_size))
            taps = enumerate(t.case.kernel_size)
            part[(..., *(slice(None) if a in axes else place(k) for a, k in taps))] = weight
            parts.append(part)
    return torch.cat(parts, dim=1)


def as_sum(t: Trial) -> Outputs:
    """Return the multi-source convolution with tied weights."""
    tied = tie(t, t.wide("weight"))
    return {"output": t.other("multi_source")(t.wide("x"), tied, t.wide("bias"), **t.keywords)}


def as_tiles(t: Trial, place: Callable[[int], int]) -> Outputs:
    """Return the convolution of the tiled sources with weights that are tied to those given."""
    weight = untie(t, t.wide("weight"), place)
    return {"output": t.other("tile_concat")(t.wide("x"), weight, t.wide("bias"), **t.keywords)}


def middle_tap(k: int) -> int:
    """Return the middle of `k` taps, the first of two."""
    return (k - 1) // 2


# -- moves into a domain -----------------------------------------------------------------------


def with_sources(case: ConvCase, sources: Sequence[int]) -> ConvCase:
    """Return `case` with other channels per source."""
    return replace(case, sources=tuple(sources), c_in=sum(sources))


def with_padding(case: ConvCase, padding: Sequence[int], mode: str | None = None) -> ConvCase:
    """Return `case` with another padding, and an image that is large enough for it."""
    moved = replace(
        case, padding=tuple(padding), in_size=tuple(map(max, case.in_size, case.receptive_field))
    )
    moved = moved.with_options(padding_mode=mode)
    limit = tuple(p + 1 for p in padding) if mode else (1,) * len(padding)
    return replace(moved, in_size=tuple(map(max, moved.in_size, limit)))


def unpadded(case: ConvCase) -> ConvCase:
    """Return `case` without padding."""
    return with_padding(case, (0,) * case.spatial_dims)


def padded(case: ConvCase) -> ConvCase:
    """Pad every axis with zeros, around sources of which one at least is tiled."""
    moved = with_padding(case, [max(1, p) for p in case.padding])
    return (
        moved if any(case.sources[1:]) else with_sources(moved, (*case.sources[:-1], case.groups))
    )


def continued(case: ConvCase) -> ConvCase:
    """Pad every axis by a mode that continues the image."""
    mode = ("reflect", "replicate", "circular")[case.seed % 3]
    return with_padding(case, [max(1, p) for p in case.padding], mode)


def padded_where_spanned(case: ConvCase) -> ConvCase:
    """Pad all axes but one with zeros; keep the sources that span all of the padded."""
    free = case.seed % case.spatial_dims
    padding = [0 if axis == free else max(1, p) for axis, p in enumerate(case.padding)]
    spanned = set(range(case.spatial_dims)) - {free}
    kept = [
        max(channels, case.groups) if spanned == set(axes) else channels * (spanned <= set(axes))
        for axes, channels in zip(moves.spans(case.spatial_dims), case.sources, strict=True)
    ]
    return with_sources(with_padding(case, padding), kept)


def padded_within_reach(case: ConvCase) -> ConvCase:
    """Pad no farther than the middle tap reaches."""
    reach = [d * middle_tap(k) for d, k in zip(case.dilation, case.kernel_size, strict=True)]
    return with_padding(case, list(map(min, case.padding, reach)))


def with_interior(case: ConvCase) -> ConvCase:
    """Pad with zeros, around an image that holds at least one whole window of an output."""
    moved = padded(case)
    fits = [f + s - 1 for f, s in zip(case.receptive_field, case.stride, strict=True)]
    return replace(moved, in_size=tuple(map(max, moved.in_size, fits)))


def without_image(case: ConvCase) -> ConvCase:
    """Leave out the source that spans every axis."""
    rest = case.sources[1:] if any(case.sources[1:]) else (*case.sources[1:-1], case.groups)
    return with_sources(case, (0, *rest))


def several_sources(case: ConvCase) -> ConvCase:
    """Take two sources at least: the one of all axes and the one of none."""
    ends = (max(case.sources[0], case.groups), max(case.sources[-1], case.groups))
    return with_sources(case, (ends[0], *case.sources[1:-1], ends[1]))


def unpadded_along_first(case: ConvCase) -> ConvCase:
    """Leave the first axis, which some source spans, without padding."""
    moved = with_padding(case, (0, *case.padding[1:]))
    return with_sources(moved, (max(case.sources[0], case.groups), *case.sources[1:]))


# -- taps that land in the image ---------------------------------------------------------------


def counts_inside(case: ConvCase) -> list[Tensor]:
    """Return per axis how many taps of every output land in the image."""
    if case.option("padding_mode", "zeros") != "zeros":
        pairs = zip(case.out_size, case.kernel_size, strict=True)
        return [torch.full((out,), float(k), dtype=torch.float64) for out, k in pairs]
    return [inside.double().sum(1) for inside in taps_inside(case)]


def outer(values: Sequence[Tensor]) -> Tensor:
    """Return `prod_a values_a[q_a]` over all outputs `q`."""
    y = torch.ones((), dtype=torch.float64)
    for value in values:
        y = y.unsqueeze(-1) * value.double()
    return y


def of_ones(t: Trial) -> tuple[Value, Value]:
    """Return signals and weights of ones."""
    return each(t.tensors["x"], torch.ones_like), each(t.tensors["weight"], torch.ones_like)
