"""Partial convolution with the coverage as a box filter of the mask summed over channels."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

from harness.api import Shape
from impls._shared.boxes import box_filter, box_sums
from impls._shared.convolution import convolve
from impls._shared.eager import is_readable
from impls._shared.masks import convolve_eager, convolve_present
from impls.partial.oracle import PartialOutput

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
    if mask is not None:
        mask = mask.detach()  # a constant, in forward mode as well
        y = convolve_present(x, mask, weight, None, stride, padding, dilation, groups, padding_mode)
        window, dtype = weight.shape[2:], x.dtype
        counted, many = _counted(mask, weight.shape[1], groups, WIDE.get(dtype, dtype))
        coverage = box_filter(counted, window, stride, padding, dilation, padding_mode, eager)
        scale, updated, whole = _share(coverage, many * window.numel(), dtype, eager)
    else:
        hides = padding_mode == "zeros" and any(padding)
        given, geometry = None if hides else bias, (stride, padding, dilation)
        if eager:
            y = convolve_eager(x, weight, given, *geometry, groups, padding_mode)
        else:
            y = convolve(
                x, weight, given, stride=stride, padding=padding, dilation=dilation,
                groups=groups, padding_mode=padding_mode,
            )  # fmt: skip
        if not hides:
            return PartialOutput(y, y.new_ones((1, 1, *y.shape[2:])))
        scale, updated, whole = _share_of_padding(x, weight.shape[2:], *geometry, eager)
    column = None if bias is None else bias.view((-1,) + (1,) * len(stride))
    if not eager or scale.shape[1] > 1 or y._is_view():
        y = _applied(y, column, scale, updated)
    elif column is None:
        y.mul_(scale)
    elif not whole:
        y.mul_(scale).addcmul_(column, updated)
    elif y.requires_grad or bias.requires_grad or forward_ad._current_level >= 0:
        y.mul_(scale).add_(column)
    else:  # in one pass, in the memory of y, which nobody else has seen
        torch.addcmul(column, y, scale, out=y)
    if groups > 1 and mask is not None and mask.shape[1] > 1:
        updated = _of_every_channel(updated, y.shape[1])
    return PartialOutput(y, updated)


def _applied(y: Tensor, column: Tensor | None, scale: Tensor, updated: Tensor) -> Tensor:
    """Return `y * scale + bias * m'`, with one share for all filters or per group of them."""
    groups = scale.shape[1]
    if groups in (1, y.shape[1]):
        y = y.mul_(scale) if is_readable(y) and not y._is_view() else y * scale
        return y if column is None else torch.addcmul(y, column, updated)
    split = y.unflatten(1, (groups, -1)) * scale.unsqueeze(2)
    if column is not None:
        split = torch.addcmul(split, column.unflatten(0, (groups, -1)), updated.unsqueeze(2))
    return split.flatten(1, 2)


def _of_every_channel(updated: Tensor, channels: int) -> Tensor:
    """Return `m'` as the next layer takes it."""
    groups = updated.shape[1]
    if groups == 1:
        return updated.expand(-1, channels, *updated.shape[2:])
    return updated if groups == channels else updated.repeat_interleave(channels // groups, 1)


# -- the share -----------------------------------------------------------------------------------


def _counted(mask: Tensor, channels: int, groups: int, wide: torch.dtype) -> tuple[Tensor, int]:
    """Return the mask summed over the channels of every group, and how many were summed."""
    if mask.shape[1] == 1 or channels == 1:
        return (mask if mask.dtype == wide else mask.to(wide)), 1
    if mask.stride(1) == 0:
        return mask[:, :1].to(wide) * channels, channels
    if groups == 1:
        return mask.sum(1, keepdim=True, dtype=wide), channels
    return mask.unflatten(1, (groups, channels)).sum(2, dtype=wide), channels


def _share(coverage: Tensor, win: int, dtype: torch.dtype, eager: bool) -> Share:
    """Return `win / coverage * m'`, 0 where nothing is present, and `m'`, in `dtype`."""
    scale = torch.full_like(coverage, win)
    if eager and coverage.numel() and coverage.amin().item() >= 1:
        scale.div_(coverage)
        if dtype == coverage.dtype:
            return scale, torch.ones_like(coverage), True
        return scale.to(dtype), torch.ones_like(coverage, dtype=dtype), True
    # a present share below 1 is weighted by itself: m' / coverage = 1
    scale = scale.div_(coverage.clamp(min=1))
    if dtype != coverage.dtype:  # else 0 * win does not overflow
        scale = scale * coverage.sign()
    return scale.to(dtype), coverage.clamp(max=1).to(dtype), False


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
