"""The convolution with a mask for every window, as one product with the unfolded signal."""

import torch
from torch import Tensor

from harness.api import Shape, per_channel
from impls._shared.convolution import pad_by_mode


def unfolded(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int,
) -> Tensor:  # fmt: skip
    """Return `y = w @ (unfold(x) * m) + b`: every window is copied out, then masked.

    Source: the question "masked kernel in convolution in pytorch", answered literally, by an
    unfolding of any rank.
    """
    rank = len(stride)
    windows = pad_by_mode(x, padding, "zeros") if any(padding) else x
    axes = zip(weight.shape[2:], stride, dilation, strict=True)
    for axis, (k, s, d) in enumerate(axes, start=2):
        windows = windows.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    windows = windows.movedim(tuple(range(-rank, 0)), tuple(range(2, 2 + rank)))
    out_size = windows.shape[2 + rank :]
    columns = (windows * mask.to(x.dtype)).reshape(
        x.shape[0], groups, weight.shape[1:].numel(), out_size.numel()
    )
    y = torch.matmul(weight.reshape(groups, -1, weight.shape[1:].numel()), columns)
    y = y.flatten(1, 2).unflatten(2, out_size)
    return y if bias is None else y + per_channel(bias, y)
