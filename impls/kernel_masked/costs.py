"""What the implementations of the convolution with masked taps cost."""

from collections.abc import Mapping
from math import prod

from torch import Tensor

from harness.api import ConvCase, Cost, Value
from impls._shared.costs import item_size, saved_by_selection, saved_signal


def of_multiplied_weight(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of the dense convolution, and of a second where the bias needs support."""
    masks = [tensors["kernel_mask"], tensors["mask"]]
    weight = case.c_out * case.n_acc * item_size(case)
    support = prod(case.out_shape) * _counts_support(case)
    return Cost(
        flops=2 * case.macs * (1 + _counts_support(case)),
        saved_bytes=saved_signal(case, made=masks[1] is not None)
        + sum(map(saved_by_selection, masks))
        + weight
        + support,
    )


def of_kept_taps(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of the products with the taps that some filter keeps."""
    macs = case.macs * _kept(case, tensors) // case.taps
    return Cost(flops=2 * macs * (1 + _counts_support(case)))


def of_disjoint_lattices(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of convolutions that together have the taps that some filter keeps."""
    if _counts_support(case):
        return Cost()
    return Cost(flops=2 * case.macs * _kept(case, tensors) // case.taps)


def _counts_support(case: ConvCase) -> bool:
    return case.bias and case.option("bias_where", "all") == "support"


def _kept(case: ConvCase, tensors: Mapping[str, Value]) -> int:
    """Return how many taps some filter keeps; one is convolved where none is."""
    kernel_mask = tensors["kernel_mask"]
    assert isinstance(kernel_mask, Tensor)
    return max(int((kernel_mask.reshape(-1, case.taps) > 0).any(0).sum()), 1)
