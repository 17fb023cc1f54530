"""Superposition: over signals, weights, samples of a batch, and scale."""

import math
from dataclasses import replace

from harness.case import ConvCase
from harness.check import Outputs, Trial
from harness.law import Law
from harness.tensors import each
from harness.tolerance import Bound
from harness.variant import Role, Trait, Value


def _signal_is_linear(case: ConvCase) -> ConvCase | None:
    """Leave out the options whose bias or padding depends on the signal's values."""
    supported = (
        case.option("bias_where", "all") == "support" and case.option("mask", "none") == "none"
    )
    return None if supported or case.option("method", "") == "random" else case


def _superposes(t: Trial, *roles: Role) -> None:
    names = t.names(*roles)
    other: dict[str, Value] = {name: t.another(name) for name in names}
    mixed = {name: t.combined(name, other[name], lambda a, b: 2 * a - b) for name in names}
    left, x, y = t(**mixed), t(), t(**other)
    # only the output is affine; a mask that comes out beside it is no function of these arguments
    right = {"output": 2 * x["output"].double() - y["output"].double()}
    bound = t.bound(**mixed)["output"] + t.bound()["output"].scaled(2) + t.bound(**other)["output"]
    t.agree({"output": left["output"]}, right, {"output": bound})


AFFINE_IN_SIGNAL = Law(
    id="G4",
    aliases=("P8",),
    name="affine_in_the_signal",
    statement="f(2x - y) = 2 f(x) - f(y)",
    domain="not where the bias or the padding depends on the signal's values",
    requires=frozenset({Trait.AFFINE_IN_SIGNAL}),
    within=_signal_is_linear,
    check=lambda t: _superposes(t, Role.SIGNAL),
)

AFFINE_IN_WEIGHT = Law(
    id="G5",
    aliases=("P8b",),
    name="affine_in_the_weight",
    statement="f(x, 2w - v) = 2 f(x, w) - f(x, v)",
    requires=frozenset({Trait.LINEAR_IN_WEIGHT}),
    check=lambda t: _superposes(t, Role.WEIGHT),
)


def _several_samples(case: ConvCase) -> ConvCase:
    return replace(case, n=max(case.n, 2))


def _batch_is_independent(t: Trial) -> None:
    n = t.case.n
    batched = {
        arg.name for arg in t.variant.args
        if arg.role in (Role.SIGNAL, Role.NOISE) or arg.covers == "x"
    }  # fmt: skip
    whole, bound = t(), t.bound()
    for i in range(n):
        alone = {
            name: each(value, lambda v, i=i: v[i : i + 1] if v.shape[0] == n else v)
            for name, value in t.tensors.items()
            if name in batched
        }
        got: Outputs = t(**alone)
        expected = {k: v[i : i + 1] if v.shape[0] == n else v for k, v in whole.items()}
        allowed = {
            k: Bound(
                error=2 * (b.error[i : i + 1] if b.error.shape[0] == n else b.error), tier=b.tier
            )
            for k, b in bound.items()
        }
        t.agree(got, expected, allowed, f"sample {i} alone")


BATCH_INDEPENDENT = Law(
    id="G7",
    name="samples_are_independent",
    statement="f(x)[i] = f(x[i])",
    domain="two samples or more",
    requires=frozenset({Trait.BATCH_INDEPENDENT}),
    within=_several_samples,
    check=_batch_is_independent,
)


def _subsamples(t: Trial) -> None:
    ones = (1,) * t.case.spatial_dims
    dense = t.called({"stride": ones})
    picked = tuple(slice(None, None, s) for s in t.case.stride)
    expected = {name: value[(..., *picked)] for name, value in dense.items()}
    twice = {name: bound.scaled(2) for name, bound in t.bound().items()}
    t.agree(t(), expected, twice)


SUBSAMPLES = Law(
    id="G13",
    name="stride_subsamples",
    statement="f_s(x) = f_1(x)[::s]",
    requires=frozenset({Trait.SUBSAMPLES}),
    check=_subsamples,
)


def _without_bias(case: ConvCase) -> ConvCase | None:
    linear = _signal_is_linear(case)
    return replace(linear, bias=False) if linear else None


def _scales(t: Trial) -> None:
    # by as much as leaves room for the largest intermediate result
    factor = 2.0 ** max(min(10, math.floor(math.log2(t.room()))), 0)
    doubled = {name: each(t.tensors[name], lambda v: v * factor) for name in t.names(Role.SIGNAL)}
    left, right = t(**doubled)["output"], t()["output"] * factor
    t.agree({"output": left}, {"output": right})


SCALES_BY_POWERS_OF_TWO = Law(
    id="G45",
    name="scales_by_powers_of_two",
    statement="f(1024 x) = 1024 f(x), bit for bit",
    domain="no bias; away from overflow and underflow: in float16 by as much as there is room for",
    requires=frozenset({Trait.AFFINE_IN_SIGNAL}),
    within=_without_bias,
    check=_scales,
)
