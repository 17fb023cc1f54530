"""The convolution of a masked signal as one product and one convolution."""

from torch import Tensor

from harness.api import Shape
from impls._shared.masks import convolve_present


def by_masked_product(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int, padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    """Return `y = conv(x*m, w) + b`; what is absent is selected away only where it is not finite."""
    return convolve_present(x, mask, weight, bias, stride, padding, dilation, groups, padding_mode)
