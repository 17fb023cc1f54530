"""The definition of the convolution with masked taps."""

from typing import Any

import torch
from torch import Tensor

from harness.api import apply_mask, correlate, per_channel


def supported(
    x: Tensor, weight: Tensor, kernel_mask: Tensor | None, mask: Tensor | None, **geometry: Any
) -> Tensor:
    """Return whether a kept tap of the window lands on a present value, `(N, C_out, *S_out)`.

    Present means in bounds and, with an input mask, `mask > 0`; without one, `x != 0`.
    """
    present = (x != 0) if mask is None else (mask > 0).expand_as(x)
    kept = torch.ones_like(weight) if kernel_mask is None else (kernel_mask > 0).expand_as(weight)
    return correlate(present.to(x.dtype), kept.to(x.dtype), **geometry) > 0


def kernel_masked(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_mask: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    bias_where: str = "all",
    **geometry: Any,
) -> Tensor:
    """Return `y = conv(x*m, w*k) + b`, with 'support' `b` only where a kept tap sees something.

    No kernel mask keeps every tap; no input mask is a mask of ones.
    """
    kept = weight if kernel_mask is None else apply_mask(weight, kernel_mask)
    y = correlate(x if mask is None else apply_mask(x, mask), kept, **geometry)
    if bias is None:
        return y
    term = per_channel(bias, y)
    if bias_where == "support":
        term = term.where(supported(x, weight, kernel_mask, mask, **geometry), 0.0)
    return y + term
