"""Sums over windows, one axis at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from impls._shared.convolution import pad_by_mode


def box_filter(
    x: Tensor,
    kernel_size: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    padding_mode: str = "zeros",
) -> Tensor:
    """Return `y[n,c,q] = sum_u x[n,c,q*s - p + u*d]`: a convolution with ones, separably.

    `sum K` additions per entry instead of `prod K`.

    Args:
        x: Shape `(N, C, *S)`.
        kernel_size, stride, padding, dilation: One entry per spatial axis.
        padding_mode: How `x` is continued.
    """
    x = pad_by_mode(x, padding, padding_mode) if any(padding) else x
    for axis, (k, s, d) in enumerate(zip(kernel_size, stride, dilation, strict=True), start=2):
        count = (x.shape[axis] - d * (k - 1) - 1) // s + 1
        parts = [x.narrow(axis, u * d, (count - 1) * s + 1) for u in range(k)]
        parts = [torch.movedim(torch.movedim(p, axis, 0)[::s], 0, axis) for p in parts]
        x = parts[0]
        for part in parts[1:]:
            x = x + part
    return x
