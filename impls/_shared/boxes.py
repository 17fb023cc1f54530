"""Sums over windows, one axis at a time."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared.convolution import convolve, pad_by_mode

# Up to here the library convolves an image by a product of matrices, which starts at once.
SMALL_IMAGE = 20480
SHORT_SIDE = 3
_IS_AVAILABLE = torch.backends.mkldnn.is_available()


def box_filter(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], padding_mode: str = "zeros", eager: bool = False,
) -> Tensor:  # fmt: skip
    """Return `y[n,c,q] = sum_u x[n,c,q*s - p + u*d]`: a convolution with ones, separably.

    `sum K` additions per entry instead of `prod K`. One image is convolved where it is small or the
    library has a kernel for channels apart: one operation where the sums are several.

    Args:
        x: Shape `(N, C, *S)`.
        kernel_size, stride, padding, dilation: One entry per spatial axis.
        padding_mode: How `x` is continued.
        eager: Whether nothing records what is computed.
    """
    if padding_mode != "zeros" and any(padding):
        x, padding = pad_by_mode(x, padding, padding_mode), (0,) * len(padding)
    n, channels, *size = x.shape
    places = tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation)
    if eager and n == 1 and channels > 1 and has_depthwise(x.dtype, size):
        ones, *_ = box_of(channels, x.dtype, *places)
        return convolve(x.contiguous(), ones, stride=stride, padding=padding, dilation=dilation,
                        groups=channels)  # fmt: skip
    if eager and n == channels == 1 and is_small(size):
        for factor in factors_of(x.dtype, *places):
            x = torch.convolution(x, *factor)
        return x
    return box_sums(x, *places)


def has_depthwise(dtype: torch.dtype, size: Sequence[int]) -> bool:
    """Return whether the library convolves channels of `size` apart sooner than it adds them up."""
    return dtype == torch.float32 and len(size) <= 2 and _IS_AVAILABLE and prod(size) > 0


def is_small(size: Sequence[int]) -> bool:
    """Return whether an image of one channel is convolved sooner than added up."""
    return len(size) <= 2 and prod(size) <= SMALL_IMAGE


def box_sums(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    """Return the sums over windows by additions alone."""
    x = pad_by_mode(x, padding, "zeros") if any(padding) else x
    # axes of one tap come first: what their stride leaves out is never added up, nor kept alive
    axes = sorted(enumerate(zip(kernel_size, stride, dilation, strict=True), start=2),
                  key=lambda entry: entry[1][0] > 1)  # fmt: skip
    for axis, (k, s, d) in axes:
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
def factors_of(dtype: torch.dtype, *geometry: Shape) -> list[tuple[Any, ...]]:
    """Return the same for one channel, as `box_of` does."""
    return [box_of(1, dtype, *map(tuple, places)) for places in box_factors(*geometry)]


@lru_cache(maxsize=1024)
def box_of(
    channels: int, dtype: torch.dtype, kernel_size: Shape, stride: Shape, padding: Shape,
    dilation: Shape,
) -> tuple[Any, ...]:  # fmt: skip
    """Return what the library takes after a signal to sum its channels apart over windows.

    The ones are on the CPU; nothing writes to them.
    """
    with torch.inference_mode(False):
        ones = torch.ones((channels, 1, *kernel_size), dtype=dtype, device="cpu")
    return ones, None, stride, padding, dilation, False, (0,) * len(kernel_size), channels
