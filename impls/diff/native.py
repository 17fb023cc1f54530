"""The image continued in C++, one pass per plane, then one convolution of the library."""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared import native
from impls._shared.extension import degrees_of, extended_axes, side_rows
from impls._shared.onednn import is_filled, is_looped
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
        plan = _plan(x.shape, weight.shape, tuple(dilation), groups, x.dtype, degree)
        return _operation()(
            x, weight, bias, plan.entries, stride, dilation, groups, plan.looped, plan.filled
        )
    return extended_once(
        x, weight, bias, edge_kernel, edge_bias, stride=stride, dilation=dilation, groups=groups,
        degree=degree, keep_img_grad_at_invalid=keep_img_grad_at_invalid,
        optimized_for=optimized_for,
    )  # fmt: skip


class _Plan(NamedTuple):
    """What the operation takes beside tensors.

    Args:
        entries: Per axis that is continued its number, steps, dilation, degree + 1 and weights.
        looped, filled: Whether the library convolves by its slow loop, adds the bias slowly.
    """

    entries: tuple[int, ...]
    looped: bool
    filled: bool


@lru_cache(maxsize=1024)
def _plan(
    x_shape: torch.Size, weight_shape: torch.Size, dilation: Shape, groups: int,
    dtype: torch.dtype, degree: int | None,
) -> _Plan:  # fmt: skip
    kernel_size, entries, wide = tuple(weight_shape[2:]), [], list(x_shape)
    degrees = degrees_of(kernel_size, degree)
    for axis, steps, d, q in extended_axes(x_shape[2:], kernel_size, dilation, degrees):
        weights = (weight for rows in side_rows(steps, q) for row in rows for weight in row)
        entries += [axis - 2, steps, d, q + 1, *weights]
        wide[axis] += 2 * steps * d
    looped = dtype is torch.float32 and is_looped(wide, kernel_size, groups)
    return _Plan(tuple(entries), looped, is_filled(wide, kernel_size, dilation, groups))


@lru_cache(maxsize=1)
def _operation() -> Any:
    return native.operations().extended_convolution.default
