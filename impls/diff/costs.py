"""What the implementations of the convolution without padding cost."""

from collections.abc import Mapping

from harness.api import ConvCase, Cost, Value
from impls._shared import native


def of_extended_once(case: ConvCase, _: Mapping[str, Value]) -> Cost:
    """Return the cost of one convolution, every output computed once.

    Wider kernels, other degrees than 2 and small images are continued by matrix products, which
    are not declared.
    """
    axes = zip(case.in_size, case.kernel_size, case.dilation, strict=True)
    summed = all(k == 1 or (k == 3 and size >= 5 * d) for size, k, d in axes)
    by_default = case.option("degree", "None") == "None"
    return Cost(flops=2 * case.macs if summed and by_default else None)


def of_native(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of one convolution that keeps its arguments alone."""
    given = [tensors[name] for name in ("x", "weight", "bias")]
    alike = case.option("edge_kernel", "no") == "no"
    alike = alike and case.option("keep_img_grad_at_invalid", "True") == "True"
    if not alike or case.taps == 1 or not native.takes(*given):
        return of_extended_once(case, tensors)
    return Cost(flops=native.flops(case), saved_bytes=None if native.copies(*given) else 0)
