"""The definition of the convolution of a masked signal."""

from typing import Any

from torch import Tensor

from harness.api import apply_mask, correlate, per_channel


def input_masked(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, **geometry: Any
) -> Tensor:
    """Return `y = conv(x*m, w) + b`, where `x*m` is 0 wherever `m` is, whatever stands in `x`."""
    y = correlate(apply_mask(x, mask), weight, **geometry)
    return y if bias is None else y + per_channel(bias, y)
