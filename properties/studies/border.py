"""The error of filtering at the border: analytic fields, every boundary method, finer grids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from scipy.special import lpmv
from torch import Tensor

from harness.evidence import Evidence, Made
from properties.claims._tools import variant

METHODS = ("zeros", "reflect", "replicate", "circular", "extrapolate", "random", "partial", "diff")
GRID, KERNELS = 500, 100
ORDERS = {
    "Chebyshev": (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100),
    "spherical harmonics": (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55),
}
REFINED, SMOOTH = (63, 126, 252, 504), 3
"""Spacings, each half of the one before, and the field that is refined."""


def chebyshev(n: int, size: int) -> Tensor:
    """Return `U_n(h) U_n(w) sin(n (h + w))` over `[0.3, 0.8]^2`, in float64."""
    place = torch.linspace(0.3, 0.8, size, dtype=torch.float64)
    second_kind = torch.sin((n + 1) * place.acos()) / place.acos().sin()
    return torch.outer(second_kind, second_kind) * torch.sin(n * (place[:, None] + place))


def spherical(m: int, size: int) -> Tensor:
    """Return `Re Y(order m, degree 2m) sin(2m (h + w))`, azimuth down and polar angle across."""
    azimuth = math.pi * torch.linspace(0.4, 0.6, size, dtype=torch.float64)
    half = math.pi / 12
    polar = torch.linspace(math.pi / 2 - half, math.pi / 2 + half, size, dtype=torch.float64)
    # the factor and the function reach far beyond one another's range: together they are of order 1
    factor = 0.5 * (
        math.log((4 * m + 1) / (4 * math.pi)) + math.lgamma(m + 1) - math.lgamma(3 * m + 1)
    )
    legendre = torch.from_numpy(lpmv(m, 2 * m, polar.cos().numpy())) * math.exp(factor)
    field = torch.outer((m * azimuth).cos(), legendre)
    return field * torch.sin(2 * m * (azimuth[:, None] + polar))


FIELDS: dict[str, Callable[[int, int], Tensor]] = {
    "Chebyshev": chebyshev, "spherical harmonics": spherical,
}  # fmt: skip


@cache
def chosen_kernels(side: int, count: int, layer: int = 0) -> Tensor:
    """Return normally distributed kernels, the same in every call."""
    draw = torch.Generator().manual_seed(side + 100 * layer)
    return torch.randn(count, 1, side, side, generator=draw, dtype=torch.float64)


def border_errors(
    field: Tensor, side: int, dtype: torch.dtype, count: int = KERNELS,
    methods: Sequence[str] = METHODS,
) -> list[float]:  # fmt: skip
    """Return, method by method, the mean absolute error over border outputs and kernels.

    The truth is the plain convolution of the whole field in float64; a method sees the field without
    the `side // 2` outermost samples.
    """
    weight, edge = chosen_kernels(side, count), side // 2
    whole = field[None, None]
    truth = torch.conv2d(whole, weight)[0]
    seen = whole[..., edge:-edge, edge:-edge].to(dtype)
    ring = torch.ones(truth.shape[1:], dtype=torch.bool)
    ring[edge:-edge, edge:-edge] = False
    expected = truth[:, ring]
    errors = []
    for method in methods:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            got = variant("boundary").functional(seen, weight.to(dtype), method=method)
        errors.append(float((got[0, :, ring].double() - expected).abs().mean()))
    return errors


def errors(made: Made) -> Evidence:
    """Filter every field with every method, in float32."""
    rows = []
    for name, orders in ORDERS.items():
        for side in (3, 5, 7):
            for n in orders:
                found = border_errors(FIELDS[name](n, GRID), side, torch.float32)
                rows.append((name, f"{side}x{side}", n, *map(_short, found)))
    return Evidence(
        name="border_error",
        title="Error of filtering at the border",
        about=(
            f"Mean absolute error over the outputs whose window crosses the edge and over {KERNELS} "
            f"normal kernels, float32, fields on {GRID}x{GRID} samples that are known beyond the edge. "
            "The larger n, the less the grid resolves the field."
        ),
        made=made,
        columns=("field", "kernel", "n", *METHODS),
        rows=tuple(rows),
    )


def convergence(made: Made) -> Evidence:
    """Refine the grid of one smooth field: by which power of the spacing does an error shrink?"""
    rows = []
    for dtype in (torch.float64, torch.float32):
        for side in (3, 5):
            found = [
                border_errors(chebyshev(SMOOTH, steps + 1), side, dtype, count=20)
                for steps in REFINED
            ]
            for method, series in zip(METHODS, zip(*found, strict=True), strict=True):
                orders = [math.log2(a / b) for a, b in itertools.pairwise(series)]
                name = str(dtype).removeprefix("torch.")
                best = round(max(orders), 2) + 0.0  # no minus before a zero
                rows.append((method, f"{side}x{side}", name, *map(_short, series), best))
    return Evidence(
        name="border_convergence",
        title="Order of convergence at the border",
        about=(
            f"The same error for the Chebyshev field n = {SMOOTH}, on grids that double. Order: the "
            "largest power of the spacing with which the error shrank from one grid to the next; where "
            "rounding is reached it shrinks no more."
        ),
        made=made,
        columns=("method", "kernel", "dtype", *(f"{steps} steps" for steps in REFINED), "order"),
        rows=tuple(rows),
    )


def _short(value: float) -> float:
    return float(f"{value:.3g}")
