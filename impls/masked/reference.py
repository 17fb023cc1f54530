"""Masked convolution as published: a 1x1 convolution of the whole mask, sampled at the centres."""

from typing import Any

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared.convolution import convolve
from impls._shared.masks import present
from impls.masked.importance import importance
from impls.masked.oracle import MaskedOutput, at_centres


def pointwise_mask(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    groups: int, padding_mode: str = "zeros", apply_mask: bool = False, **geometry: Any,
) -> MaskedOutput:  # fmt: skip
    """Return `((conv(x, w) + b) * m', m')` with `m'` by a 1x1 convolution at full resolution.

    Source: masked_torch README, "1x1 convolution weights for the mask".
    """
    signal = present(x, mask.detach()) if apply_mask and mask is not None else x
    y = convolve(signal, weight, bias, groups=groups, padding_mode=padding_mode, **geometry)
    if mask is None:
        return MaskedOutput(y, None)
    with torch.no_grad():
        updated = _share(weight.detach(), mask.detach(), groups, geometry).to(x.dtype)
    return MaskedOutput(y * updated, updated)


def _share(weight: Tensor, mask: Tensor, groups: int, geometry: dict[str, Shape]) -> Tensor:
    weights = importance(weight)
    if mask.shape[1] == 1:  # one filter over one channel
        weights, groups = torch.ones_like(weights[:1, :1]), 1
    pointwise = weights.view(*weights.shape, *(1 for _ in mask.shape[2:]))
    ones = (1,) * (mask.dim() - 2)
    zeros = (0,) * len(ones)
    share = convolve(
        mask.to(weights.dtype), pointwise, stride=ones, padding=zeros, dilation=ones, groups=groups
    )
    share = share / pointwise.sum(1)
    return at_centres(share.clamp(0, 1), weight.shape[2:], **geometry)
