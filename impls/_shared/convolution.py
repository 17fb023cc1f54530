"""The library's convolution with any rank and padding mode."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_TORCH_MODE = {"reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def pad_by_mode(x: Tensor, padding: Sequence[int], mode: str) -> Tensor:
    """Extend `x (N, C, *S)` by `padding` on both sides of every spatial axis."""
    sides = [side for amount in reversed(padding) for side in (amount, amount)]
    return F.pad(x, sides) if mode == "zeros" else F.pad(x, sides, mode=_TORCH_MODE[mode])


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str = "zeros",
) -> Tensor:
    """Return `conv(x, w) + b` by `torch.convolution`, which takes any rank."""
    if padding_mode != "zeros" and any(padding):
        x, padding = pad_by_mode(x, padding, padding_mode), [0] * len(padding)
    return torch.convolution(
        x, weight, bias, stride, padding, dilation, False, [0] * len(padding), groups
    )
