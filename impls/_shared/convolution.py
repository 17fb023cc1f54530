"""The library's convolution with any rank and padding mode."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_VECTOR = 16  # float32 values: of AVX-512, twice that of AVX2
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
    given = x
    x, weight = readable(x, weight, stride, padding, dilation)
    y = torch.convolution(
        x, weight, bias, stride, padding, dilation, False, [0] * len(padding), groups
    )
    return y if x is given else laid_out_like(given, y)


def readable(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return `x` and `weight` in layouts that oneDNN convolves right, copied where need be.

    What PyTorch 2.13 does with other layouts on CPUs:

    * bfloat16, channels_last or a part of such a tensor: with groups of one input channel and
      several outputs `x (1, 2, 4, 4)`, `w (4, 1, 3, 3)`, stride (1, 2) gives a wrong output;
      elsewhere, with one group too, the gradient of the weight is wrong, and some end the process.
    * channels_last, an axis of which no window sees a pixel: it reads beyond the signal, and some
      end the process: `x (2, 3, 5, 2)`, one tap, stride 3, padding (2, 1); or
      `x (2, 2, 4, 7, 1)`, `w (6, 1, 3, 3, 1)`, stride (3, 3, 2), padding (0, 0, 1).
    * float32, channels_last, one tap, a stride and no padding, of channels that fill no vector: the
      gradient of the weight writes beyond its scratch, which ends the process, then or later:
      `x (2, 3, 4, 11)`, `w (2, 3, 1, 1)`, stride (2, 1).
    * contiguous with another stride of the channels than such a tensor has: see `_unambiguous`.
    """
    x, weight = _unambiguous(x), _unambiguous(weight)
    if x.dim() < 4 or not x.is_cpu or (x.is_contiguous() and weight.is_contiguous()):
        return x, weight
    misread = (
        x.dtype is torch.bfloat16
        or _is_strided_tap(x, weight, stride, padding)
        or _sees_nothing(x, weight, stride, padding, dilation)
    )
    return (x.contiguous(), weight.contiguous()) if misread else (x, weight)


def is_plainly_laid_out(x: Tensor, weight: Tensor) -> bool:
    """Return whether `readable` returns both as they are, whatever the geometry."""
    return x.dim() < 4 or (
        x.stride(1) != 1 and weight.stride(1) != 1 and x.is_contiguous() and weight.is_contiguous()
    )


def laid_out_like(x: Tensor, y: Tensor) -> Tensor:
    """Return `y` with its channels last in memory where those of `x` are.

    By moving axes, since vmap knows no memory formats.
    """
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if has_channels_last(x) else y


def has_channels_last(x: Tensor) -> bool:
    """Return whether the channels of `x` are last in memory."""
    return x.stride(1) == 1 and not x.is_contiguous()


def _unambiguous(operand: Tensor) -> Tensor:
    """Return `operand (A, B, *S)` with the strides of a contiguous tensor, where it is one.

    An axis of one entry may have any stride. Where that of the channels is 1, the library takes
    the layout for channels_last, and PyTorch 2.13 computes wrong float32 values on CPUs: of ones
    `x (2, 1, 5, 4, 3)` with strides (60, 1, 12, 3, 1), `w (1, 1, 1, 1, 2)`, stride (1, 1, 2). Of
    bfloat16 `w (1, 2, 1, 1)` with strides (6, 1, 2, 2) ends the process.
    """
    if operand.dim() > 3 and operand.stride(1) == 1:
        if operand.is_contiguous():
            return operand.flatten().view(operand.shape)
        if operand.shape[1] == 1:
            return operand.squeeze(1).unsqueeze(1)
    return operand


def _is_strided_tap(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> bool:
    """Whether oneDNN would gather the pixels that one tap meets into scratch that is too small."""
    return (
        x.dim() == 4
        and x.dtype is not torch.float64  # which oneDNN does not take
        and weight.shape[2:].numel() == 1
        and max(stride) > 1
        and not any(padding)
        and x.shape[1] % _VECTOR != 0
    )


def _sees_nothing(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> bool:  # fmt: skip
    """Whether there is an axis of which no window sees a pixel."""
    if not any(padding):
        return False
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    for size, k, s, p, d in axes:
        tap = -(-p // d)  # of the first window, the first that is not before the image
        if not p or (tap < k and tap * d - p < size):
            continue  # without a range, which would fix a size that is being traced
        starts = range(-p, size + p - d * (k - 1), s)
        if not any(0 <= start + u * d < size for start in starts for u in range(k)):
            return True
    return False
