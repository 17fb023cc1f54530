"""The error of filtering at the border: fields that are known beyond it, method by method."""

from functools import cache

import torch
from torch import Tensor

from harness.claim import Answer, Judgement, claim, decide, decide_on
from properties.claims._tools import DIFF_CONV, normal, variant

METHODS = ("zeros", "reflect", "replicate", "circular", "extrapolate", "random", "partial", "diff")
ORDERS = {
    "zeros": 0,
    "circular": 0,
    "partial": 0,
    "reflect": 1,
    "replicate": 1,
    "extrapolate": 2,
    "diff": 3,
}
"""By how many powers of the spacing a 3x3 kernel's error at the border shrinks with it."""
GRID, KERNELS = 64, 20
RESOLVED, COARSE = (1, 10, 30), 150


def chebyshev(n: int, size: int) -> Tensor:
    """Return `U_n(h) U_n(w) sin(n (h + w))` over `[0.3, 0.8]^2`, one sample more on every side."""
    step = 0.5 / (size - 1)
    place = 0.3 + step * torch.arange(-1, size + 1, dtype=torch.float64)
    second_kind = torch.sin((n + 1) * place.acos()) / place.acos().sin()
    field = torch.outer(second_kind, second_kind) * torch.sin(n * (place[:, None] + place))
    return field.view(1, 1, size + 2, size + 2)


@cache
def border_error(n: int, method: str, size: int = GRID) -> float:
    """Return the mean absolute error over border outputs and random 3x3 kernels."""
    field, weight = chebyshev(n, size), normal(KERNELS, 1, 3, 3)
    truth = torch.conv2d(field, weight)
    got = variant("boundary").functional(field[..., 1:-1, 1:-1], weight, method=method)
    border = torch.ones(size, size, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    return float((got - truth).abs()[..., border].mean())


def _others(n: int) -> dict[str, float]:
    return {m: border_error(n, m) for m in METHODS if m != "diff"}


@claim(
    "004.16", DIFF_CONV, "At the border it filters more exactly than every other boundary method.",
    Answer.TRUE_ON, domain="fields that the grid resolves",
)  # fmt: skip
def filters_best() -> Judgement:
    """Filter Chebyshev fields, smooth ones and one that the grid does not resolve."""
    ratios = {n: border_error(n, "diff") / min(_others(n).values()) for n in (*RESOLVED, COARSE)}
    best = {n: min(_others(n), key=_others(n).get) for n in ratios}
    figures = ", ".join(f"n = {n}: {ratio:.2g} ({best[n]})" for n, ratio in ratios.items())
    return decide_on(
        all(ratios[n] < 1 for n in RESOLVED), ratios[COARSE] < 1,
        f"error over that of the best other method, on a {GRID}x{GRID} grid: {figures}",
    )  # fmt: skip


@claim(
    "004.17", DIFF_CONV,
    "With a 3x3 kernel its border error shrinks with the third power of the grid's spacing, that of "
    "padding with the first or not at all.",
    Answer.TRUE,
)  # fmt: skip
def converges_faster() -> Judgement:
    """Refine the grid by 2 and read the order off."""
    sizes = 129, 257
    orders = {}
    for method in ORDERS:
        errors = torch.tensor([border_error(3, method, size) for size in sizes])
        orders[method] = float((errors[0] / errors[1]).log2())
    figures = ", ".join(f"{method} {order:.2f}" for method, order in orders.items())
    return decide(
        all(round(orders[method]) == order for method, order in ORDERS.items()),
        f"orders from {sizes[0]} to {sizes[1]} samples a side: {figures}",
    )
