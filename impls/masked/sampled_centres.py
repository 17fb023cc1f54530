"""Masked convolution that reads the mask at the windows' centres alone."""

from typing import Any

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared.convolution import convolve
from impls._shared.masks import present_by_product
from impls.masked.importance import importance
from impls.masked.oracle import MaskedOutput


def by_sampled_centres(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    groups: int, padding_mode: str = "zeros", apply_mask: bool = False, **geometry: Any,
) -> MaskedOutput:  # fmt: skip
    """Return `((conv(x, w) + b) * m', m')`, sampling the mask before it is mixed over channels.

    A mask that all channels share, one channel or one expanded without a copy, is its own `m'`
    wherever it is sampled: the weight is not read, and `m'` stays as cheap for the next layer.
    """
    signal = present_by_product(x, mask.detach()) if apply_mask and mask is not None else x
    y = convolve(signal, weight, bias, groups=groups, padding_mode=padding_mode, **geometry)
    if mask is None:
        return MaskedOutput(y, None)
    with torch.no_grad():
        updated = _share(weight.detach(), mask.detach(), groups, geometry, x.dtype)
    return MaskedOutput(y * updated, updated)


def _share(
    weight: Tensor, mask: Tensor, groups: int, geometry: dict[str, Shape], dtype: torch.dtype
) -> Tensor:
    """Return `m'`, shape `(1|N, 1|C_out, *S_out)`."""
    kernel_size = weight.shape[2:]
    if mask.shape[1] == 1 or mask.stride(1) == 0:
        # a copy of its own: the caller's mask may be changed later
        own = _sample(mask[:, :1], kernel_size, **geometry).to(dtype, copy=True)
        return own if mask.shape[1] == 1 else own.expand(-1, len(weight), *own.shape[2:])
    weights = importance(weight).unflatten(0, (groups, -1))
    sampled = _sample(mask, kernel_size, **geometry).to(weights.dtype)
    columns = sampled.unflatten(1, (groups, -1)).flatten(3)
    share = torch.matmul(weights, columns) / weights.sum(2, keepdim=True)
    return share.clamp(max=1).flatten(1, 2).unflatten(2, sampled.shape[2:]).to(dtype)


def _sample(
    mask: Tensor, kernel_size: Shape, *, stride: Shape, padding: Shape, dilation: Shape
) -> Tensor:
    """Return `m[centre(q)]`: a strided view along every axis whose centres all lie inside."""
    axes = zip(kernel_size, stride, padding, dilation, strict=True)
    for axis, (k, s, p, d) in enumerate(axes, start=2):
        size = mask.shape[axis]
        first, count = d * (k - 1) // 2 - p, (size + 2 * p - d * (k - 1) - 1) // s + 1
        last = first + (count - 1) * s
        if first >= 0 and last < size:
            inside = mask.narrow(axis, first, last - first + 1)
            mask = inside.unfold(axis, 1, s).squeeze(-1) if s > 1 else inside
        else:
            centres = torch.arange(count, device=mask.device) * s + first
            mask = mask.index_select(axis, centres.clamp(0, size - 1))
    return mask
