"""Masked convolution with the bias and the mask applied in one pass over the output."""

from typing import Any

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared.convolution import convolve
from impls._shared.masks import present
from impls._shared.triton_epilogue import rescale
from impls._shared.triton_runtime import launches
from impls.masked.oracle import MaskedOutput
from impls.masked.sampled_centres import by_sampled_centres, share_at_centres


def fused_epilogue(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    groups: int, padding_mode: str = "zeros", apply_mask: bool = False, **geometry: Shape,
) -> MaskedOutput:  # fmt: skip
    """Return `((conv(x, w) + b) * m', m')`: the sum and the product in one pass."""
    options: dict[str, Any] = {"groups": groups, "padding_mode": padding_mode, **geometry}
    if mask is None or not launches(x, weight, bias, mask):
        return by_sampled_centres(x, weight, bias, mask, apply_mask=apply_mask, **options)
    signal = present(x, mask.detach()) if apply_mask else x
    y = convolve(signal, weight, **options)
    with torch.no_grad():
        updated = share_at_centres(weight.detach(), mask.detach(), groups, geometry, x.dtype)
    return MaskedOutput(rescale(y, bias, updated, updated), updated)
