"""What the implementations of the convolution of a masked signal cost."""

from collections.abc import Mapping

from harness.api import ConvCase, Cost, Value
from impls._shared.costs import saved_by_product, saved_signal


def of_masked_product(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of a product with the mask, then the library's convolution."""
    kept = saved_signal(case, made=True) + saved_by_product(case, tensors["mask"])
    return Cost(flops=2 * case.macs, saved_bytes=kept)
