"""Masked convolution that reads the mask at the windows' centres alone."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared.convolution import convolve
from impls._shared.eager import is_readable
from impls._shared.masks import convolve_present, convolve_quickly
from impls.masked.importance import quick_importance, summed_importance
from impls.masked.oracle import MaskedOutput

Places = tuple[int, int, int, int, bool]
"""The centres along an axis: the axis, the first, how many, how far apart, whether all inside."""


def by_sampled_centres(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int, padding_mode: str = "zeros",
    apply_mask: bool = False,
) -> MaskedOutput:  # fmt: skip
    """Return `((conv(x, w) + b) * m', m')`, sampling the mask before it is mixed over channels.

    A mask that all channels share, one channel or one expanded without a copy, is its own `m'`
    wherever it is sampled: the weight is not read, and `m'` stays as cheap for the next layer.
    """
    if mask is None:  # the library's, bit by bit
        return MaskedOutput(convolve(
            x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
            padding_mode=padding_mode,
        ), None)  # fmt: skip
    eager, mask = is_readable(x), mask.detach()
    if apply_mask:
        y = convolve_present(x, mask, weight, bias, stride, padding, dilation, groups, padding_mode)
    else:
        y = convolve_quickly(
            x, weight, bias, stride, padding, dilation, groups, padding_mode, eager=eager
        )
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    updated = share_at_centres(weight.detach(), mask, groups, geometry, x.dtype, eager=eager)
    return MaskedOutput(y.mul_(updated) if eager and not y._is_view() else y * updated, updated)


def share_at_centres(
    weight: Tensor, mask: Tensor, groups: int, geometry: dict[str, Shape], dtype: torch.dtype,
    *, eager: bool = False,
) -> Tensor:  # fmt: skip
    """Return `m'`, shape `(1|N, 1|C_out, *S_out)`; `eager` where nothing records the operations."""
    filters = weight.shape[0]
    find = _known_places if eager else _places  # sizes that are traced are no keys
    places = find(mask.shape[2:], weight.shape[2:], **geometry)
    if mask.shape[1] == 1 or mask.stride(1) == 0:
        # a copy of its own: the caller's mask may be changed later
        one = mask if mask.shape[1] == 1 else mask[:, :1]
        own = _sample(one, places).to(dtype, copy=True)
        return own if mask.shape[1] == 1 else own.expand(-1, filters, *own.shape[2:])
    sampled = _sample(mask, places)
    if weight.shape[1] == 1:  # of one channel, the share is itself
        if filters == groups:
            return sampled.to(dtype, copy=True)
        return sampled.to(dtype).repeat_interleave(filters // groups, 1)
    quick = eager and weight.is_contiguous()
    importances, total = (quick_importance if quick else summed_importance)(weight)
    sampled, size = sampled.to(importances.dtype), sampled.shape[2:]
    if quick:
        share = _mixed(importances, sampled, groups).div_(total).clamp_(max=1)
        return share.view(-1, filters, *size).to(dtype)
    columns = sampled.flatten(2)
    if groups > 1:
        importances = importances.unflatten(0, (groups, -1))
        columns = columns.unflatten(1, (groups, -1))
    share = torch.matmul(importances, columns)
    share = share if groups == 1 else share.flatten(1, 2)
    share = (share / total).clamp(max=1)
    return share.unflatten(2, size).to(dtype)


def _mixed(importances: Tensor, sampled: Tensor, groups: int) -> Tensor:
    """Return `sum_c A m` of an eager mask, shape `(N, C_out, positions)` or without the batch."""
    filters, own = importances.shape
    if groups == 1 == len(sampled):
        return torch.mm(importances, sampled.reshape(own, -1))
    positions = sampled.shape[2:].numel()
    columns = sampled.reshape(-1, groups, own, positions)
    mixed = torch.matmul(importances.view(groups, -1, own), columns)
    return mixed.view(-1, filters, positions)


def _sample(mask: Tensor, places: Iterable[Places]) -> Tensor:
    """Return `m[centre(q)]`: a strided view along every axis whose centres all lie inside."""
    for axis, first, count, stride, inside in places:
        if not inside:
            centres = torch.arange(count, device=mask.device) * stride + first
            mask = mask.index_select(axis, centres.clamp(0, mask.shape[axis] - 1))
            continue
        mask = mask.narrow(axis, first, (count - 1) * stride + 1)
        if stride > 1:
            mask = mask.unfold(axis, 1, stride).squeeze(-1)
    return mask


def _places(
    size: Sequence[int], kernel_size: Sequence[int], stride: Shape, padding: Shape, dilation: Shape
) -> list[Places]:
    """Return where the centres lie along every axis that is not taken as it is."""
    found = []
    axes = zip(size, kernel_size, stride, padding, dilation, strict=True)
    for axis, (n, k, s, p, d) in enumerate(axes, start=2):
        first, count = d * (k - 1) // 2 - p, (n + 2 * p - d * (k - 1) - 1) // s + 1
        inside = first >= 0 and first + (count - 1) * s < n
        if not (inside and s == 1 and count == n):
            found.append((axis, first, count, s, inside))
    return found


_known_places = lru_cache(maxsize=1024)(_places)
