"""Symmetries of space: what a convolution does when the image and the kernel are moved."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Outputs, Trial, as_outputs
from harness.law import Law
from harness.tensors import each
from harness.tolerance import Bound
from harness.variant import Trait
from properties import moves
from properties.masked_cases import given, twice, zero_padded
from properties.moves import Axes

# -- shape -------------------------------------------------------------------------------------


def _has_shape(t: Trial) -> None:
    case = t.case
    axes = zip(case.in_size, case.padding, case.receptive_field, case.stride, strict=True)
    space = tuple(len(range(0, size + 2 * p - field + 1, s)) for size, p, field, s in axes)
    for name, value in t().items():
        whole = name == "output"
        samples, channels = ((case.n,), (case.c_out,)) if whole else ((1, case.n), (1, case.c_out))
        fits = value.shape[0] in samples and value.shape[1] in channels
        t.require(
            fits and value.shape[2:] == space,
            f"{name}.shape={tuple(value.shape)} where {(case.n, case.c_out, *space)} is expected",
        )


SHAPE = Law(
    id="G3",
    name="shape_is_the_formula",
    statement="f(x) has shape (N, C_out, *floor((S + 2p - d(K-1) - 1)/s) + 1); m' too, or 1 for N, C",
    check=_has_shape,
)


# -- mirrors and turns -------------------------------------------------------------------------


def _left_over(case: ConvCase) -> list[int]:
    """Return how many pixels the last window leaves unread behind it, per axis."""
    axes = zip(case.in_size, case.padding, case.receptive_field, case.stride, strict=True)
    return [(size + 2 * p - field) % s for size, p, field, s in axes]


def _windows_end_with_the_image(case: ConvCase) -> ConvCase:
    """Grow the image until the last window ends where the padded image does."""
    axes = zip(case.in_size, _left_over(case), case.stride, strict=True)
    return replace(case, in_size=tuple(size + -left % s for size, left, s in axes))


def _windows_end_early(case: ConvCase) -> ConvCase:
    """Let the last window along every axis leave one pixel unread."""
    strided = replace(case, stride=tuple(max(s, 2) for s in case.stride))
    whole = _windows_end_with_the_image(strided)
    return replace(whole, in_size=tuple(size + 1 for size in whole.in_size))


def _mirrors(t: Trial) -> None:
    own = t()
    for number in range(t.case.spatial_dims):
        moves.commutes(t, own, moves.flip(number), f"axis {number} mirrored")


MIRRORS = Law(
    id="G10",
    aliases=("D6", "K13"),
    name="mirrors",
    statement="f(Rx, Rw, Rm) = R f(x, w, m), R the mirror image along an axis",
    domain="(S + 2p - d(K-1) - 1) mod s = 0 on every axis",
    requires=frozenset({Trait.HAS_NO_DIRECTION}),
    within=_windows_end_with_the_image,
    outside=_windows_end_early,
    check=_mirrors,
)


def _several_axes(case: ConvCase) -> ConvCase | None:
    return case if case.spatial_dims > 1 else None


def _turns(t: Trial) -> None:
    own = t()
    for number in range(t.case.spatial_dims - 1):
        arguments, keywords = moves.swapped(t, number, number + 1)
        what = f"axes {number} and {number + 1} swapped"
        moves.commutes(t, own, moves.swap(number, number + 1), what, keywords, arguments)


TURNS = Law(
    id="G11",
    aliases=("D6b", "K13b", "S9"),
    name="turns",
    statement="f(x^T, w^T, m^T) = f(x, w, m)^T, stride, padding and dilation swapped",
    domain="two spatial axes or more",
    requires=frozenset({Trait.HAS_NO_DIRECTION}),
    within=_several_axes,
    check=_turns,
)


# -- translation -------------------------------------------------------------------------------


def _inside(case: ConvCase) -> list[tuple[int, int]]:
    """Return `(first, stop)` of the outputs whose window is inside the image, per axis."""
    axes = zip(case.in_size, case.padding, case.receptive_field, case.stride, strict=True)
    return [(-(-p // s), (size + p - field) // s + 1) for size, p, field, s in axes]


def _with_inside(case: ConvCase) -> ConvCase | None:
    """Grow the image until a window along every axis is inside."""
    if case.option("method", "zeros") == "random":
        return None
    axes = zip(case.in_size, case.padding, case.receptive_field, case.stride, strict=True)
    return replace(
        case, in_size=tuple(max(size, ceil(p / s) * s - p + field) for size, p, field, s in axes)
    )


def _translated(t: Trial, number: int, *, present: bool) -> tuple[Outputs, int]:
    """Return the outputs with rows before the image along an axis, and how many they add."""
    shift, stride = 1 + t.case.seed % 2, t.case.stride[number]
    move = moves.extended(number, shift, stride, present=present)
    arguments = moves.moved(t, move)
    mask = t.tensors.get("mask")
    beyond = 2 * t.case.padding[number] >= t.case.receptive_field[number]
    if not present and mask is not None and beyond and Trait.SCALES_BY_MASK in t.variant.traits:
        # centres beyond the image are clamped into it: there the mask's edge goes on
        front = shift * stride
        arguments["mask"] = each(mask, lambda m: _edge_before(m, 2 + number, front))
    size = {"size": tuple(s + shift * stride * (a == number) for a, s in enumerate(t.case.in_size))}
    return t.called(size if "size" in t.keywords else {}, **arguments), shift


def _edge_before(v: Tensor, dim: int, count: int) -> Tensor:
    return torch.cat([v.narrow(dim, 0, 1)] * count + [v], dim)


def _cut(values: Mapping[str, Tensor], number: int, first: int, stop: int) -> Outputs:
    along = (slice(None),) * (2 + number)
    return {name: value[(*along, slice(first, stop))] for name, value in values.items()}


def _translates(t: Trial) -> None:
    own, bounds = t(), t.bound()
    errors = {name: bound.error for name, bound in bounds.items()}
    for number, (first, stop) in enumerate(_inside(t.case)):
        got, shift = _translated(t, number, present=True)
        allowed = {
            name: Bound(error=2 * error, tier=bounds[name].tier)
            for name, error in _cut(errors, number, first, stop).items()
        }
        t.agree(
            _cut(got, number, first + shift, stop + shift), _cut(own, number, first, stop), allowed,
            f"rows before axis {number}",
        )  # fmt: skip


TRANSLATES = Law(
    id="G12",
    name="translates",
    statement="s t more pixels before the image: f(x')[q + t] = f(x)[q] where q's window is in x",
    domain="outputs whose window along the axis is inside; not a border drawn from the whole image",
    requires=frozenset({Trait.ACTS_ALIKE_INSIDE}),
    within=_with_inside,
    check=_translates,
)


def _continued_by_zeros(case: ConvCase) -> ConvCase:
    """Pad with zeros; no mask at all would make what is absent present."""
    return given(zero_padded(case)).with_options(method=None)


def _absence_translates(t: Trial) -> None:
    own, bounds = t(), twice(t.bound())
    for number, count in enumerate(t.case.out_size):
        got, shift = _translated(t, number, present=False)
        shifted = _cut(got, number, shift, count + shift)
        t.agree(shifted, own, bounds, f"nothing before axis {number}")


ABSENCE_TRANSLATES = Law(
    id="G12b",
    name="absence_translates",
    statement="s t absent pixels before the image: f(x')[q + t] = f(x)[q] for every q",
    domain="zero padding; for centres outside of the image its mask's edge goes on",
    requires=frozenset({Trait.ABSENCE_IS_PADDING}),
    within=_continued_by_zeros,
    check=_absence_translates,
)


# -- rank --------------------------------------------------------------------------------------


def _flat(case: ConvCase) -> ConvCase | None:
    """Make the first axis one pixel and one tap wide; keep one of two sources this makes alike."""
    if case.spatial_dims == 1:
        return None
    changed = {
        name: (entry, *getattr(case, name)[1:])
        for name, entry in (
            ("in_size", 1), ("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)
        )
    }  # fmt: skip
    if not case.sources:
        return replace(case, **changed)
    counts = dict(zip(moves.spans(case.spatial_dims), case.sources, strict=True))
    kept = tuple(
        0 if 0 not in own and counts[(0, *own)] else count for own, count in counts.items()
    )
    return replace(case, sources=kept, c_in=sum(kept), **changed)


def _without_first_axis(v: Tensor, axes: Axes) -> Tensor:
    return v.squeeze([i for i, axis in enumerate(axes) if axis.is_spatial(0)])


def _rank_is_data(t: Trial) -> None:
    rank = t.case.spatial_dims
    narrow = moves.spans(rank - 1)
    targets = [narrow.index(tuple(a - 1 for a in own if a)) for own in moves.spans(rank)]
    lower = moves.placed(t, moves.moved(t, _without_first_axis), targets, len(narrow))
    keywords = {**t.keywords, **moves.per_axis(t, lambda entries: entries[1:])}
    wide = [each(value, lambda v: v.double().cpu()) for value in lower.values()]
    expected = as_outputs(t.variant.oracle(*wide, **keywords))
    t.agree(t(), {name: value.unsqueeze(2) for name, value in expected.items()}, t.bound())


RANK_IS_DATA = Law(
    id="G18c",
    name="an_axis_of_one_pixel_is_none",
    statement="f in D dimensions, one of them a single pixel under one tap = f in D - 1 dimensions",
    domain="two spatial axes or more; the first with S = K = s = d = 1, p = 0",
    requires=frozenset({Trait.RANK_IS_DATA}),
    within=_flat,
    check=_rank_is_data,
)
