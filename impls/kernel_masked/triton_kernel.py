"""The convolution with masked taps as an implicit matrix product that skips them on the device."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from harness.api import Shape, per_channel
from impls._shared.convolution import pad_by_mode
from impls._shared.masks import present
from impls._shared.triton_runtime import launches
from impls._shared.triton_taps import convolve_taps
from impls.kernel_masked.reference import multiplied_weight


def skipped_taps(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, kernel_mask: Tensor | None = None,
    mask: Tensor | None = None, *, padding: Shape, bias_where: str = "all",
    padding_mode: str = "zeros", **geometry: Any,
) -> Tensor:  # fmt: skip
    """Return `conv(x*m, w*k)` + bias term; a tap that no filter keeps is neither read nor multiplied.

    Which taps are kept is read where they are used: no value travels to the host.
    """
    if kernel_mask is None or not launches(x, weight, bias, kernel_mask, mask):
        return multiplied_weight(
            x, weight, bias, kernel_mask, mask, padding=padding, bias_where=bias_where,
            padding_mode=padding_mode, **geometry,
        )  # fmt: skip
    taps = prod(weight.shape[2:])
    keep = (kernel_mask.detach().reshape(-1, taps) > 0).any(0).to(torch.int8)
    own = padding_mode != "zeros" and any(padding)
    common = {"keep": keep, "padding": [0] * len(padding) if own else padding, **geometry}

    def padded(signal: Tensor) -> Tensor:
        return pad_by_mode(signal, padding, padding_mode) if own else signal

    signal = x if mask is None else present(x, mask)
    y = convolve_taps(padded(signal), present(weight, kernel_mask), **common)
    if bias is None:
        return y
    term = per_channel(bias, y)
    if bias_where == "support":
        with torch.no_grad():
            seen = (x != 0) if mask is None else (mask > 0).expand_as(x)
            kept = (kernel_mask > 0).expand_as(weight).to(x.dtype)
            support = convolve_taps(padded(seen.to(x.dtype)), kept, **common) > 0.5  # a count
        term = torch.where(support, term, 0.0)
    return y + term
