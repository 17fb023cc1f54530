"""Several sources: tiled and concatenated, or each convolved as it is, and when that is the same.

A weight over tiled sources is *tied* to weights per source by summing the taps of each source over
the axes that it is tiled along.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, product

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Outputs, Trial
from harness.law import Law
from harness.tensors import another, each
from harness.tolerance import Bound
from harness.variant import Role, Trait, Value

_TAKES = frozenset({Trait.TAKES_SOURCES})
_TILES = frozenset({Trait.TILES_SOURCES})
_SUMS = frozenset({Trait.SUMS_SOURCES})
_PER_AXIS = ("size", "kernel_size", "stride", "padding", "dilation")


# -- sources and their weights -----------------------------------------------------------------


def _spans(case: ConvCase) -> list[tuple[int, ...]]:
    """Return the axes of every source, most axes first."""
    axes = range(case.spatial_dims)
    return [own for n in range(len(axes), -1, -1) for own in combinations(axes, n)]


def _tiled(case: ConvCase, axes: Sequence[int]) -> list[int]:
    return [axis for axis in range(case.spatial_dims) if axis not in axes]


def _parts(t: Trial, weight: Value) -> list[Tensor | None]:
    """Return the taps of every source, None where it is absent."""
    if isinstance(weight, tuple):
        return list(weight)
    assert weight is not None
    sizes = [channels // t.case.groups for channels in t.case.sources]
    return [part if part.shape[1] else None for part in weight.split(sizes, dim=1)]


def _whole(t: Trial, parts: Sequence[Tensor | None]) -> Value:
    """Return the weight argument whose parts these are."""
    if isinstance(t.tensors["weight"], tuple):
        return tuple(parts)
    return torch.cat([part for part in parts if part is not None], dim=1)


def _tied(t: Trial, weight: Tensor) -> tuple[Tensor | None, ...]:
    """Return `w_i = sum of W_i over the axes that source i is tiled along`."""
    pairs = zip(_spans(t.case), _parts(t, weight), strict=True)
    return tuple(
        part if part is None or not (tiled := _tiled(t.case, axes)) else part.sum([2 + a for a in tiled])
        for axes, part in pairs
    )  # fmt: skip


def _untied(t: Trial, weights: Sequence[Tensor | None], place: Callable[[int], int]) -> Tensor:
    """Return a weight over tiled sources that `weights` is tied to: all at one tap per axis."""
    parts = []
    for axes, weight in zip(_spans(t.case), weights, strict=True):
        if weight is not None:
            part = weight.new_zeros((*weight.shape[:2], *t.case.kernel_size))
            taps = enumerate(t.case.kernel_size)
            part[(..., *(slice(None) if a in axes else place(k) for a, k in taps))] = weight
            parts.append(part)
    return torch.cat(parts, dim=1)


def _summed(t: Trial) -> Outputs:
    """Return the multi-source convolution with tied weights."""
    tied = _tied(t, t.wide("weight"))
    return {"output": t.other("multi_source")(t.wide("x"), tied, t.wide("bias"), **t.keywords)}


def _concatenated(t: Trial, place: Callable[[int], int]) -> Outputs:
    """Return the convolution of the tiled sources with weights that are tied to those given."""
    weight = _untied(t, t.wide("weight"), place)
    return {"output": t.other("tile_concat")(t.wide("x"), weight, t.wide("bias"), **t.keywords)}


def _is_the_other(t: Trial) -> None:
    tiles = Trait.TILES_SOURCES in t.variant.traits
    t.agree(t(), _summed(t) if tiles else _concatenated(t, lambda k: k - 1), t.bound())


def _middle(k: int) -> int:
    return (k - 1) // 2


# -- moves into a domain -----------------------------------------------------------------------


def _with_sources(case: ConvCase, sources: Sequence[int]) -> ConvCase:
    return replace(case, sources=tuple(sources), c_in=sum(sources))


def _with_padding(case: ConvCase, padding: Sequence[int], mode: str | None = None) -> ConvCase:
    """Return `case` with another padding, and an image that is large enough for it."""
    moved = replace(
        case, padding=tuple(padding), in_size=tuple(map(max, case.in_size, case.receptive_field))
    )
    moved = moved.with_options(padding_mode=mode)
    limit = tuple(p + 1 for p in padding) if mode else (1,) * len(padding)
    return replace(moved, in_size=tuple(map(max, moved.in_size, limit)))


def _unpadded(case: ConvCase) -> ConvCase:
    return _with_padding(case, (0,) * case.spatial_dims)


def _padded(case: ConvCase) -> ConvCase:
    """Pad every axis with zeros, around sources of which one at least is tiled."""
    moved = _with_padding(case, [max(1, p) for p in case.padding])
    return (
        moved if any(case.sources[1:]) else _with_sources(moved, (*case.sources[:-1], case.groups))
    )


def _continued(case: ConvCase) -> ConvCase:
    mode = ("reflect", "replicate", "circular")[case.seed % 3]
    return _with_padding(case, [max(1, p) for p in case.padding], mode)


def _padded_where_spanned(case: ConvCase) -> ConvCase:
    """Pad all axes but one with zeros; keep the sources that span all of the padded."""
    free = case.seed % case.spatial_dims
    padding = [0 if axis == free else max(1, p) for axis, p in enumerate(case.padding)]
    spanned = set(range(case.spatial_dims)) - {free}
    kept = [
        max(channels, case.groups) if spanned == set(axes) else channels * (spanned <= set(axes))
        for axes, channels in zip(_spans(case), case.sources, strict=True)
    ]
    return _with_sources(_with_padding(case, padding), kept)


def _padded_within_reach(case: ConvCase) -> ConvCase:
    reach = [d * _middle(k) for d, k in zip(case.dilation, case.kernel_size, strict=True)]
    return _with_padding(case, list(map(min, case.padding, reach)))


def _with_interior(case: ConvCase) -> ConvCase:
    moved = _padded(case)
    fits = [f + s - 1 for f, s in zip(case.receptive_field, case.stride, strict=True)]
    return replace(moved, in_size=tuple(map(max, moved.in_size, fits)))


def _without_image(case: ConvCase) -> ConvCase:
    rest = case.sources[1:] if any(case.sources[1:]) else (*case.sources[1:-1], case.groups)
    return _with_sources(case, (0, *rest))


def _several_sources(case: ConvCase) -> ConvCase:
    ends = (max(case.sources[0], case.groups), max(case.sources[-1], case.groups))
    return _with_sources(case, (ends[0], *case.sources[1:-1], ends[1]))


def _in_groups(case: ConvCase) -> ConvCase:
    if case.groups > 1:
        return case
    doubled = replace(case, groups=2, c_out=2 * case.c_out, sources=(), c_in=2 * case.c_in)
    return _with_sources(doubled, [2 * channels for channels in case.sources])


def _constant_along_first(case: ConvCase) -> ConvCase:
    moved = _with_padding(case, (0, *case.padding[1:]))
    return _with_sources(moved, (max(case.sources[0], case.groups), *case.sources[1:]))


# -- one is the other --------------------------------------------------------------------------

UNPADDED_SUMS_ARE_TILES = Law(
    id="S1",
    name="sum_of_sources_is_tiling_without_padding",
    statement="multi_source(x, w) = tile_concat(x, W), w tied to W",
    domain="padding 0",
    requires=_TAKES,
    within=_unpadded,
    check=_is_the_other,
)

CONTINUED_SUMS_ARE_TILES = Law(
    id="S2",
    name="sum_of_sources_is_tiling_for_continued_images",
    statement="multi_source(x, w) = tile_concat(x, W), w tied to W",
    domain="padding modes reflect, replicate, circular",
    requires=_TAKES,
    within=_continued,
    check=_is_the_other,
)

SPANNED_PADDING_IS_EXACT = Law(
    id="S3",
    name="zero_padding_along_spanned_axes_is_exact",
    statement="multi_source(x, w) = tile_concat(x, W), w tied to W",
    domain="zero padding along axes that every source spans",
    requires=_TAKES,
    within=_padded_where_spanned,
    check=_is_the_other,
)

TILES_HOLD_SUMS = Law(
    id="S17",
    name="sum_of_sources_is_some_tiling",
    statement="multi_source(x, w) = tile_concat(x, W), W_i = w_i at the middle tap of tiled axes",
    domain="padding at most dilation * floor((kernel_size - 1) / 2), zeros included",
    requires=_SUMS,
    within=_padded_within_reach,
    check=lambda t: t.agree(t(), _concatenated(t, _middle), t.bound()),
)


def _counts(case: ConvCase) -> list[Tensor]:
    """Return per axis how many taps of every output land in the image."""
    if case.option("padding_mode", "zeros") != "zeros":
        pairs = zip(case.out_size, case.kernel_size, strict=True)
        return [torch.full((out,), float(k), dtype=torch.float64) for out, k in pairs]
    return [inside.double().sum(1) for inside in _inside(case)]


def _inside(case: ConvCase) -> list[Tensor]:
    """Return per axis which taps of every output land in the image, `(out_size, kernel_size)`."""
    found = []
    for axis in range(case.spatial_dims):
        q, u = torch.arange(case.out_size[axis]), torch.arange(case.kernel_size[axis])
        at = q[:, None] * case.stride[axis] - case.padding[axis] + u * case.dilation[axis]
        found.append((at >= 0) & (at < case.in_size[axis]))
    return found


def _outer(values: Sequence[Tensor]) -> Tensor:
    """Return `prod_a values_a[q_a]` over all outputs `q`."""
    y = torch.ones((), dtype=torch.float64)
    for value in values:
        y = y.unsqueeze(-1) * value.double()
    return y


def _of_ones(t: Trial) -> tuple[Value, Value]:
    return each(t.tensors["x"], torch.ones_like), each(t.tensors["weight"], torch.ones_like)


def _loses_at_border(t: Trial) -> None:
    """Compare ones with ones: tiling must fall short exactly where it loses a tap."""
    x, weight = _of_ones(t)
    case, counts = t.case, _counts(t.case)
    lost = torch.zeros(case.out_size, dtype=torch.bool)
    for axes, channels in zip(_spans(case), case.sources, strict=True):
        if channels:
            reads = _outer(
                [n > 0 if a in axes else torch.ones_like(n) for a, n in enumerate(counts)]
            )
            full = _outer(
                [
                    torch.ones_like(n) if a in axes else n == case.kernel_size[a]
                    for a, n in enumerate(counts)
                ]
            )
            lost |= (reads > 0) & (full == 0)
    tied = _tied(t, each(weight, Tensor.double))
    summed = t.other("multi_source")(each(x, Tensor.double), tied, None, **t.keywords)
    short = summed - t(x=x, weight=weight, bias=None)["output"].double().cpu()
    t.agree({"falls short": (short > 0).double()}, {"falls short": lost.double().expand_as(short)})


TILES_LOSE_AT_BORDER = Law(
    id="S3b",
    name="zero_padding_along_tiled_axes_loses_taps",
    statement="x = W = 1: tile_concat < multi_source with tied weights iff a tap of a tiled axis is out",
    domain="zero padding",
    requires=_TILES,
    within=_padded,
    check=_loses_at_border,
    zero_is_right=True,
)  # fmt: skip


def _agrees_inside(t: Trial) -> None:
    inside = tuple(
        slice(int(full.nonzero()[0]), int(full.nonzero()[-1]) + 1)
        for full in (taps.all(1) for taps in _inside(t.case))
    )
    bound = t.bound()["output"]
    allowed = Bound(error=bound.error[(..., *inside)], tier=bound.tier)
    expected = _summed(t)["output"][(..., *inside)]
    t.agree({"output": t()["output"][(..., *inside)]}, {"output": expected}, {"output": allowed})


INTERIOR_IS_EXACT = Law(
    id="S4",
    name="interior_does_not_know_the_border",
    statement="tile_concat(x, W) = multi_source(x, w) where the window lies in the image",
    domain="zero padding, an image that has an interior",
    requires=_TILES,
    within=_with_interior,
    check=_agrees_inside,
)


def _classes(inside: Tensor) -> dict[tuple[bool, ...], Tensor]:
    """Return, for every set of taps that some output sees, which outputs see it."""
    rows = [tuple(row) for row in inside.tolist()]
    return {seen: torch.tensor([row == seen for row in rows]) for seen in dict.fromkeys(rows)}


def _sums_taps_inside(t: Trial) -> None:
    x, parts, bias = t.wide("x"), _parts(t, t.wide("weight")), t.wide("bias")
    classes = [_classes(inside) for inside in _inside(t.case)]
    expected = torch.zeros(t.case.out_shape, dtype=torch.float64)
    for i, axes in enumerate(_spans(t.case)):
        tiled = _tiled(t.case, axes)
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
            expected += term * _outer([where.get(a, torch.ones(size)) for a, size in sizes])
    expected = expected if bias is None else expected + bias.view(-1, *(1 for _ in t.case.in_size))
    t.agree(t(), {"output": expected}, t.bound())


TILES_SUM_TAPS_INSIDE = Law(
    id="S5",
    name="border_outputs_sum_the_taps_inside",
    statement="tile_concat(x, W)[q] = multi_source(x, sum of W over the tiled taps inside at q)[q]",
    domain="zero padding",
    requires=_TILES,
    within=_padded,
    check=_sums_taps_inside,
    share=0.5,
)


def _counts_taps(t: Trial) -> None:
    case, counts, total = t.case, _counts(t.case), torch.zeros(t.case.out_size, dtype=torch.float64)
    sums = Trait.SUMS_SOURCES in t.variant.traits
    for axes, channels in zip(_spans(case), case.sources, strict=True):
        seen = [n if not sums or a in axes else torch.ones_like(n) for a, n in enumerate(counts)]
        total += channels // case.groups * _outer(seen)
    x, weight = _of_ones(t)
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
    for i, axes in enumerate(_spans(t.case)):
        if x[i] is None:
            continue
        alone = tuple(v if v is None or j == i else v * 0 for j, v in enumerate(x))
        y = t(x=alone, bias=None)["output"]
        first = y
        for axis in _tiled(t.case, axes):
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
    tied = tuple(w if w is None else w.requires_grad_() for w in _tied(t, t.wide("weight")))
    y = t.other("multi_source")(t.wide("x"), tied, t.wide("bias"), **t.keywords)
    dy = another(t()["output"].detach(), t.case, Role.WEIGHT, "dy").to(y)
    found = iter(torch.autograd.grad(y, [w for w in tied if w is not None], dy))
    parts = []
    for axes, weight in zip(_spans(t.case), tied, strict=True):
        if weight is None:
            continue
        gradient = next(found)
        for axis in _tiled(t.case, axes):
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
    within=_unpadded,
    check=_gradients_tied,
)


# -- sources among themselves ------------------------------------------------------------------


def _superposes(t: Trial) -> None:
    x = t.tensors["x"]
    assert isinstance(x, tuple)
    present = [i for i, source in enumerate(x) if source is not None]
    total = torch.zeros(t.case.out_shape, dtype=torch.float64)
    bound = t.bound(bias=None)["output"]
    for i in present:
        alone = tuple(v if v is None or j == i else v * 0 for j, v in enumerate(x))
        total = total + t(x=alone, bias=None)["output"].double().cpu()
        bound = bound + t.bound(x=alone, bias=None)["output"]
    t.agree(t(bias=None), {"output": total}, {"output": bound})


SOURCES_SUPERPOSE = Law(
    id="S8",
    name="sources_superpose",
    statement="f(x_1, .., x_n) = f(x_1, 0, ..) + .. + f(0, .., x_n), no bias",
    domain="two sources or more",
    requires=_TAKES,
    within=_several_sources,
    check=_superposes,
)


def _turned(tensor: Tensor | None) -> Tensor | None:
    if tensor is None:
        return None
    return tensor.permute(0, 1, *range(tensor.dim() - 1, 1, -1)).contiguous()


def _transposes(t: Trial) -> None:
    rank, spans = t.case.spatial_dims, _spans(t.case)
    mirrored = [tuple(sorted(rank - 1 - axis for axis in axes)) for axes in spans]
    order = [mirrored.index(axes) for axes in spans]
    x, parts = t.tensors["x"], _parts(t, t.tensors["weight"])
    assert isinstance(x, tuple)
    turned = {"x": tuple(_turned(x[i]) for i in order)}
    turned |= {"weight": _whole(t, [_turned(parts[i]) for i in order])}
    keywords = {name: t.keywords[name][::-1] for name in _PER_AXIS}
    got = t.called(keywords, **turned)["output"]
    twice = {"output": t.bound()["output"].scaled(2)}
    t.agree({"output": _turned(got)}, t(), twice, "axes in reverse order")


TRANSPOSITION_SWAPS = Law(
    id="S9",
    name="transposing_space_swaps_sources",
    statement="f(x^T, w^T) = f(x, w)^T, where x^T has rows and columns swapped",
    requires=_TAKES,
    check=_transposes,
)


def _joined(t: Trial, x: Tensor | None, y: Tensor) -> Tensor:
    """Return the channels of `x` and `y`, interleaved by group."""
    if x is None:
        return y
    split = [value.unflatten(1, (t.case.groups, -1)) for value in (x, y)]
    return torch.cat(split, dim=2).flatten(1, 2)


def _constant_is_narrower(t: Trial) -> None:
    spans, x, parts = _spans(t.case), list(t.tensors["x"]), _parts(t, t.tensors["weight"])
    i = max(i for i, axes in enumerate(spans) if 0 in axes and x[i] is not None)
    j = spans.index(spans[i][1:])
    once = x[i].select(2, 0)
    x[i] = once.unsqueeze(2).expand_as(x[i])
    constant: dict[str, Value] = {"x": tuple(x)}
    x[i], x[j] = None, _joined(t, x[j], once)
    taps = parts[i]
    if Trait.SUMS_SOURCES in t.variant.traits:
        taps = taps.double().sum(2).to(taps.dtype)
    parts[i], parts[j] = None, taps if parts[j] is None else torch.cat([parts[j], taps], dim=1)
    narrower: dict[str, Value] = {"x": tuple(x), "weight": _whole(t, parts)}
    bound = t.bound(**constant)["output"] + t.bound(**narrower)["output"]
    t.agree(t(**constant), t(**narrower), {"output": bound}, f"source {i} constant")


CONSTANT_IS_NARROWER = Law(
    id="S10",
    name="a_constant_row_is_a_scalar",
    statement="f(row constant along an axis) = f(scalar), its weight summed over that axis",
    domain="no padding along that axis",
    requires=_TAKES,
    within=_constant_along_first,
    check=_constant_is_narrower,
)


def _fills_output(t: Trial) -> None:
    shape = tuple(t()["output"].shape)
    t.require(shape == t.case.out_shape, f"output.shape={shape}, not {t.case.out_shape}")


FILLS_OUTPUT = Law(
    id="S11",
    name="output_spans_every_axis",
    statement="f(x).shape = (N, C_out, *out_size), whatever axes the sources span",
    domain="no image",
    requires=_TAKES,
    within=_without_image,
    check=_fills_output,
    zero_is_right=True,
)


def _absence_is_zero(t: Trial) -> None:
    x, parts = list(t.tensors["x"]), _parts(t, t.tensors["weight"])
    present = [i for i, source in enumerate(x) if source is not None]
    i = present[t.case.seed % len(present)]
    zero = _whole(
        t, [part * 0 if part is not None and j == i else part for j, part in enumerate(parts)]
    )
    x[i] = parts[i] = None
    got = t(x=tuple(x), weight=_whole(t, parts))
    bound = {"output": t.bound(weight=zero)["output"].scaled(2)}
    t.agree(got, t(weight=zero), bound, f"source {i} absent")


ABSENT_IS_ZERO = Law(
    id="S12",
    name="absent_source_is_zero_weight",
    statement="f without source i = f with w_i = 0",
    domain="two sources or more",
    requires=_TAKES,
    within=_several_sources,
    check=_absence_is_zero,
)


def _splits_into_groups(t: Trial) -> None:
    groups, found = t.case.groups, []
    for g in range(groups):
        own: dict[str, Value] = {
            "x": each(t.tensors["x"], lambda v, g=g: v.chunk(groups, dim=1)[g]),
            "weight": each(t.tensors["weight"], lambda v, g=g: v.chunk(groups)[g]),
            "bias": each(t.tensors["bias"], lambda v, g=g: v.chunk(groups)[g]),
        }
        found.append(t.called({"groups": 1}, **own)["output"])
    bound = {"output": t.bound()["output"].scaled(2)}
    t.agree(t(), {"output": torch.cat(found, dim=1)}, bound, "groups one by one")


GROUPS_ARE_SEPARATE = Law(
    id="S13",
    name="groups_hold_a_share_of_every_source",
    statement="f(groups = G) = concat_g f(share g of every source, filters g)",
    domain="two groups or more",
    requires=_TAKES,
    within=_in_groups,
    check=_splits_into_groups,
)


def _round_trip(t: Trial) -> None:
    back = _untied(t, _tied(t, t.wide("weight")), _middle).to(t.tensors["weight"])
    # summing the taps, and rounding their sums, costs no more than the calls themselves
    bound = t.bound()["output"].scaled(2) + t.bound(weight=back)["output"].scaled(2)
    t.agree(t(weight=back), t(), {"output": bound}, "taps summed, then put at one place")


ROUND_TRIP_KEEPS = Law(
    id="S16",
    name="converting_there_and_back_keeps_the_function",
    statement="tile_concat(x, W) = tile_concat(x, W'), W' the tied sums of W at one tap each",
    domain="padding 0, or padding modes reflect, replicate, circular",
    requires=_TILES,
    within=lambda case: (_unpadded, _continued)[case.seed % 2](case),
    check=_round_trip,
)
