"""How far a correct implementation may be from the oracle: derived, never tuned.

T0, exact: on integer-valued tensors whose sums stay below `2^digits` every order of summation
gives the same bits, so the bound is 0.

T1, running error: with the oracle's value `y*` in float64 and the same sum of absolute values `Y`,
every product meets at most `n` roundings of the accumulator and `s` of results stored on its way
in the dtype of the case, so that for every order of summation, blocking and fused multiply-add

    |y - y*| <= E + v (|y*| + E),    E = ((1 - u)^-n (1 - v)^-s (1 - 2^-53)^-n - 1) Y,

with `u` the accumulator's unit roundoff and `v` that of a storage dtype below it (Higham, Accuracy
and Stability of Numerical Algorithms, chapter 3, with the exact power in place of `gamma_n`).

T2, relative: where the algorithm is no sum of the definition's products (a transform, a compiler's
fusion in low precision), at most twice the error of the reference, over the floor of T1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from harness.case import PADDING_MODES, ConvCase
from harness.variant import Implementation, Kind, Role, Value, Variant

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
DIGITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
LOW_PRECISION = ("bfloat16", "float16")
OUTPUT = "output"
# TensorFloat-32 keeps 10 places of each operand and accumulates in float32.
TF32_ROUNDOFF = 2.0**-11
TF32_DIGITS = 11
# Masks hold multiples of 1/4, and so may the share that a mask makes of an output.
FRACTION_DIGITS = 4
# Half of the smallest float16: what storing a result below the normal numbers may lose.
UNDERFLOW = 2.0**-25
LARGEST = {"float16": torch.finfo(torch.float16).max}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Largest allowed error per entry (infinite = not comparable), and the tier it is derived by.

    `magnitude`, `roundings` and `roundoff` are what it was derived from, for the counterexample.
    """

    error: Tensor
    tier: str
    magnitude: Tensor | None = None
    roundings: int = 0
    roundoff: float = 0.0

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


def growth(*steps: tuple[int, float]) -> float:
    """Return `prod (1 - u)^-n - 1` over `(n, u)`: below `gamma` and finite for every n.

    >>> round(255 * growth((1, 2.0**-8)), 12)
    1.0
    """
    return math.expm1(-sum(n * math.log1p(-u) for n, u in steps))


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
        return case.taps * case.c_out // case.groups + shared + 1 + extra + _folded(case)
    return max(case.n, 1) * prod(case.out_size) + 1 + extra


def _folded(case: ConvCase) -> int:
    """Return how often a sample stands in the continued image, less one: its gradient's additions."""
    mode = next((word for _, word in case.options if word in PADDING_MODES), PADDING_MODES[0])
    if mode == PADDING_MODES[0]:
        return 0
    return prod((2 * p + 1 if mode == "replicate" else 3) for p in case.padding if p) - 1


def accumulator(
    case: ConvCase, direction: Role | None, implementation: Implementation
) -> tuple[str, int]:
    """Return the dtype in which `implementation` adds up products, and partial sums in memory.

    Where it declares none: as the library's convolution does. An oracle adds up in the dtype of
    its arguments, as it is written.
    """
    declared = implementation.accumulators.get((case.dtype, direction or OUTPUT))
    if declared is not None:
        return declared, 0
    if implementation.kind is Kind.ORACLE or case.dtype not in LOW_PRECISION:
        return case.dtype, 0
    if direction is None or _in_onednn(case.dtype):
        return "float32", 0
    # The library's own loops: a product of matrices per tap, or per sample, is added to what is
    # stored already.
    return "float32", case.taps if direction in (Role.SIGNAL, Role.NOISE) else case.n


