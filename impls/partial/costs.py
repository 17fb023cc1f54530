"""What the implementations of partial convolution cost."""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from harness.api import ConvCase, Cost, Value
from impls._shared import native
from impls._shared.boxes import box_factors, has_depthwise, is_small
from impls._shared.costs import (
    is_padded_apart,
    item_size,
    mask_shape,
    saved_by_product,
    saved_by_selection,
    saved_signal,
)
from impls.partial.box_filter import is_summed_by_product
from impls.partial.oracle import coverage


def of_convolved_mask(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of two convolutions, of the signal and of the mask."""
    batch, channels = mask_shape(tensors["mask"])
    several = channels > 1
    filters = case.c_out if several and case.groups > 1 else 1
    window = case.taps * channels // (case.groups if several else 1)
    counted = batch * filters * prod(case.out_size)
    return Cost(
        flops=2 * (case.macs + counted * window),
        saved_bytes=_saved(case, tensors, saved_by_selection(tensors["mask"]), counted),
    )


def of_box_filter(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of a convolution and of additions, or of products with ones."""
    mask, flops = tensors["mask"], 2 * case.macs
    if mask is None and (is_padded_apart(case) or not any(case.padding)):
        return Cost(flops=flops, saved_bytes=saved_signal(case, made=False))
    ring = case.padding if is_padded_apart(case) else (0,) * case.spatial_dims
    size = [s + 2 * p for s, p in zip(case.in_size, ring, strict=True)]
    batch, channels = mask_shape(mask)
    groups = case.groups if channels > 1 else 1
    if isinstance(mask, Tensor):
        flops += _of_coverage(case, mask, groups, size)
    kept = batch * groups * prod(case.out_size) * item_size(case)
    if case.bias and not (groups == 1 and _is_whole(case, tensors)):
        kept *= 2  # the updated mask, where it is not 1 everywhere
    signal = saved_signal(case, made=mask is not None) + saved_by_product(case, mask)
    return Cost(flops=flops, saved_bytes=signal + kept)


def of_native(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of a convolution beside passes; the share of every window is kept."""
    x, weight, bias, mask = (tensors[name] for name in ("x", "weight", "bias", "mask"))
    mode = case.option("padding_mode", "zeros")
    read = None if mask is None else mask.to(x.dtype)
    if read is None or not native.takes_zero_padded(case.padding, mode, x, weight, bias, read):
        return of_box_filter(case, tensors)
    batch, channels = mask_shape(mask)
    shares = batch * (case.groups if channels > 1 else 1) * prod(case.out_size)
    kept = shares * item_size(case) * (1 + case.bias) + saved_by_product(case, mask)
    copied = native.copies(x, weight, bias, mask)
    return Cost(flops=native.flops(case), saved_bytes=None if copied else kept)


def _is_whole(case: ConvCase, tensors: Mapping[str, Value]) -> bool:
    """Whether something is present in every window, to the amount of one entry."""
    names = ("stride", "padding", "dilation", "groups")
    geometry = {name: getattr(case, name) for name in names}
    mode = case.option("padding_mode", "zeros")
    given = (tensors[name] for name in ("x", "weight", "mask"))
    covered, _ = coverage(*given, padding_mode=mode, **geometry)
    return covered.numel() > 0 and bool((covered >= 1).all())


def _of_coverage(case: ConvCase, mask: Tensor, groups: int, size: list[int]) -> int:
    """Return the operations of products and convolutions with ones that sum a mask of `size`."""
    wide = torch.float64 if case.dtype == "float64" else torch.float32
    kept = case.option("mask_dtype", "same") == "same" and case.dtype in ("float32", "float64")
    by_product = groups == 1 and kept and is_summed_by_product(mask.shape)
    flops = 2 * mask.numel() if by_product else 0
    if len(mask) == 1 and groups > 1 and has_depthwise(wide, size):
        flops += 2 * groups * prod(case.out_size) * case.taps
    elif len(mask) == groups == 1 and is_small(size):
        flops += _of_box(case, size)
    return flops


def _of_box(case: ConvCase, size: list[int]) -> int:
    """Return the operations of convolutions of one channel of `size` with ones."""
    flops, padding = 0, (0,) * len(size) if is_padded_apart(case) else case.padding
    for places in box_factors(case.kernel_size, case.stride, padding, case.dilation):
        window = places[0]
        axes = zip(size, *places, strict=True)
        size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
        flops += 2 * prod(size) * prod(window)
    return flops


def _saved(case: ConvCase, tensors: Mapping[str, Value], kept: int, counted: int) -> int:
    """Return what is kept: the masked signal, the ratio, and with a bias the updated mask."""
    signal = saved_signal(case, made=tensors["mask"] is not None)
    return signal + kept + counted * item_size(case) * (1 + case.bias)
