"""The plain convolution by oneDNN where the library's own choice on CPUs is another."""

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.api import ConvCase
from impls._shared.onednn import convolve_faster


def onednn(
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
    """Return `conv(x, w) + b`, computed by oneDNN, the gradients too.

    On one thread PyTorch takes its own slow loop for 3D layers of up to 32 channels and a batch of
    one; oneDNN is several times faster there. Elsewhere the choice is the library's.
    """
    return convolve_faster(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
        padding_mode=padding_mode,
    )  # fmt: skip


def unsupported(case: ConvCase) -> str | None:
    """Return why oneDNN does not compute `case`, or None."""
    if not torch.backends.mkldnn.is_available():
        return "PyTorch was built without oneDNN"
    return None if case.dtype == "float32" else f"oneDNN computes float32, not {case.dtype}"
