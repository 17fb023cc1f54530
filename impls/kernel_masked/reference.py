"""The convolution with masked taps as the source does it: mask the weight, then convolve."""

from typing import Any

import torch
from torch import Tensor

from harness.api import per_channel
from impls._shared.convolution import convolve
from impls._shared.masks import present


def multiplied_weight(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_mask: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    bias_where: str = "all",
    **geometry: Any,
) -> Tensor:
    """Return `conv(x*m, w*k) + bias term`: the library's dense convolution of a masked weight.

    Source: the forum thread "Masking out locations in convolutional kernels", with a selection in
    place of its product, so that nothing stored under the mask can act.
    """
    kept = weight if kernel_mask is None else present(weight, kernel_mask)
    signal = x if mask is None else present(x, mask)
    if bias is None or bias_where == "all":
        return convolve(signal, kept, bias, **geometry)
    y = convolve(signal, kept, **geometry)
    with torch.no_grad():
        seen = (x != 0) if mask is None else (mask > 0).expand_as(x)
        ones = weight.new_ones(()) if kernel_mask is None else (kernel_mask > 0).to(weight.dtype)
        support = convolve(seen.to(x.dtype), ones.expand_as(weight), **geometry) > 0.5  # a count
    return y + torch.where(support, per_channel(bias, y), 0.0)
