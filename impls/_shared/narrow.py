"""Convolutions of one axis with a handful of outputs, where reading the weights is the work."""

import torch
from torch import Tensor

from harness.api import Shape

# Measured on one CPU core: a product of matrices with so few columns is fastest with them as rows.
_OUTPUTS, _LEAST_WEIGHTS = 8, 2**15


def is_narrow(x: Tensor, weight: Tensor, stride: Shape, padding: Shape, dilation: Shape) -> bool:
    """Return whether `convolve_narrow` is the faster one."""
    if weight.numel() < _LEAST_WEIGHTS or weight.dtype is not torch.float32 or not x.is_cpu:
        return False
    field = dilation[0] * (weight.shape[2] - 1) + 1
    outputs = (x.shape[2] + 2 * padding[0] - field) // stride[0] + 1
    return x.shape[0] * outputs <= _OUTPUTS


def convolve_narrow(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Shape, padding: Shape, dilation: Shape
) -> Tensor:
    """Return `conv(x, w) + b` of one axis: a row of samples per output times the weights."""
    columns = torch.nn.functional.unfold(
        x.unsqueeze(3), (weight.shape[2], 1), (dilation[0], 1), (padding[0], 0), (stride[0], 1)
    )
    rows = torch.nn.functional.linear(columns.transpose(1, 2), weight.flatten(1), bias)
    return rows.transpose(1, 2)
