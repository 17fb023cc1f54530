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
    restored = x.stride(1) == 1
    x, weight, copied = readable(x, weight, padding)
    y = torch.convolution(
        x, weight, bias, stride, padding, dilation, False, [0] * len(padding), groups
    )
    # laid out by moving axes, since vmap knows no memory formats
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if copied and restored else y


def readable(x: Tensor, weight: Tensor, padding: Sequence[int]) -> tuple[Tensor, Tensor, bool]:
    """Return `x` and `weight` in layouts that oneDNN convolves right, and whether they are copies.

    What PyTorch 2.13 does with other layouts on CPUs:

    * bfloat16, channels_last or a part of such a tensor: with groups of one input channel and
      several outputs `x (1, 2, 4, 4)`, `w (4, 1, 3, 3)`, stride (1, 2) gives a wrong output;
      elsewhere, with one group too, the gradient of the weight is wrong, and some end the process.
    * channels_last, one tap, padding, a last axis of which no window sees a pixel: it reads beyond
      the signal, and some end the process: `x (2, 3, 5, 2)`, stride 3, padding (2, 1).
    * one channel that stands at stride 1: see `_unambiguous`.
    """
    x, weight = _unambiguous(x), _unambiguous(weight)
    if x.dim() > 3 and x.is_cpu and not (x.is_contiguous() and weight.is_contiguous()):
        one_tap = any(padding) and max(weight.shape[2:]) == 1
        if one_tap or x.dtype is torch.bfloat16:
            return x.contiguous(), weight.contiguous(), True
    return x, weight, False


def _unambiguous(operand: Tensor) -> Tensor:
    """Return `operand (A, B, *S)` with the strides that a contiguous tensor of one channel has.

    One channel may stand at any stride. Where it is 1, the library takes the layout for
    channels_last, and PyTorch 2.13 computes wrong float32 values on CPUs: of ones
    `x (2, 1, 5, 4, 3)` with strides (60, 1, 12, 3, 1), `w (1, 1, 1, 1, 2)`, stride (1, 1, 2).
    """
    if operand.dim() > 3 and operand.shape[1] == 1 == operand.stride(1):
        return operand.squeeze(1).unsqueeze(1)
    return operand
