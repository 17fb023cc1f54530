"""What the implementations of masked convolution cost."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from harness.api import ConvCase, Cost, Value
from impls._shared import native
from impls._shared.costs import (
    item_size,
    mask_shape,
    of_library,
    saved_by_product,
    saved_by_selection,
    saved_signal,
)
from impls.masked.native import FEW_MIXED


def of_pointwise_mask(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of a convolution and a pointwise one of the mask, at full resolution."""
    kept = saved_by_selection(tensors["mask"])
    return _with_mask(case, tensors, positions=prod(case.in_size), shared=1, kept=kept)


def of_sampled_centres(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of a convolution, and of mixing a mask's channels where it has several."""
    kept = saved_by_product(case, tensors["mask"])
    positions = 0 if case.groups == case.c_in else prod(case.out_size)
    return _with_mask(case, tensors, positions=positions, shared=0, kept=kept)


def of_native(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of a convolution, of mixing many channels by products of matrices, and of m'."""
    x, weight, bias, mask = (tensors[name] for name in ("x", "weight", "bias", "mask"))
    applied = case.option("apply_mask", "False") == "True"
    read = None if mask is None or applied else mask.to(x.dtype)
    mode = case.option("padding_mode", "zeros")
    if read is None or not native.takes_zero_padded(case.padding, mode, x, weight, bias, read):
        return of_sampled_centres(case, tensors)
    mixed = prod(case.out_size) if case.c_in // case.groups > FEW_MIXED else 0
    cost = _with_mask(case, tensors, positions=mixed, shared=0, kept=0)
    cost = replace(cost, flops=cost.flops if native.flops(case) else None)
    return replace(cost, saved_bytes=None) if native.copies(x, weight, bias, mask) else cost


def _with_mask(
    case: ConvCase, tensors: Mapping[str, Value], *, positions: int, shared: int, kept: int
) -> Cost:
    """Return the cost with a mask that is mixed at `positions`.

    Args:
        case, tensors: The problem.
        positions: Where the mask's channels are mixed.
        shared: Products per position for a mask of one channel.
        kept: What applying the mask to the signal keeps.
    """
    if tensors["mask"] is None:
        return of_library(case, tensors)
    batch, channels = mask_shape(tensors["mask"])
    mixed = case.c_out * channels // case.groups if channels > 1 else shared
    applied = case.option("apply_mask", "False") == "True"
    updated = batch * (case.c_out if channels > 1 else 1) * prod(case.out_size)
    return Cost(
        flops=2 * (case.macs + batch * positions * mixed),
        saved_bytes=saved_signal(case, made=applied) + applied * kept + updated * item_size(case),
    )
