"""Partial convolution with the coverage as a box filter of the mask summed over channels."""

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from harness.api import Shape
from impls._shared.boxes import box_filter, box_sums, factors_of, is_small
from impls._shared.eager import is_readable
from impls._shared.masks import (
    convolve_eager,
    convolve_present,
    convolve_quickly,
    is_bare,
    is_few,
    present,
)
from impls.partial.oracle import PartialOutput

# A mask of so many entries in so many channels is summed sooner by a product with ones.
MANY_ENTRIES, MANY_CHANNELS = 2**19, 32
# What a geometry alone decides is kept up to so many entries: at most 16 MiB in all.
SMALL_IMAGE, GEOMETRIES = 2**16, 32
WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}

Share = tuple[Tensor, Tensor, bool]
"""`r * m'`, `m'`, and whether `m'` is known to be 1; one channel per group that differs."""


def by_box_filter(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int, padding_mode: str = "zeros",
) -> PartialOutput:  # fmt: skip
    """Return `((conv(x*m, w) * win/coverage + b) * m', m')`; one coverage channel per group.

    The mask is summed over the channels of a group before it is filtered, and the filter runs
    axis by axis: the price of the mask falls from `C_in/G * prod K` to `C_in/G + sum K` additions
    per position. A mask that all channels share, one channel or one expanded without a copy, is
    not summed; where neither mask nor padding hides anything, this is the plain convolution.
    """
    eager = is_readable(x)
    if eager and mask is not None and padding_mode == "zeros" and is_bare(x, weight, mask):
        usual = _usual(
            x.shape, weight.shape, mask.shape, mask.dtype, stride, padding, dilation, groups
        )
        if usual is not None:
            return _of_one_image(x, weight, bias, mask, usual)
    if mask is not None:
        mask = mask.detach()  # a constant, in forward mode as well
        y = convolve_present(x, mask, weight, None, stride, padding, dilation, groups, padding_mode)
        window, dtype = weight.shape[2:], x.dtype
        counted, many = _counted(mask, weight.shape[1], groups, WIDE.get(dtype, dtype), eager)
        coverage = box_filter(counted, window, stride, padding, dilation, padding_mode, eager)
        own = eager and max(window) > 1  # else it may be the mask
        scale, updated, whole = _share(coverage, many * window.numel(), dtype, eager, own)
    else:
        hides = padding_mode == "zeros" and any(padding)
        given, geometry = None if hides else bias, (stride, padding, dilation)
        if eager and not hides:  # the library's, bit by bit
            y = convolve_eager(x, weight, given, *geometry, groups, padding_mode)
        else:
            y = convolve_quickly(x, weight, given, *geometry, groups, padding_mode, eager=eager)
        if not hides:
            return PartialOutput(y, y.new_ones((1, 1, *y.shape[2:])))
        scale, updated, whole = _share_of_padding(x, weight.shape[2:], *geometry, eager)
    column = None if bias is None else bias.view((-1,) + (1,) * len(stride))
    if not eager or scale.shape[1] not in (1, y.shape[1]) or y._is_view():
        y = _applied(y, column, scale, updated)
    else:
        _apply(y, column, scale, updated, whole)
    if groups > 1 and mask is not None and mask.shape[1] > 1:
        updated = of_every_channel(updated, y.shape[1])
    return PartialOutput(y, updated)


