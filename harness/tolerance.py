"""How far a correct implementation may be from the oracle: derived, never tuned.

T0, exact: on integer-valued tensors whose sums stay below `2^digits` every order of summation
gives the same bits, so the bound is 0.

T1, running error: with the oracle's value `y*` in float64 and the same sum of absolute values `Y`,
`|y - y*| <= gamma_n(u) Y + gamma_n(2^-53) Y`, `gamma_n(u) = n u / (1 - n u)`, for every order of
summation, blocking and fused multiply-add (Higham, Accuracy and Stability of Numerical Algorithms,
chapter 3). `n` counts the roundings on the way of one product into the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.variant import Role, Value, Variant

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
DIGITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
# Accumulators are float32 for every dtype below it.
ACCUMULATOR = {
    "float64": "float64",
    "float32": "float32",
    "float16": "float32",
    "bfloat16": "float32",
}
# Masks hold multiples of 1/4 and the extrapolation of a dilated or strided image integers: two
# binary places per factor are kept free.
FRACTION_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Largest allowed error per entry, and the tier that it was derived by."""

    error: Tensor
    tier: str

    def __add__(self, other: Bound) -> Bound:
        """Return the bound of a sum or difference of two bounded values."""
        return Bound(error=self.error + other.error, tier=max(self.tier, other.tier))

    def scaled(self, factor: float) -> Bound:
        """Return the bound of `factor` times a bounded value."""
        return Bound(error=self.error * abs(factor), tier=self.tier)


def gamma(n: int, u: float) -> float:
    """Return `n u / (1 - n u)`: the relative error of a sum of products with n roundings.

    >>> gamma(1, 2.0**-24) > 2.0**-24
    True
    """
    if n * u >= 1:
        raise ValueError(f"n={n} roundings of u={u} leave no correct digit")
    return n * u / (1 - n * u)


def roundings(variant: Variant, case: ConvCase, direction: Role | None) -> int:
    """Return how many roundings a product meets on its way into one entry.

    Args:
        variant: Whose operation.
        case: Which problem.
        direction: None for the output, else the role of the argument whose gradient it is.
    """
    extra = variant.extra_roundings(case)
    if direction is None:
        return case.n_acc + 1 + extra
    if direction in (Role.SIGNAL, Role.NOISE):
        # a source is shared by all positions along the axes that it does not span
        shared = prod(map(max, case.in_size, case.out_size)) if case.sources else 0
        return case.taps * case.c_out // case.groups + shared + 1 + extra
    return max(case.n, 1) * prod(case.out_size) + 1 + extra


def error_bound(
    variant: Variant,
    case: ConvCase,
    tensors: Mapping[str, Value],
    truth: Tensor,
    magnitude: Tensor,
    direction: Role | None = None,
) -> Bound:
    """Return the bound on `|value - truth|`, T0 where it applies, else T1.

    Args:
        variant, case, tensors: The problem.
        truth: The oracle's value in float64.
        magnitude: The same sum of absolute values, in float64.
        direction: As in `roundings`.
    """
    if _is_exact(variant, case, tensors, magnitude):
        return Bound(error=torch.zeros_like(magnitude), tier="T0")
    n = roundings(variant, case, direction)
    accumulator = UNIT_ROUNDOFF[ACCUMULATOR[case.dtype]]
    error = (gamma(n, accumulator) + gamma(n, UNIT_ROUNDOFF["float64"])) * magnitude
    storage = UNIT_ROUNDOFF[case.dtype]
    if storage > accumulator:
        # the result is rounded where it is stored, and so is every stage before it: by its own
        # magnitude, which cancellation does not shrink
        before = variant.extra_roundings(case)
        error += storage * (truth.abs() + error + before * magnitude)
        error += (1 + before) * 2.0**-24 if case.dtype == "float16" else 0
    return Bound(error=error, tier="T1")


def _is_exact(
    variant: Variant, case: ConvCase, tensors: Mapping[str, Value], magnitude: Tensor
) -> bool:
    if not case.is_exact or not (variant.exact is None or variant.exact(case, tensors)):
        return False
    digits = min(DIGITS[ACCUMULATOR[case.dtype]] - FRACTION_DIGITS, DIGITS[case.dtype])
    return magnitude.numel() == 0 or float(magnitude.max()) < 2.0**digits
