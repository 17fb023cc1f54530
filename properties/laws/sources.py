"""Several sources among themselves: sums, shares and shapes."""

from dataclasses import replace

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.variant import Trait, Value
from properties import moves
from properties.source_cases import (
    joined,
    per_source,
    several_sources,
    unpadded_along_first,
    without_image,
)

_TAKES = frozenset({Trait.TAKES_SOURCES})


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
    within=several_sources,
    check=_superposes,
)


def _joined(t: Trial, x: Tensor | None, y: Tensor) -> Tensor:
    """Return the channels of `x` and `y`, interleaved by group."""
    if x is None:
        return y
    split = [value.unflatten(1, (t.case.groups, -1)) for value in (x, y)]
    return torch.cat(split, dim=2).flatten(1, 2)


def _constant_is_narrower(t: Trial) -> None:
    spans, x, parts = (
        moves.spans(t.case.spatial_dims),
        list(t.tensors["x"]),
        per_source(t, t.tensors["weight"]),
    )
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
    narrower: dict[str, Value] = {"x": tuple(x), "weight": joined(t, parts)}
    bound = t.bound(**constant)["output"] + t.bound(**narrower)["output"]
    t.agree(t(**constant), t(**narrower), {"output": bound}, f"source {i} constant")


CONSTANT_IS_NARROWER = Law(
    id="S10",
    name="a_constant_row_is_a_scalar",
    statement="f(row constant along an axis) = f(scalar), its weight summed over that axis",
    domain="no padding along that axis",
    requires=_TAKES,
    within=unpadded_along_first,
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
    within=without_image,
    check=_fills_output,
    zero_is_right=True,
)


def _absence_is_zero(t: Trial) -> None:
    x, parts = list(t.tensors["x"]), per_source(t, t.tensors["weight"])
    present = [i for i, source in enumerate(x) if source is not None]
    i = present[t.case.seed % len(present)]
    zero = joined(
        t, [part * 0 if part is not None and j == i else part for j, part in enumerate(parts)]
    )
    x[i] = parts[i] = None
    got = t(x=tuple(x), weight=joined(t, parts))
    bound = {"output": t.bound(weight=zero)["output"].scaled(2)}
    t.agree(got, t(weight=zero), bound, f"source {i} absent")


ABSENT_IS_ZERO = Law(
    id="S12",
    name="absent_source_is_zero_weight",
    statement="f without source i = f with w_i = 0",
    domain="two sources or more",
    requires=_TAKES,
    within=several_sources,
    check=_absence_is_zero,
)


def _square(case: ConvCase) -> ConvCase:
    """Let every axis have as many taps, and all channels one group."""
    kernel = (min(case.kernel_size),) * case.spatial_dims
    return replace(case, kernel_size=kernel, groups=1)


def _counts_parameters(t: Trial) -> None:
    case, (module, _) = t.case, t.layer()
    pairs = zip(case.sources, moves.spans(case.spatial_dims), strict=True)
    each_output = sum(channels * case.kernel_size[0] ** len(axes) for channels, axes in pairs)
    expected = case.c_out * (each_output + case.bias)
    got = sum(parameter.numel() for parameter in module.parameters())
    t.require(got == expected, f"{got} parameters where {expected} are expected")


PARAMETERS_ARE_SUMS = Law(
    id="S14",
    name="every_source_has_the_taps_of_its_own_axes",
    statement="parameters per output = sum_i C_i K^(axes of i), + 1 with a bias",
    domain="one group, as many taps along every axis",
    requires=frozenset({Trait.SUMS_SOURCES}),
    within=_square,
    check=_counts_parameters,
    of_layers=True,
    share=0.3,
)
