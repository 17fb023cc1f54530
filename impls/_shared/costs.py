"""What implementations declare that they cost: sums of the parts that they are made of."""

from collections.abc import Callable, Mapping
from math import prod

from torch import Tensor

from harness.api import ConvCase, Cost, Value
from impls._shared.sources import source_axes

Declared = Callable[[ConvCase, Mapping[str, Value]], Cost]
_ITEM_SIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def item_size(case: ConvCase) -> int:
    """Return the bytes of one entry."""
    return _ITEM_SIZE[case.dtype]


def signal_bytes(case: ConvCase) -> int:
    """Return the bytes of a signal over the whole image."""
    return case.n * case.c_in * prod(case.in_size) * item_size(case)


def is_padded_apart(case: ConvCase) -> bool:
    """Return whether the signal is padded before the library's convolution, which knows zeros."""
    return case.option("padding_mode", "zeros") != "zeros" and any(case.padding)


def padded_bytes(case: ConvCase) -> int:
    """Return the bytes of the signal as the library's convolution takes it."""
    ring = case.padding if is_padded_apart(case) else (0,) * case.spatial_dims
    size = prod(s + 2 * p for s, p in zip(case.in_size, ring, strict=True))
    return case.n * case.c_in * size * item_size(case)


def saved_signal(case: ConvCase, *, made: bool) -> int:
    """Return what is kept of the signal of a convolution for its backward pass.

    Args:
        case: Which.
        made: Whether the signal is memory of its own, not the caller's.
    """
    if not is_padded_apart(case):
        return signal_bytes(case) if made else 0
    # all but circular padding keep what they padded
    own = made and case.option("padding_mode", "zeros") != "circular"
    return padded_bytes(case) + own * signal_bytes(case)


def saved_by_selection(mask: Value) -> int:
    """Return what selecting by a mask keeps: where it is 0, one byte an entry."""
    return mask.numel() if isinstance(mask, Tensor) else 0


def of_library(case: ConvCase, _: Mapping[str, Value]) -> Cost:
    """Return the cost of the library's convolution."""
    return Cost(flops=2 * case.macs, saved_bytes=saved_signal(case, made=False), extra_bytes=0)


def of_selected_signal(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of selecting the signal by `mask`, then the library's convolution."""
    held = saved_by_selection(tensors["mask"])
    return Cost(
        flops=2 * case.macs,
        saved_bytes=saved_signal(case, made=held > 0) + held,
        extra_bytes=2 * signal_bytes(case) + held,
    )


def saved_by_product(case: ConvCase, mask: Value) -> int:
    """Return what multiplying by a mask keeps: a copy where it changes its dtype."""
    is_bool = case.option("mask_dtype", "same") == "bool"
    return mask.numel() * item_size(case) if isinstance(mask, Tensor) and is_bool else 0


def mask_shape(mask: Value) -> tuple[int, int]:
    """Return the batch and the channels of a mask; 1 and 1 without one."""
    return (mask.shape[0], mask.shape[1]) if isinstance(mask, Tensor) else (1, 1)


def of_sources(case: ConvCase, _: Mapping[str, Value]) -> Cost:
    """Return the cost of one convolution per source, over the axes that it spans alone."""
    macs = 0
    for axes, channels in zip(source_axes(case.spatial_dims), case.sources, strict=True):
        positions = prod(case.out_size[a] * case.kernel_size[a] for a in axes)
        macs += case.n * case.c_out * channels // case.groups * positions
    return Cost(flops=2 * macs)


def of_copied_signal(case: ConvCase, _: Mapping[str, Value]) -> Cost:
    """Return the cost of the library's convolution of a signal that is copied together first."""
    return Cost(
        flops=2 * case.macs,
        saved_bytes=saved_signal(case, made=True),
        extra_bytes=signal_bytes(case),
    )


def of_products(case: ConvCase, _: Mapping[str, Value]) -> Cost:
    """Return the cost of matrix products in place of a convolution."""
    return Cost(flops=2 * case.macs)
