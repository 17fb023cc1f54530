"""The image continued first, then convolved: as the methods are published."""

from typing import Any

from torch import Tensor

from impls._shared.convolution import convolve
from impls.boundary.oracle import definition


def padded_then_convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, noise: Tensor | None = None,
    *, method: str = "zeros", **geometry: Any,
) -> Tensor:  # fmt: skip
    """Return the definition with the library's convolution as its sums.

    `explicit` convolves the whole image with every kernel, then selects.
    """
    return definition(x, weight, bias, noise, method=method, convolution=convolve, **geometry)
