"""Partial convolution as published: the mask is convolved with ones, filter by filter."""

from typing import Any

import torch
from torch import Tensor

from harness.api import per_channel
from impls._shared.convolution import convolve
from impls._shared.masks import present
from impls.partial.oracle import PartialOutput


def convolved_mask(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    groups: int, **geometry: Any,
) -> PartialOutput:  # fmt: skip
    """Return `((conv(x*m, w) * win/coverage + b) * m', m')` with coverage by a full convolution.

    Source: NVIDIA/partialconv, models/partialconv2d.py, without its epsilon.
    """
    signal = x if mask is None else present(x, mask.detach())
    y = convolve(signal, weight, groups=groups, **geometry)
    with torch.no_grad():
        wide = torch.promote_types(x.dtype, torch.float32)
        ones = x.new_ones((1, 1, *x.shape[2:]), dtype=wide)
        if mask is not None:
            ones = mask.detach().to(wide)
        several = ones.shape[1] > 1
        filters = weight.shape[0] if several and groups > 1 else 1
        channels = ones.shape[1] // (groups if several else 1)
        box = ones.new_ones((filters, channels, *weight.shape[2:]))
        coverage = convolve(ones, box, groups=groups if several else 1, **geometry)
        updated = coverage.clamp(0, 1)
        ratio = box[0].numel() / coverage * updated
        ratio, updated = torch.where(coverage > 0, ratio, 0.0).to(x.dtype), updated.to(x.dtype)
    y = y * ratio
    if bias is not None:
        y = y + per_channel(bias, y) * updated
    return PartialOutput(y, updated)