@functools.cache
def _in_onednn(dtype: str) -> bool:
    takes = {
        "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported,
        "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return torch.backends.mkldnn.is_available() and bool(takes[dtype]())


def stored(
    variant: Variant, case: ConvCase, direction: Role | None, implementation: Implementation | None
) -> int:
    """Return how many results on the way of a product are stored before the last one.

    Where the implementation does not say: as many as any of the variant's own.
    """
    if implementation is not None and implementation.stored is not None:
        return implementation.stored(case, direction)
    own = (i.stored for i in variant.implementations if i.stored is not None)
    return max((count(case, direction) for count in own), default=0)


def reads_tf32(case: ConvCase, device: str) -> bool:
    """Return whether `device` rounds the operands of float32 products to TensorFloat-32."""
    allowed = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return device == "cuda" and case.dtype == "float32" and allowed


def is_transform(implementation: Implementation, case: ConvCase, device: str) -> bool:
    """Return whether the implementation's sums are not those of the definition."""
    if implementation.model == "compiled":
        return case.dtype in LOW_PRECISION
    chosen_by_timing = device == "cuda" and torch.backends.cudnn.benchmark
    return implementation.model == "transform" or chosen_by_timing


def error_bound(
    variant: Variant,
    case: ConvCase,
    tensors: Mapping[str, Value],
    truth: Tensor,
    magnitude: Tensor,
    direction: Role | None = None,
    *,
    implementation: Implementation | None = None,
    widest: Tensor | None = None,
    tf32: bool = False,
    exact: bool | None = None,
) -> Bound:
    """Return the bound on `|value - truth|`, T0 where it applies, else T1.

    Args:
        variant, case, tensors: The problem.
        truth: The oracle's value in float64.
        magnitude: The same sum of absolute values, in float64.
        direction: As in `roundings`.
        implementation: Whose value; None for the loosest of the variant's own.
        widest: `magnitude` of factors of at least 1: no intermediate result is larger. Where it
            does not fit into the dtype, an entry is not comparable.
        tf32: Whether operands are rounded to TensorFloat-32.
        exact: Whether T0 applies, as `is_exact` says, which is asked where this is None; never to a
            transform, which computes other sums than the definition's.
    """
    low = case.dtype in LOW_PRECISION
    whole = magnitude if widest is None else torch.maximum(magnitude, widest)
    if exact is None:
        exact = is_exact(variant, case, tensors, truth, magnitude, widest=widest, tf32=tf32)
    if exact:
        return Bound(error=torch.zeros_like(magnitude), tier="T0")
    n = roundings(variant, case, direction)
    adds, s = accumulator(case, direction, implementation or variant.reference)
    u, v = UNIT_ROUNDOFF[adds], UNIT_ROUNDOFF[case.dtype]
    if low:
        # what the adjoint of a continuation adds up was stored before
        folded = _folded(case) if direction in (Role.SIGNAL, Role.NOISE) else 0
        s += stored(variant, case, direction, implementation) + (folded and folded + 1)
    path = growth((n, u), (s, v), (n, UNIT_ROUNDOFF["float64"]), (2 * tf32, TF32_ROUNDOFF))
    error = path * magnitude
    if low:
        error = error + v * (truth.abs() + error)
    if limit := LARGEST.get(case.dtype):
        lossy = s + (n if adds == case.dtype else 0)
        error = error + UNDERFLOW * (1 + lossy * whole)
        error = error.masked_fill(whole * (1 + path) * (1 + v) >= limit, math.inf)
    return Bound(error=error, tier="T1", magnitude=magnitude, roundings=n, roundoff=u)


def relative_bound(reference_error: Tensor, bound: Bound) -> Bound:
    """Return T2: twice the largest error of the reference, over the floor that T1 gives.

    Args:
        reference_error: `|reference - truth|`, of one output or one gradient.
        bound: Of the reference.
    """
    finite = [part[part.isfinite()] for part in (reference_error, bound.error)]
    most = [float(part.max()) if part.numel() else 0.0 for part in finite]
    error = torch.full_like(bound.error, 2 * most[0] + most[1])
    return Bound(error=error.masked_fill(bound.error.isinf(), math.inf), tier="T2")


def effective_roundoff(difference: Tensor, bound: Bound) -> tuple[float, float]:
    """Return the largest error over its bound, and over `n Y`: the unit roundoff that it shows."""
    assert bound.magnitude is not None
    over = (difference / bound.error).nan_to_num(0.0, 0.0)
    shown = (difference / (bound.roundings * bound.magnitude)).nan_to_num(0.0, 0.0)
    return float(over.max()), float(shown.max())


def is_exact(
    variant: Variant, case: ConvCase, tensors: Mapping[str, Value], truth: Tensor,
    magnitude: Tensor, *, widest: Tensor | None = None, tf32: bool = False,
) -> bool:  # fmt: skip
    """Return whether no order of summation rounds, nor storing any result on the way.

    Args:
        variant, case, tensors, truth, magnitude, widest, tf32: As in `error_bound`.
    """
    if not case.is_exact or not _fits(variant, case, tensors, truth, magnitude, widest, tf32):
        return False
    return variant.exact is None or variant.exact(case, tensors)


def _fits(
    variant: Variant, case: ConvCase, tensors: Mapping[str, Value], truth: Tensor,
    magnitude: Tensor, widest: Tensor | None, tf32: bool,
) -> bool:  # fmt: skip
    """Return whether the dtype holds every sum of these magnitudes, and the value itself."""
    whole = magnitude if widest is None else torch.maximum(magnitude, widest)
    if whole.numel() == 0:
        return True
    digits = DIGITS["float32" if case.dtype in LOW_PRECISION else case.dtype] - FRACTION_DIGITS
    digits = min(digits, TF32_DIGITS) if tf32 else digits
    if case.dtype not in LOW_PRECISION:
        return float(whole.max()) < 2.0**digits
    grain = 0.25 ** sum(map(_holds_fractions, _masks(variant, tensors)))
    held = torch.equal(truth.to(getattr(torch, case.dtype)).to(truth.dtype), truth)
    return held and float(whole.max()) < 2.0 ** DIGITS[case.dtype] * grain


def _masks(variant: Variant, tensors: Mapping[str, Value]) -> list[Tensor]:
    found = (tensors.get(arg.name) for arg in variant.args if arg.role is Role.MASK)
    return [mask for mask in found if isinstance(mask, Tensor)]


def _holds_fractions(mask: Tensor) -> bool:
    return mask.is_floating_point() and not torch.equal(mask, mask.round())
