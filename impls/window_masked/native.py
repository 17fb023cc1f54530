"""The convolution with a mask for every window, gathered and masked in one pass in C++."""

from collections.abc import Mapping

from torch import Tensor

from harness.api import ConvCase, Cost, Shape, Value
from impls._shared import native
from impls._shared.window_blocks import multiply_windows
from impls.window_masked.output_blocks import by_output_blocks


def masked_in_blocks(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int,
) -> Tensor:  # fmt: skip
    """Return `y[q] = w @ (x[window(q)] * m[q]) + b`, each block of outputs one product.

    What a block reads is masked while it is gathered, into memory that a core's own cache holds.
    """
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    read = mask.to(x.dtype)
    if mask.requires_grad or not native.takes(x, weight, bias, read):
        return by_output_blocks(x, weight, bias, mask, **geometry)
    kept = range(weight.shape[2:].numel())
    return multiply_windows(x, weight, bias, read, kept, **geometry)


def of_native(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost: arguments are kept alone, a mask in the dtype of the signal, too."""
    given = [tensors[name] for name in ("x", "weight", "bias", "mask")]
    bare = case.option("mask_dtype", "same") == "same" and not native.copies(*given)
    return Cost(saved_bytes=0 if bare else None)
