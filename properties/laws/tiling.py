"""Sources tiled and concatenated, or each convolved as it is: when that is the same."""

from itertools import product

import torch
from torch import Tensor

from harness.check import Trial
from harness.law import Law
from harness.tensors import another, each
from harness.tolerance import Bound
from harness.variant import Role, Trait
from properties import moves
from properties.masked_cases import taps_inside
from properties.source_cases import (
    as_sum,
    as_tiles,
    continued,
    counts_inside,
    middle_tap,
    of_ones,
    outer,
    padded,
    padded_where_spanned,
    padded_within_reach,
    per_source,
    tie,
    tiled_axes,
    unpadded,
    untie,
    with_interior,
)

_TAKES = frozenset({Trait.TAKES_SOURCES})
_TILES = frozenset({Trait.TILES_SOURCES})
_SUMS = frozenset({Trait.SUMS_SOURCES})


def _is_the_other(t: Trial) -> None:
    tiles = Trait.TILES_SOURCES in t.variant.traits
    t.agree(t(), as_sum(t) if tiles else as_tiles(t, lambda k: k - 1), t.bound())


UNPADDED_SUMS_ARE_TILES = Law(
    id="S1",
    name="sum_of_sources_is_tiling_without_padding",
    statement="multi_source(x, w) = tile_concat(x, W), w tied to W",
    domain="padding 0",
    requires=_TAKES,
    within=unpadded,
    check=_is_the_other,
)

CONTINUED_SUMS_ARE_TILES = Law(
    id="S2",
    name="sum_of_sources_is_tiling_for_continued_images",
    statement="multi_source(x, w) = tile_concat(x, W), w tied to W",
    domain="padding modes reflect, replicate, circular",
    requires=_TAKES,
    within=continued,
    check=_is_the_other,
)

SPANNED_PADDING_IS_EXACT = Law(
    id="S3",
    name="zero_padding_along_spanned_axes_is_exact",
    statement="multi_source(x, w) = tile_concat(x, W), w tied to W",
    domain="zero padding along axes that every source spans",
    requires=_TAKES,
    within=padded_where_spanned,
    outside=padded,
    check=_is_the_other,
)

TILES_HOLD_SUMS = Law(
    id="S17",
    name="sum_of_sources_is_some_tiling",
    statement="multi_source(x, w) = tile_concat(x, W), W_i = w_i at the middle tap of tiled axes",
    domain="padding at most dilation * floor((kernel_size - 1) / 2), zeros included",
    requires=_SUMS,
    within=padded_within_reach,
    check=lambda t: t.agree(t(), as_tiles(t, middle_tap), t.bound()),
)


def _loses_at_border(t: Trial) -> None:
    """Compare ones with ones: tiling falls short exactly where a source loses a tap by it."""
    x, weight = of_ones(t)
    assert isinstance(x, tuple)
    tied, counts = tie(t, each(weight, Tensor.double)), counts_inside(t.case)
    for i, axes in enumerate(moves.spans(t.case.spatial_dims)):
        if x[i] is None:
            continue
        some = [n > 0 if a in axes else torch.ones_like(n) for a, n in enumerate(counts)]
        whole = zip(counts, t.case.kernel_size, strict=True)
        every = [torch.ones_like(n) if a in axes else n == k for a, (n, k) in enumerate(whole)]
        lost = (outer(some) > 0) & (outer(every) == 0)
        alone = tuple(v if v is None or j == i else v * 0 for j, v in enumerate(x))
        summed = t.other("multi_source")(each(alone, Tensor.double), tied, None, **t.keywords)
        short = summed - t(x=alone, weight=weight, bias=None)["output"].double().cpu()
        expected = lost.double().expand_as(short)
        t.agree(
            {"falls short": (short > 0).double()}, {"falls short": expected}, what=f"source {i}"
        )


TILES_LOSE_AT_BORDER = Law(
    id="S3b",
    name="zero_padding_along_tiled_axes_loses_taps",
    statement="x_i = W_i = 1: tile_concat(x_i) < multi_source(x_i) with tied weights iff a tap of a "
    "tiled axis is out",
    domain="zero padding, every source alone",
    requires=_TILES,
    within=padded,
    check=_loses_at_border,
    share=0.5,
    zero_is_right=True,
)  # fmt: skip


def _agrees_inside(t: Trial) -> None:
    inside = tuple(
        slice(int(full.nonzero()[0]), int(full.nonzero()[-1]) + 1)
        for full in (taps.all(1) for taps in taps_inside(t.case))
    )
    bound = t.bound()["output"]
    allowed = Bound(error=bound.error[(..., *inside)], tier=bound.tier)
    expected = as_sum(t)["output"][(..., *inside)]
    t.agree({"output": t()["output"][(..., *inside)]}, {"output": expected}, {"output": allowed})


INTERIOR_IS_EXACT = Law(
    id="S4",
    name="interior_does_not_know_the_border",
    statement="tile_concat(x, W) = multi_source(x, w) where the window lies in the image",
    domain="zero padding, an image that has an interior",
    requires=_TILES,
    within=with_interior,
    check=_agrees_inside,
)


def _classes(inside: Tensor) -> dict[tuple[bool, ...], Tensor]:
    """Return, for every set of taps that some output sees, which outputs see it."""
    rows = [tuple(row) for row in inside.tolist()]
    return {seen: torch.tensor([row == seen for row in rows]) for seen in dict.fromkeys(rows)}


