"""What the implementations of the boundary methods cost."""

from collections.abc import Mapping
from math import prod

from harness.api import ConvCase, Cost, Value


def of_padded_then_convolved(case: ConvCase, _: Mapping[str, Value]) -> Cost:
    """Return the cost of one convolution; `explicit` does one per kernel, `partial` counts too."""
    method = case.option("method", "zeros")
    if method in ("extrapolate", "diff") and max(case.kernel_size) > 3:
        return Cost()  # the image is continued by matrix products
    macs = case.macs * (case.taps if method == "explicit" else 1)
    if method == "partial":
        macs += prod(case.out_size) * case.taps
    return Cost(flops=2 * macs)
