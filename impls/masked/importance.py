"""How much of a filter every input channel carries."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

PIECE = 2**17
SMALLEST = 2.0**-60


def importance(weight: Tensor) -> Tensor:
    """Return `A[o,c] = sum_u |w[o,c,u]|` times a power of two per filter; 1 for a zero filter.

    Shape `(C_out, C_in/groups)`, float32 at least. Only ratios over `c` have a meaning; the factor
    brings the largest tap of a filter near 1, so that no sum overflows, and rounds nothing.
    """
    wide = weight if weight.dtype == torch.float64 else weight.float()
    taps = wide.flatten(2)
    peak = torch.maximum(taps.amax((1, 2)), -taps.amin((1, 2)))
    if torch.compiler.is_exporting():  # ONNX has no frexp
        exponent = peak.clamp(2.0**-125, 2.0**125).log2().floor()
        scale = torch.exp2(-exponent)
    else:
        exponent = torch.frexp(peak).exponent.clamp(-125, 125)  # both powers are normal in float32
        scale = torch.ldexp(torch.ones_like(peak), -exponent)
    # a product with ones sums short rows faster than a reduction does
    sums = torch.matmul((taps * scale.view(-1, 1, 1)).abs(), taps.new_ones(taps.shape[2]))
    return torch.where(sums.sum(1, keepdim=True) == 0, 1.0, sums)


def summed_importance(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return `importance(weight)` and its sums over `c`."""
    sums = importance(weight)
    return sums, sums.sum(1, keepdim=True)


def quick_importance(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return `A[o,c]` of an eager contiguous `weight` as it is, and its sums over `c`.

    Where a filter's sum is not well inside the range of float32, it is scaled by `importance`.
    """
    wide = weight if weight.dtype == torch.float64 else weight.float()
    taps = weight.shape[2:].numel()
    rows = wide.view(-1, taps)
    if taps == 1:
        sums = rows.abs()
    elif rows.numel() <= PIECE:
        sums = torch.mv(rows.abs(), _ones(taps, wide.dtype))
    else:  # piece by piece, so that the absolute values stay near the processor
        ones, count = _ones(taps, wide.dtype), max(1, PIECE // taps)
        sums = torch.cat([torch.mv(part.abs(), ones) for part in rows.split(count)])
    sums = sums.view(weight.shape[:2])
    total = sums.sum(1, keepdim=True)
    least, most = total.aminmax()
    if least.item() < SMALLEST or not most.item() < 1 / SMALLEST:
        return summed_importance(weight)
    return sums, total


@lru_cache(maxsize=64)
def _ones(taps: int, dtype: torch.dtype) -> Any:
    """Return so many ones on the CPU; nothing writes to them."""
    with torch.inference_mode(False):  # they are shared by all modes
        return torch.ones(taps, dtype=dtype, device="cpu")
