"""A kernel per displacement, or an image that is continued, with the border in C++."""

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import ConvCase, Shape
from impls._shared import native
from impls._shared.border import displacements
from impls._shared.convolution import has_channels_last, laid_out_like
from impls._shared.native_extension import convolve_continued
from impls._shared.onednn import SlowPaths, slow_paths
from impls.boundary.border_apart import border_apart
from impls.boundary.oracle import polynomial_degrees

# Multiply-adds of a convolution in the time in which one result is copied.
MACS_PER_COPY = 16
_METHODS = ("explicit", "extrapolate", "diff")


def border_in_boxes(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, noise: Tensor | None = None, *,
    stride: Shape, dilation: Shape, groups: int, method: str = "zeros",
) -> Tensor:  # fmt: skip
    """Return `y`: one convolution inside, and one product for the box of each border kernel.

    What the windows of a box read is gathered for it alone and multiplied in registers where they
    are few. `extrapolate` and `diff` continue the image in one pass.
    """
    if is_computed(method, weight, len(stride)) and native.takes(x, weight, bias):
        if method == "explicit":
            plan = _plan(x.shape, weight.shape, tuple(stride), tuple(dilation), groups, x.dtype)
            y = _operation()(
                x, weight, bias, plan.runs, stride, plan.padding, dilation, groups, plan.copied,
                *plan.slow,
            )  # fmt: skip
        else:
            degrees = polynomial_degrees(weight.shape[2:], method)
            y = convolve_continued(
                x, weight, bias, degrees, stride=stride, dilation=dilation, groups=groups
            )
        return laid_out_like(x, y) if has_channels_last(x) else y
    return border_apart(
        x, weight, bias, noise, stride=stride, dilation=dilation, groups=groups, method=method
    )


def is_computed(method: str, weight: Tensor, rank: int) -> bool:
    """Return whether a method has passes in C++: more than one tap leaves the image."""
    return method in _METHODS and max(weight.shape[-rank:]) > 1


def may_pay(case: ConvCase) -> bool:
    """Return whether a case has passes in C++, as far as sizes and method tell."""
    return case.option("method", "zeros") in _METHODS and case.taps > 1


class _Plan(NamedTuple):
    """What the operation takes beside tensors.

    Args:
        runs: Per axis how many displacements there are, and of each its index, its first output
            and how many it has.
        padding: Of the convolution.
        copied: Whether the interior alone is convolved, then copied to where it belongs, in place
            of convolving the border in vain.
        slow: Where the library is.
    """

    runs: tuple[int, ...]
    padding: Shape
    copied: bool
    slow: SlowPaths


@lru_cache(maxsize=256)
def _plan(
    x_shape: torch.Size, weight_shape: torch.Size, stride: Shape, dilation: Shape, groups: int,
    dtype: torch.dtype,
) -> _Plan:  # fmt: skip
    rank = len(stride)
    kernel_size, columns = tuple(weight_shape[-rank:]), prod(weight_shape[rank + 1 :])
    axes = list(zip(x_shape[2:], kernel_size, stride, dilation, strict=True))
    lines = [displacements(*axis) for axis in axes]
    outputs = prod((size - 1) // s + 1 for size, _, s, _ in axes)
    inside = prod(
        sum(run.count for run in line if run.index == k // 2)
        for line, k in zip(lines, kernel_size, strict=True)
    )
    dear = (outputs - inside) * columns > MACS_PER_COPY * outputs
    return _Plan(
        tuple(entry for line in lines for entry in (len(line), *(n for run in line for n in run))),
        tuple(d * (k - 1) // 2 for k, d in zip(kernel_size, dilation, strict=True)),
        dear and max(stride) == 1,
        slow_paths(x_shape, kernel_size, dilation, groups, dtype),
    )


@lru_cache(maxsize=1)
def _operation() -> Any:
    return native.operations().border_kernels.default
