"""The answer to the question: mask the signal, then convolve."""

from typing import Any

from torch import Tensor

from impls._shared.convolution import convolve
from impls._shared.masks import present


def masked_signal(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, **geometry: Any
) -> Tensor:
    """Return `y = conv(x*m, w) + b`; what is absent is selected away, so NaN stays there.

    Source: the accepted answer to "masked kernel in convolution in pytorch".
    """
    return convolve(present(x, mask), weight, bias, **geometry)
