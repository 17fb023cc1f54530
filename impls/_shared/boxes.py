"""Sums over windows, one axis at a time."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared.convolution import pad_by_mode

# Up to here the library convolves an image by a product of matrices, which starts at once.
SMALL_IMAGE = 20480
SHORT_SIDE = 3


def box_filter(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], padding_mode: str = "zeros", eager: bool = False,
) -> Tensor:  # fmt: skip
    """Return `y[n,c,q] = sum_u x[n,c,q*s - p + u*d]`: a convolution with ones, separably.

    `sum K` additions per entry instead of `prod K`. One small image is convolved, which is one
    operation where the sums are several.

    Args:
        x: Shape `(N, C, *S)`.
        kernel_size, stride, padding, dilation: One entry per spatial axis.
        padding_mode: How `x` is continued.
        eager: Whether nothing records what is computed.
    """
    if padding_mode != "zeros" and any(padding):
        x, padding = pad_by_mode(x, padding, padding_mode), (0,) * len(padding)
    shape = x.shape
    if eager and shape[0] == 1 == shape[1] and is_small(shape[2:]):
        places = tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation)
        for ones, *rest in _factors(x.dtype, *places):
            x = torch.convolution(x, ones, None, *rest, 1)
        return x
    return box_sums(x, kernel_size, stride, padding, dilation)


def is_small(size: Sequence[int]) -> bool:
    """Return whether an image of one channel is convolved sooner than added up."""
    return len(size) <= 2 and prod(size) <= SMALL_IMAGE


def box_sums(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    """Return the sums over windows by additions alone."""
    x = pad_by_mode(x, padding, "zeros") if any(padding) else x
    for axis, (k, s, d) in enumerate(zip(kernel_size, stride, dilation, strict=True), start=2):
        span = x.shape[axis] - d * (k - 1)
        parts = [x.narrow(axis, u * d, span) for u in range(k)]
        if s > 1:
            parts = [part.unfold(axis, 1, s).squeeze(-1) for part in parts]
        x = parts[0] + parts[1] if k > 1 else parts[0]
        for part in parts[2:]:
            x = x.add_(part)
    return x


def box_factors(
    kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> list[list[list[int]]]:  # fmt: skip
    """Return the convolutions with ones that make up one: an axis at a time for many taps."""
    rank = len(kernel_size)
    along = [range(rank)]
    if min(kernel_size) > SHORT_SIDE:
        along = [range(axis, axis + 1) for axis in range(rank)]
    whole = ((kernel_size, 1), (stride, 1), (padding, 0), (dilation, 1))
    return [
        [[s if axis in axes else usual for axis, s in enumerate(sizes)] for sizes, usual in whole]
        for axes in along
    ]


@lru_cache(maxsize=1024)
def _factors(dtype: torch.dtype, *geometry: Shape) -> list[tuple[Any, ...]]:
    """Return the same as arguments of the library, the ones on the CPU; nothing writes to them."""
    with torch.inference_mode(False):
        return [
            (
                torch.ones((1, 1, *window), dtype=dtype, device="cpu"),
                *places,
                False,
                (0,) * len(window),
            )
            for window, *places in box_factors(*geometry)
        ]
