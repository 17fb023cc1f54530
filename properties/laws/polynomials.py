"""Which images are continued exactly, and how far others are off."""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.tensors import torch_dtype
from harness.variant import Trait
from properties.extension_cases import (
    degrees,
    one_kernel,
    valid,
    with_kernel,
)


def polynomial(case: ConvCase, above: int) -> Tensor:
    """Return a tensor polynomial on the image and its ring, one for every lattice phase.

    Its degree per axis is that of the continuation plus `above`; its values are small integers.
    """
    value = torch.ones((), dtype=torch.float64)
    axes = zip(case.in_size, case.padding, case.dilation, degrees(case), strict=True)
    for size, p, d, q in axes:
        position = torch.arange(-p, size + p)
        step = position.div(d, rounding_mode="floor").double()
        # centred per phase, shifted by the phase, so that phases differ and values stay small
        step = step - size // (2 * d) + (position % d).double()
        value = value[..., None] * (step ** (q + above) + (step if q + above > 1 else 0))
    signs = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    channels = signs[torch.arange(case.n * case.c_in) % 3]
    channels = channels.view(case.n, case.c_in, *(1 for _ in case.in_size))
    return channels * value


def polynomials_are_continued(above: int = 0) -> Callable[[Trial], None]:
    """Return the check that polynomials of the degree of the continuation plus `above` are exact."""

    def check(t: Trial) -> None:
        whole = polynomial(t.case, above)
        own = (..., *(slice(p, p + n) for p, n in zip(t.case.padding, t.case.in_size, strict=True)))
        x = whole[own].to(t.tensors["x"]).contiguous()
        t.agree(t(x=x), {"output": valid(t, whole)}, t.bound(x=x))

    return check


def _holds_polynomials(case: ConvCase) -> ConvCase | None:
    """Return `case`, of a lower degree where its dtype does not hold the values of that one."""
    case = one_kernel(case)
    for lower in (case, case.with_options(degree="1"), case.with_options(degree="0")):
        whole = polynomial(lower, 0)
        if whole.to(torch_dtype(case.dtype)).double().equal(whole):
            return lower
    return None


POLYNOMIALS_ARE_EXACT = Law(
    id="D3",
    name="polynomials_are_continued_exactly",
    statement="f(p on the image, w, b) = conv_valid(p on the plane, w) + b, p a tensor polynomial",
    domain="degree of p per axis at most that of the continuation; no edge kernel; whole numbers "
    "that the dtype holds",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_holds_polynomials,
    check=polynomials_are_continued(),
)


def _powers(case: ConvCase) -> tuple[Tensor, Tensor]:
    """Return `prod_axis t^(q+1)` on the image and its ring, and what its continuation is there.

    `t` counts the samples of a lattice phase. `m` steps beyond the nearest of the `q + 1` samples
    that it is continued from, a monic polynomial of degree `q + 1` exceeds its continuation by
    `prod_j (+-(m + j))`, the polynomial whose roots these samples are.
    """
    power, continued = torch.ones((2, 1), dtype=torch.float64).unbind()
    axes = zip(case.in_size, case.padding, case.dilation, degrees(case), strict=True)
    for size, p, d, q in axes:
        position = torch.arange(-p, size + p)
        step = (position.div(d, rounding_mode="floor") - size // (2 * d)).double()
        before = (-position + d - 1).div(d, rounding_mode="floor").clamp(min=0).double()
        behind = (position - size + d).div(d, rounding_mode="floor").clamp(min=0).double()
        roots = torch.ones_like(step)
        for j in range(q + 1):
            roots = roots * ((behind > 0) * (behind + j) - (before > 0) * (before + j))
        power = power[..., None] * step ** (q + 1)
        continued = continued[..., None] * (step ** (q + 1) - roots)
    scale = torch.arange(case.n * case.c_in, dtype=torch.float64) % 3 + 1
    scale = scale.view(case.n, case.c_in, *(1 for _ in case.in_size))
    return scale * power[0], scale * continued[0]


def _with_held_powers(case: ConvCase) -> ConvCase | None:
    """Return `case` with one kernel, of a lower degree where its dtype does not hold the powers."""
    case = case.with_options(edge_kernel=None)
    for lower in (case, case.with_options(degree="1"), case.with_options(degree="0")):
        power, _ = _powers(lower)
        if power.to(torch_dtype(case.dtype)).double().equal(power):
            return lower
    return None


def _misses_by_its_roots(t: Trial) -> None:
    power, continued = _powers(t.case)
    axes = zip(t.case.padding, t.case.in_size, strict=True)
    image = power[(..., *(slice(p, p + size) for p, size in axes))]
    x = image.to(t.tensors["x"]).contiguous()
    t.agree(t(x=x), {"output": valid(t, continued)}, t.bound(x=x))


NEXT_DEGREE_IS_MISSED = Law(
    id="D3b",
    name="next_degree_is_missed_by_its_roots",
    statement="f(t^(q+1), w, b) = conv_valid(t^(q+1) - prod_j (t - t_j), w) + b, t_j the q + 1 "
    "samples that are continued",
    domain="one degree more than that of the continuation; no edge kernel; whole numbers that the "
    "dtype holds",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_with_held_powers,
    check=_misses_by_its_roots,
)


def _low_degree(case: ConvCase) -> ConvCase:
    dense = with_kernel(case, case.kernel_size, (1,) * case.spatial_dims)
    degree = case.option("degree", "None")
    return one_kernel(dense).with_options(degree=degree if degree in "01" else "0")


def _low_degree_on_phases(case: ConvCase) -> ConvCase:
    wide = tuple(max(k, 3) for k in case.kernel_size)
    low = _low_degree(with_kernel(case, wide, case.dilation))
    return with_kernel(low, wide, (2,) * case.spatial_dims)


def low_degrees(t: Trial) -> None:
    """Compare degree 0 with replication and degree 1 with a line through the last two samples."""
    padded = t.wide("x")
    slope = t.keywords["degree"]
    for axis, p in enumerate(t.case.padding, start=2):
        size = padded.shape[axis]
        position = torch.arange(-p, size + p)
        edge = position.clamp(0, size - 1)
        value = padded.index_select(axis, edge)
        if slope and p:
            # one step inwards from each edge; zero steps inside
            outward = (position - edge).sign()
            steps = (position - edge).abs().double()
            steps = steps.view(-1, *(1 for _ in padded.shape[axis + 1 :]))
            value = value + steps * (value - padded.index_select(axis, edge - outward))
        padded = value
    t.agree(t(), {"output": valid(t, padded)}, t.bound())


LOW_DEGREES_ARE_FAMILIAR = Law(
    id="D14",
    name="degree_0_replicates_and_degree_1_is_linear",
    statement="degree 0: conv_valid(replicate-padded x); degree 1: conv_valid(x continued by lines)",
    domain="dilation 1, no edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_low_degree,
    outside=_low_degree_on_phases,
    check=low_degrees,
)
