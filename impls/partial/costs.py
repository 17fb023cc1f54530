"""What the implementations of partial convolution cost."""

from collections.abc import Mapping
from math import prod

from harness.api import ConvCase, Cost, Value
from impls._shared.costs import (
    item_size,
    mask_shape,
    saved_by_product,
    saved_by_selection,
    saved_signal,
)


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
    """Return the cost of a convolution and of additions."""
    batch, channels = mask_shape(tensors["mask"])
    counted = batch * (case.groups if channels > 1 else 1) * prod(case.out_size)
    kept = saved_by_product(case, tensors["mask"])
    return Cost(flops=2 * case.macs, saved_bytes=_saved(case, tensors, kept, counted))


def _saved(case: ConvCase, tensors: Mapping[str, Value], kept: int, counted: int) -> int:
    """Return what is kept: the masked signal, the ratio, and with a bias the updated mask."""
    signal = saved_signal(case, made=tensors["mask"] is not None)
    return signal + kept + counted * item_size(case) * (1 + case.bias)
