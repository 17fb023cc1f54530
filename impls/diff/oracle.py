"""The definition of the convolution that continues the image by polynomials."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.api import correlate, per_channel
from impls._shared.extension import degrees_of, extend


def diff(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    edge_kernel: Tensor | None = None,
    edge_bias: Tensor | None = None,
    *,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    degree: int | None = None,
    keep_img_grad_at_invalid: bool = True,
    optimized_for: str = "memory",
    absolute: bool = False,
) -> Tensor:
    """Return `y = conv_valid(P x, w) + b`, `P` the tensor product of Lagrange extrapolations.

    A border output, whose window leaves the image, uses `edge_kernel` and `edge_bias` where there
    are such, and passes no gradient to `x` where `keep_img_grad_at_invalid` is False.

    Args:
        x: Signal, shape `(N, C_in, *S)`.
        weight, edge_kernel: Shape `(C_out, C_in/groups, *kernel_size)`, odd sides.
        bias, edge_bias: Shape `(C_out,)`.
        stride, dilation: One entry per spatial axis.
        groups: Channel groups.
        degree: Of the polynomials; None = `kernel_size - 1` on every axis.
        keep_img_grad_at_invalid: Whether border outputs pass gradients to `x`.
        optimized_for: A hint; the value never changes.
        absolute: Replace the extrapolation weights by their absolute values.

    Source: Leng and Thiyagalingam 2023 (arXiv 2309.06370), transformed kernels; Lagrange's formula.
    """
    del optimized_for
    kernel_size = weight.shape[2:]
    degrees = degrees_of(kernel_size, degree)

    def outputs(signal: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        extended = extend(signal, kernel_size, dilation, degrees, absolute=absolute)
        none = [0] * len(kernel_size)
        y = correlate(
            extended, weight, stride=stride, padding=none, dilation=dilation, groups=groups
        )
        return y if bias is None else y + per_channel(bias, y)

    y = outputs(x, weight, bias)
    if edge_kernel is None and keep_img_grad_at_invalid:
        return y
    border = outputs(
        x if keep_img_grad_at_invalid else x.detach(),
        weight if edge_kernel is None else edge_kernel,
        bias if edge_bias is None else edge_bias,
    )
    return torch.where(_inside(x, kernel_size, stride, dilation), y, border)


def magnitude(*tensors: Tensor | None, **keywords: Any) -> Tensor:
    """Return the definition with every extrapolation weight replaced by its absolute value."""
    return diff(*tensors, absolute=True, **keywords)


def _inside(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Return which outputs have their window inside the image, shape `S_out`."""
    inside = torch.ones((), dtype=torch.bool, device=x.device)
    for size, k, s, d in zip(x.shape[2:], kernel_size, stride, dilation, strict=True):
        position, reach = torch.arange(0, size, s, device=x.device), d * (k - 1) // 2
        inside = inside[..., None] & (position >= reach) & (position + reach < size)
    return inside
