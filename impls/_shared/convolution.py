"""The library's convolution with any rank and padding mode."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_TORCH_MODE = {"reflect": "reflect", "replicate": "replicate", "circular": "circular"}
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


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
    order = None
    if _is_miscomputed(x, weight):
        order = _CHANNELS_LAST[x.dim()]
        order = order if x.is_contiguous(memory_format=order) else torch.contiguous_format
        x, weight = x.contiguous(), weight.contiguous()
    y = torch.convolution(
        x, weight, bias, stride, padding, dilation, False, [0] * len(padding), groups
    )
    return y if order is None else y.contiguous(memory_format=order)


def _is_miscomputed(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN may compute other values than those of the convolution.

    PyTorch 2.13 on CPUs, bfloat16, signal or weight in channels_last or a part of such a tensor:
    with groups of one input channel and several outputs `x (1, 2, 4, 4)`, `w (4, 1, 3, 3)`,
    stride (1, 2) gives a wrong output; elsewhere, with one group too, the gradient of the weight
    is wrong, and some end the process. float16 and float32 are right.
    """
    spread = not (x.is_contiguous() and weight.is_contiguous())
    return spread and x.dtype is torch.bfloat16 and x.is_cpu and x.dim() in _CHANNELS_LAST
