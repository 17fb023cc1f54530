"""The image continued in C++, one pass per plane, then one convolution of the library."""

from torch import Tensor

from harness.api import Shape
from impls._shared import native
from impls._shared.extension import degrees_of
from impls._shared.native_extension import convolve_continued
from impls.diff.extended_once import extended_once


def continued_in_one_pass(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, edge_kernel: Tensor | None = None,
    edge_bias: Tensor | None = None, *, stride: Shape, dilation: Shape, groups: int,
    degree: int | None = None, keep_img_grad_at_invalid: bool = True, optimized_for: str = "memory",
) -> Tensor:  # fmt: skip
    """Return `y = conv_valid(P x, w) + b`; the backward pass keeps `x` and continues it again.

    Border outputs with a kernel or a gradient of their own are left to bands of the border.
    """
    alike = edge_kernel is None and keep_img_grad_at_invalid
    if alike and max(weight.shape[2:]) > 1 and native.takes(x, weight, bias):
        degrees = degrees_of(weight.shape[2:], degree)
        return convolve_continued(
            x, weight, bias, degrees, stride=stride, dilation=dilation, groups=groups
        )
    return extended_once(
        x, weight, bias, edge_kernel, edge_bias, stride=stride, dilation=dilation, groups=groups,
        degree=degree, keep_img_grad_at_invalid=keep_img_grad_at_invalid,
        optimized_for=optimized_for,
    )  # fmt: skip
