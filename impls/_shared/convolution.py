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
    channels_last = False
    if _is_miscomputed(x, weight):
        channels_last = x.stride(1) == 1
        x, weight = x.contiguous(), weight.contiguous()
    y = torch.convolution(
        x, weight, bias, stride, padding, dilation, False, [0] * len(padding), groups
    )
    # laid out by moving axes, since vmap knows no memory formats
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else y


def _is_miscomputed(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN may compute other values than those of the convolution.

    PyTorch 2.13 on CPUs, bfloat16, signal or weight in channels_last or a part of such a tensor:
    with groups of one input channel and several outputs `x (1, 2, 4, 4)`, `w (4, 1, 3, 3)`,
    stride (1, 2) gives a wrong output; elsewhere, with one group too, the gradient of the weight
    is wrong, and some end the process. No wrong float16 is known. A wrong float32 is, and is not
    avoided here: ones `x (2, 1, 5, 4, 3)` of strides (60, 1, 12, 3, 1), `w (1, 1, 1, 1, 2)`,
    stride (1, 1, 2).
    """
    spread = not (x.is_contiguous() and weight.is_contiguous())
    return spread and x.dtype is torch.bfloat16 and x.is_cpu and x.dim() > 3
