"""What lies beyond the border: the image continued by polynomials."""

from dataclasses import replace
from itertools import product

import torch

from harness.case import DTYPES, CaseError, ConvCase
from harness.check import Trial
from harness.law import Law
from harness.tensors import each
from harness.tolerance import LOW_PRECISION, UNIT_ROUNDOFF, Bound, gamma, roundings
from harness.variant import Role, Trait, Value
from properties.extension_cases import (
    compared_where,
    continued,
    degrees,
    has_interior,
    inside,
    one_kernel,
    plain,
    valid,
    with_kernel,
)


def _is_valid_on_continued(t: Trial) -> None:
    expected = valid(t, continued(t.wide("x"), t.case))
    t.agree(t(), {"output": expected}, t.bound())


IS_VALID_ON_CONTINUED = Law(
    id="D1",
    name="is_plain_on_the_continued_image",
    statement="f(x, w, b) = conv_valid(P x, w) + b, P by vanishing differences",
    domain="no edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=one_kernel,
    check=_is_valid_on_continued,
)


def _interior_is_plain(t: Trial) -> None:
    got, expected = compared_where(t()["output"], plain(t), inside(t.case))
    t.agree(got, expected, t.bound())


INTERIOR_IS_PLAIN = Law(
    id="D2",
    name="interior_is_plain",
    statement="f(x, w, b)[q] = (conv(x, w) + b)[q] for every q whose window is inside the image",
    domain="images with an interior, with or without an edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=has_interior,
    check=_interior_is_plain,
    zero_is_right=True,
)


def _constants(t: Trial) -> None:
    x = torch.full_like(t.tensors["x"], 3)
    total = 3 * t.wide("weight").flatten(1).sum(1)
    bias = t.wide("bias")
    total = total if bias is None else total + bias
    shape = t.case.out_shape
    expected = total.view(1, -1, *(1 for _ in shape[2:])).expand(shape)
    t.agree(t(x=x), {"output": expected}, t.bound(x=x))


CONSTANTS_STAY = Law(
    id="D4",
    name="constants_have_no_border",
    statement="f(c, w, b) = c sum(w) + b everywhere",
    domain="no edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=one_kernel,
    check=_constants,
)


def _targets(t: Trial) -> None:
    for target in t.variant.options["optimized_for"]:
        t.agree(t.called({"optimized_for": target}), t.truth(), t.bound(), target)


TARGETS_AGREE = Law(
    id="D5",
    name="every_optimisation_target_gives_the_same",
    statement="f(x, w, b; optimized_for=memory) = f(x, w, b; optimized_for=speed)",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    check=_targets,
)


def _too_small(t: Trial) -> None:
    case = t.case
    axes = zip(case.kernel_size, case.dilation, degrees(case), strict=True)
    for axis, (k, d, q) in enumerate(axes):
        if k == 1:
            continue
        size = (q + 1) * d - 1
        x = t.tensors["x"].narrow(axis + 2, 0, size)
        label = f"{size} samples on axis {axis}"
        try:
            t(x=x)
        except (ValueError, RuntimeError, IndexError):
            pass
        else:
            t.require(False, f"{label} are too few, yet nothing is raised")
        if size:
            sizes = list(case.in_size)
            sizes[axis] = size
            try:
                t.variant.check_case(replace(case, in_size=tuple(sizes)))
            except CaseError:
                continue
            t.require(False, f"{label} are too few, yet the case is accepted")


TOO_SMALL_IMAGES_RAISE = Law(
    id="D9",
    name="too_small_images_raise",
    statement="S < (degree + 1) * dilation on an axis with K > 1 raises",
    domain="every axis on its own, so rectangular images too",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    check=_too_small,
    zero_is_right=True,
)


def _condition(t: Trial) -> None:
    u = UNIT_ROUNDOFF[t.case.dtype]
    n = roundings(t.variant, t.case, None)
    sizes = t.other("plain")(
        continued(t.wide("x").abs(), t.case, absolute=True), t.wide("weight").abs(),
        each(t.wide("bias"), torch.abs), stride=t.case.stride,
        padding=(0,) * t.case.spatial_dims, dilation=t.case.dilation, groups=t.case.groups,
    )  # fmt: skip
    bound = Bound(error=(gamma(n, u) + gamma(n, UNIT_ROUNDOFF["float64"])) * sizes, tier="T1")
    t.agree(t(), t.truth(), {"output": bound})


