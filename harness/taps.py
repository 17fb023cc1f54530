"""The one n-dimensional loop: every oracle reads its input through these views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor


def pad(x: Tensor, padding: Sequence[int | tuple[int, int]], mode: str = "zeros") -> Tensor:
    """Extend the last `len(padding)` axes of `x` by `padding` samples before and behind.

    Written with index maps instead of `torch.nn.functional.pad`, so that the two can be compared.

    Args:
        x: Any shape `(..., *S)`, any dtype.
        padding: Per axis a count for both sides, or `(before, behind)`.
        mode: `zeros`, `reflect` (edge not repeated), `replicate` or `circular`.

    Raises:
        ValueError: `reflect` needs more samples than padding, `circular` at least as many.
    """
    for axis, amount in enumerate(padding, start=x.dim() - len(padding)):
        before, behind = (amount, amount) if isinstance(amount, int) else amount
        if before or behind:
            x = _pad_axis(x, axis, before, behind, mode)
    return x


def _pad_axis(x: Tensor, axis: int, before: int, behind: int, mode: str) -> Tensor:
    size = x.shape[axis]
    if mode == "zeros":
        shape = list(x.shape)
        edges = []
        for count in (before, behind):
            shape[axis] = count
            edges.append(x.new_zeros(shape))
        return torch.cat([edges[0], x, edges[1]], dim=axis)
    limit = {"reflect": size - 1, "circular": size, "replicate": max(before, behind)}[mode]
    if max(before, behind) > limit or size == 0:
        raise ValueError(
            f"padding={max(before, behind)} needs at most {limit} for padding_mode={mode!r} "
            f"on an axis of size {size}"
        )
    index = torch.arange(-before, size + behind, device=x.device)
    if mode == "circular":
        index = index % size
    elif mode == "replicate":
        index = index.clamp(0, size - 1)
    else:
        index = (size - 1) - ((size - 1) - index.abs()).abs()
    return x.index_select(axis, index)


def taps(
    x: Tensor,
    kernel_size: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    padding_mode: str = "zeros",
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield `(u, window)` for every tap `u`: `window[..., q] = x[..., q*s - p + u*d]`.

    `window` is a strided view of the padded `x`, shape `(..., *out_size)`; taps come in raster
    order. The rank is that of `kernel_size`.

    >>> x = torch.arange(4.0)
    >>> geometry = dict(stride=(1,), padding=(0,), dilation=(2,))
    >>> [(u, window.tolist()) for u, window in taps(x, (2,), **geometry)]
    [((0,), [0.0, 1.0]), ((1,), [2.0, 3.0])]
    """
    x = pad(x, padding, padding_mode)
    axes = list(
        zip(x.shape[x.dim() - len(kernel_size) :], kernel_size, stride, dilation, strict=True)
    )
    out_size = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in axes]
    for tap in product(*(range(k) for k in kernel_size)):
        window: tuple[Any, ...] = tuple(
            slice(u * d, u * d + (count - 1) * s + 1, s)
            for u, count, (_, _, s, d) in zip(tap, out_size, axes, strict=True)
        )
        yield tap, x[(..., *window)]


def apply_mask(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x * mask`, and 0 wherever `mask = 0`, whatever stands in `x` there (NaN, Inf).

    Args:
        x: Any shape.
        mask: Broadcastable to `x`; bool, integer (0 = absent) or real in [0, 1].
    """
    if mask.is_floating_point():
        return torch.where(mask > 0, x, x.new_zeros(())) * mask.to(x.dtype)
    return torch.where(mask != 0, x, x.new_zeros(()))


def correlate(
    x: Tensor,
    weight: Tensor,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str = "zeros",
) -> Tensor:
    """Return `y[n,o,q] = sum_{c,u} w[o,c,u] x[n,c,q*s - p + u*d]`: the sum in every definition.

    Args:
        x: Signal, shape `(N, C_in, *S)`.
        weight: Taps, shape `(C_out, C_in/groups, *kernel_size)`.
        stride, padding, dilation: One entry per spatial axis.
        groups: Channel groups.
        padding_mode: How `x` is continued.
    """
    x, rank = pad(x, padding, padding_mode), len(stride)
    # one view in place of one for every tap, in the same order
    for axis, (k, s, d) in enumerate(zip(weight.shape[2:], stride, dilation, strict=True), start=2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    batch, out_size, products = x.shape[0], x.shape[2 : 2 + rank], prod(weight.shape[1:])
    seen = x.permute(0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
    # channels and taps are summed over alike: one product of matrices
    y = weight.reshape(groups, -1, products) @ seen.reshape(batch, groups, products, prod(out_size))
    return y.view(batch, weight.shape[0], *out_size)


def per_channel(bias: Tensor, like: Tensor) -> Tensor:
    """Return `bias (C,)` shaped to broadcast over `like (N, C, *S)`."""
    return bias.view(-1, *(1 for _ in like.shape[2:]))
