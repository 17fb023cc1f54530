"""How much of a filter every input channel carries."""

import torch
from torch import Tensor


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