ERROR_KNOWS_THE_AMPLIFICATION = Law(
    id="D10",
    name="error_is_bounded_by_the_condition",
    statement="|error| <= gamma_n (|w| * (|E_H| |x| |E_W|^T) + |b|)",
    domain="no edge kernel; float32 and float64: below, what is stored rounds more than the sums",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=one_kernel,
    check=_condition,
    about_oracle=False,
    dtypes=tuple(dtype for dtype in DTYPES if dtype not in LOW_PRECISION),
)


def _one_tap(case: ConvCase) -> ConvCase:
    ones = (1,) * case.spatial_dims
    return with_kernel(case, ones, case.dilation)


def _is_pointwise(t: Trial) -> None:
    picked = tuple(slice(None, None, s) for s in t.case.stride)
    x = t.wide("x")[(..., *picked)].unflatten(1, (t.case.groups, -1))
    filters = t.wide("weight").unflatten(0, (t.case.groups, -1)).flatten(2)
    expected = torch.einsum("ngc...,gkc->ngk...", x, filters).flatten(1, 2)
    bias = t.wide("bias")
    if bias is not None:
        expected = expected + bias.view(-1, *(1 for _ in t.case.in_size))
    t.agree(t(), {"output": expected}, t.bound())


ONE_TAP_IS_POINTWISE = Law(
    id="D11",
    name="one_tap_has_no_border",
    statement="K = 1: f(x, w, b) = w x[::s] + b",
    domain="one tap",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_one_tap,
    check=_is_pointwise,
)


def _phases_are_apart(t: Trial) -> None:
    ones = (1,) * t.case.spatial_dims
    rest = [t.wide(arg.name) for arg in t.variant.args[1:]]
    expected = t.wide("x").new_zeros((t.case.n, t.case.c_out, *t.case.in_size))
    keywords = {**t.keywords, "stride": ones, "dilation": ones}
    steps = [d if k > 1 else 1 for k, d in zip(t.case.kernel_size, t.case.dilation, strict=True)]
    for phase in product(*(range(d) for d in steps)):
        lattice = (..., *(slice(r, None, d) for r, d in zip(phase, steps, strict=True)))
        expected[lattice] = t.variant.oracle(t.wide("x")[lattice], *rest, **keywords)
    picked = tuple(slice(None, None, s) for s in t.case.stride)
    t.agree(t(), {"output": expected[(..., *picked)]}, t.bound())


PHASES_ARE_APART = Law(
    id="D12",
    name="dilation_acts_on_every_phase_apart",
    statement="f_{s,d}(x)[q] = f_{1,1}(x[r::d])[m], q s = r + m d",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    check=_phases_are_apart,
)


def _groups_are_apart(t: Trial) -> None:
    g = t.case.groups
    parts = {
        arg.name: each(t.wide(arg.name), lambda v, axis=int(arg.role is Role.SIGNAL): v.chunk(g, axis))
        for arg in t.variant.args
    }  # fmt: skip
    keywords = {**t.keywords, "groups": 1}
    outputs = [
        t.variant.oracle(*(part and part[i] for part in parts.values()), **keywords)
        for i in range(g)
    ]
    t.agree(t(), {"output": torch.cat(outputs, dim=1)}, t.bound())
    bare: dict[str, Value] = dict.fromkeys(("bias", "edge_bias"))
    for role in (Role.SIGNAL, Role.WEIGHT):
        doubled = {name: each(t.tensors[name], lambda v: 8 * v) for name in t.names(role)} | bare
        expected = {"output": 8 * t.truth(**bare)["output"]}
        t.agree(t(**doubled), expected, t.bound(**doubled), f"8 times the {role}")


GROUPS_ARE_APART = Law(
    id="D13",
    name="groups_are_apart_and_scale",
    statement="f = cat of f per group; f(8 x, w) = 8 f(x, w) = f(x, 8 w) without bias",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    check=_groups_are_apart,
)