def of_every_channel(updated: Tensor, channels: int) -> Tensor:
    """Return `m'` as the next layer takes it."""
    groups = updated.shape[1]
    if groups == 1:
        return updated.expand(-1, channels, *updated.shape[2:])
    return updated if groups == channels else updated.repeat_interleave(channels // groups, 1)


class _Usual(NamedTuple):
    """What the shapes of a usual call come to.

    Args:
        box: What the library takes after the counted mask, one convolution after another.
        places: What it takes after signal, weight and bias.
        win: The sum of ones over a window, on the CPU.
        column: The shape in which the bias is added.
        few: Whether all of the output is summed as soon as one channel of it.
    """

    box: Sequence[tuple[Any, ...]]
    places: tuple[Any, ...]
    win: Any
    column: Shape
    few: bool


@lru_cache(maxsize=1024)
def _usual(
    x_shape: torch.Size, weight_shape: torch.Size, mask_shape: torch.Size, dtype: torch.dtype,
    stride: Shape, padding: Shape, dilation: Shape, groups: int,
) -> _Usual | None:  # fmt: skip
    """Return what a call with one small image for a mask and one group comes to, or None."""
    window, size = weight_shape[2:], x_shape[2:]
    if mask_shape[0] != 1 or groups > 1 or not is_small(size) or not x_shape.numel():
        return None
    if is_summed_by_product(mask_shape):
        return None
    places = tuple(stride), tuple(padding), tuple(dilation)
    axes = zip(size, window, *places, strict=True)
    outputs = prod((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    none = (0,) * len(size)
    return _Usual(
        factors_of(dtype, tuple(window), *places), (*places, False, none, 1),
        _number(window.numel() * mask_shape[1], dtype),
        (weight_shape[0], *(1 for _ in size)), is_few(x_shape[0] * weight_shape[0] * outputs),
    )  # fmt: skip


def _of_one_image(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, usual: _Usual
) -> PartialOutput:
    """Return the same for a usual call, with no more work beside its operations than there must be.

    What the mask alone decides is there before the convolution, so that its sum is still near.
    """
    coverage = mask if mask.shape[1] == 1 else mask.sum(1, True)
    for factor in usual.box:
        coverage = torch.convolution(coverage, *factor)
    whole = coverage.amin().item() >= 1
    scale = torch.div(usual.win, coverage if whole else coverage.clamp(min=1))
    updated = torch.ones_like(coverage) if whole else coverage.clamp(max=1)
    y = torch.convolution(x * mask, weight, None, *usual.places)
    read = y if usual.few else y.select(1, 0)
    if not isfinite((read.detach() if read.requires_grad else read).sum().item()):
        y = torch.convolution(present(x, mask), weight, None, *usual.places)
    column = None if bias is None else bias.view(usual.column)
    _apply(y, column, scale, updated, whole)
    return PartialOutput(y, updated)


def _apply(y: Tensor, column: Tensor | None, scale: Tensor, updated: Tensor, whole: bool) -> None:
    """Write `y * scale + bias * m'` into the memory of `y`, which nobody else has seen."""
    if column is None:
        y.mul_(scale)
    elif not whole:
        y.mul_(scale).addcmul_(column, updated)
    elif y.requires_grad or column.requires_grad or forward_ad._current_level >= 0:
        y.mul_(scale).add_(column)
    else:
        torch.addcmul(column, y, scale, out=y)


def _applied(y: Tensor, column: Tensor | None, scale: Tensor, updated: Tensor) -> Tensor:
    """Return `y * scale + bias * m'`, with one share for all filters or per group of them."""
    groups = scale.shape[1]
    if groups in (1, y.shape[1]):
        y = y * scale
        return y if column is None else torch.addcmul(y, column, updated)
    split = y.unflatten(1, (groups, -1)) * scale.unsqueeze(2)
    if column is not None:
        split = torch.addcmul(split, column.unflatten(0, (groups, -1)), updated.unsqueeze(2))
    return split.flatten(1, 2)


# -- the share -----------------------------------------------------------------------------------


def is_summed_by_product(shape: Sequence[int]) -> bool:
    """Return whether the channels of an eager mask of one group are summed by a product."""
    return shape[1] >= MANY_CHANNELS and prod(shape) >= MANY_ENTRIES


def _counted(
    mask: Tensor, channels: int, groups: int, wide: torch.dtype, eager: bool
) -> tuple[Tensor, int]:
    """Return the mask summed over the channels of every group, and how many were summed."""
    if mask.shape[1] == 1 or channels == 1:
        return (mask if mask.dtype == wide else mask.to(wide)), 1
    if mask.stride(1) == 0:
        return mask[:, :1].to(wide) * channels, channels
    if groups == 1:
        if eager and mask.dtype == wide and is_summed_by_product(mask.shape):
            return _sum_by_product(mask), channels
        return mask.sum(1, keepdim=True, dtype=wide), channels
    return mask.unflatten(1, (groups, channels)).sum(2, dtype=wide), channels


def _sum_by_product(mask: Tensor) -> Tensor:
    counted = torch.matmul(mask.new_ones(1, mask.shape[1]), mask.flatten(2))
    return counted.view(-1, 1, *mask.shape[2:])


def _share(coverage: Tensor, win: int, dtype: torch.dtype, eager: bool, own: bool = False) -> Share:
    """Return `win / coverage * m'`, 0 where nothing is present, and `m'`, in `dtype`.

    Where `coverage` is our `own`, it becomes the first: further memory of the size of the output
    costs more than what is computed in it.
    """
    if eager and coverage.shape[1] == 1 and coverage.numel() and coverage.amin().item() >= 1:
        scale = torch.full_like(coverage, win).div_(coverage)
        if dtype == coverage.dtype:
            return scale, torch.ones_like(coverage), True
        return scale.to(dtype), torch.ones_like(coverage, dtype=dtype), True
    updated = coverage.clamp(max=1)
    # a present share below 1 is weighted by itself: m' / coverage = 1
    if own:
        scale = coverage.clamp_(min=1)
        torch.div(_number(win, scale.dtype), scale, out=scale)
    else:
        scale = torch.full_like(coverage, win).div_(coverage.clamp(min=1))
    if dtype != coverage.dtype:  # else 0 * win does not overflow
        scale, updated = scale * updated.sign(), updated.to(dtype)
    return scale.to(dtype), updated, False


@lru_cache(maxsize=1024)
def _number(value: int, dtype: torch.dtype) -> Any:
    """Return a number on the CPU, which nothing writes to: it is divided in one operation."""
    with torch.inference_mode(False):  # it is shared by all modes
        return torch.tensor(value, dtype=dtype, device="cpu")


def _share_of_padding(
    x: Tensor, window: torch.Size, stride: Shape, padding: Shape, dilation: Shape, eager: bool
) -> Share:
    size = x.shape[2:]
    if not eager or size.numel() > SMALL_IMAGE:
        ones = x.new_ones((1, 1, *size), dtype=WIDE.get(x.dtype, x.dtype))
        coverage = box_sums(ones, window, stride, padding, dilation)
        return _share(coverage, window.numel(), x.dtype, eager)
    places = tuple(stride), tuple(padding), tuple(dilation)
    scale, updated, whole = _known_share(size, window, *places, x.dtype)
    return scale, updated.clone(), whole  # callers may write to a mask


@lru_cache(maxsize=GEOMETRIES)
def _known_share(
    size: torch.Size, window: torch.Size, stride: Shape, padding: Shape, dilation: Shape,
    dtype: torch.dtype,
) -> Share:  # fmt: skip
    """Return the share of windows over an image of `size` on the CPU that leave it."""
    with torch.inference_mode(False), torch.no_grad():
        ones = torch.ones((1, 1, *size), dtype=WIDE.get(dtype, dtype), device="cpu")
        coverage = box_sums(ones, window, stride, padding, dilation)
        return _share(coverage, window.numel(), dtype, True)