def _sums_taps_inside(t: Trial) -> None:
    x, parts, bias = t.wide("x"), per_source(t, t.wide("weight")), t.wide("bias")
    classes = [_classes(inside) for inside in taps_inside(t.case)]
    expected = torch.zeros(t.case.out_shape, dtype=torch.float64)
    for i, axes in enumerate(moves.spans(t.case.spatial_dims)):
        tiled = tiled_axes(t.case, axes)
        alone = [x[i] if j == i else None for j in range(len(x))]
        for chosen in (
            product(*(classes[axis].items() for axis in tiled)) if x[i] is not None else ()
        ):
            summed = parts[i]
            for axis, (seen, _) in reversed(list(zip(tiled, chosen, strict=True))):
                summed = summed.movedim(2 + axis, -1)[..., torch.tensor(seen)].sum(-1)
            weights = [summed if j == i else None for j in range(len(x))]
            term = t.other("multi_source")(alone, weights, None, **t.keywords)
            where = dict(zip(tiled, (outputs for _, outputs in chosen), strict=True))
            sizes = enumerate(t.case.out_size)
            expected += term * outer([where.get(a, torch.ones(size)) for a, size in sizes])
    expected = expected if bias is None else expected + bias.view(-1, *(1 for _ in t.case.in_size))
    t.agree(t(), {"output": expected}, t.bound())


TILES_SUM_TAPS_INSIDE = Law(
    id="S5",
    name="border_outputs_sum_the_taps_inside",
    statement="tile_concat(x, W)[q] = multi_source(x, sum of W over the tiled taps inside at q)[q]",
    domain="zero padding",
    requires=_TILES,
    within=padded,
    check=_sums_taps_inside,
    share=0.5,
)


def _counts_taps(t: Trial) -> None:
    case, counts, total = (
        t.case,
        counts_inside(t.case),
        torch.zeros(t.case.out_size, dtype=torch.float64),
    )
    sums = Trait.SUMS_SOURCES in t.variant.traits
    for axes, channels in zip(moves.spans(case.spatial_dims), case.sources, strict=True):
        seen = [n if not sums or a in axes else torch.ones_like(n) for a, n in enumerate(counts)]
        total += channels // case.groups * outer(seen)
    x, weight = of_ones(t)
    expected = {"output": total.expand(case.out_shape)}
    t.agree(t(x=x, weight=weight, bias=None), expected, what="ones")


ONES_COUNT_TAPS = Law(
    id="S6",
    name="ones_count_the_taps_inside",
    statement="x = w = 1: a source adds its channels times the taps inside, over all axes (tiled) "
    "or those it spans",
    requires=_TAKES,
    check=_counts_taps,
)


def _acts_alike(t: Trial) -> None:
    x = t.tensors["x"]
    assert isinstance(x, tuple)
    for i, axes in enumerate(moves.spans(t.case.spatial_dims)):
        if x[i] is None:
            continue
        alone = tuple(v if v is None or j == i else v * 0 for j, v in enumerate(x))
        y = t(x=alone, bias=None)["output"]
        first = y
        for axis in tiled_axes(t.case, axes):
            first = first.narrow(2 + axis, 0, 1)
        bound = t.bound(x=alone, bias=None)["output"].scaled(2)
        t.agree(
            {"output": y}, {"output": first.expand_as(y)}, {"output": bound}, f"source {i} alone"
        )


SUMS_ACT_ALIKE = Law(
    id="S6b",
    name="a_source_acts_alike_along_axes_it_does_not_span",
    statement="multi_source(x_i alone) is constant along the axes that source i does not span",
    requires=_SUMS,
    check=_acts_alike,
)


# -- training ----------------------------------------------------------------------------------


def _gradients_tied(t: Trial) -> None:
    tied = tuple(w if w is None else w.requires_grad_() for w in tie(t, t.wide("weight")))
    y = t.other("multi_source")(t.wide("x"), tied, t.wide("bias"), **t.keywords)
    dy = another(t()["output"].detach(), t.case, Role.WEIGHT, "dy").to(y)
    found = iter(torch.autograd.grad(y, [w for w in tied if w is not None], dy))
    parts = []
    for axes, weight in zip(moves.spans(t.case.spatial_dims), tied, strict=True):
        if weight is None:
            continue
        gradient = next(found)
        for axis in tiled_axes(t.case, axes):
            gradient = gradient.unsqueeze(2 + axis)
        parts.append(gradient.expand(*weight.shape[:2], *t.case.kernel_size))
    bound = {"weight": t.gradient_bound()["weight"]}
    got = {"weight": t.gradients()["weight"]}
    t.agree(got, {"weight": torch.cat(parts, dim=1)}, bound, "gradient")


TAPS_LEARN_ALIKE = Law(
    id="S7",
    name="tied_taps_learn_alike",
    statement="dL/dW_i[.., u] = dL/dw_i for every tap u along the tiled axes, so that one step of "
    "SGD moves the sum of n taps n times as far",
    domain="padding 0",
    requires=_TILES,
    within=unpadded,
    check=_gradients_tied,
)


def _round_trip(t: Trial) -> None:
    back = untie(t, tie(t, t.wide("weight")), middle_tap).to(t.tensors["weight"])
    # summing the taps, and rounding their sums, costs no more than the calls themselves
    bound = t.bound()["output"].scaled(2) + t.bound(weight=back)["output"].scaled(2)
    t.agree(t(weight=back), t(), {"output": bound}, "taps summed, then put at one place")


ROUND_TRIP_KEEPS = Law(
    id="S16",
    name="converting_there_and_back_keeps_the_function",
    statement="tile_concat(x, W) = tile_concat(x, W'), W' the tied sums of W at one tap each",
    domain="padding 0, or padding modes reflect, replicate, circular",
    requires=_TILES,
    within=lambda case: (unpadded, continued)[case.seed % 2](case),
    check=_round_trip,
)
