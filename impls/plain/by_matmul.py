"""The plain convolution as one matrix product per tap."""

from typing import Any

import torch
from torch import Tensor

from harness.api import per_channel, taps


def by_matmul(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, groups: int, **geometry: Any
) -> Tensor:
    """Return `y = sum_u w[..., u] @ x[window(u)] + b`.

    The whole image is one operand, so small kernels on few channels need no unfolded copy.
    """
    filters = weight.unflatten(0, (groups, -1))
    y = None
    for tap, window in taps(x, weight.shape[2:], **geometry):
        out_size = window.shape[2:]
        columns = window.unflatten(1, (groups, -1)).flatten(3)
        term = torch.matmul(filters[(..., *tap)], columns)
        y = term if y is None else y + term
    y = y.flatten(1, 2).unflatten(2, out_size)
    return y if bias is None else y + per_channel(bias, y)
