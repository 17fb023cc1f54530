"""The definition of the plain convolution."""

from typing import Any

from torch import Tensor

from harness.api import correlate, per_channel


def plain(x: Tensor, weight: Tensor, bias: Tensor | None = None, **geometry: Any) -> Tensor:
    """Return `y = conv(x, w) + b`."""
    y = correlate(x, weight, **geometry)
    return y if bias is None else y + per_channel(bias, y)
