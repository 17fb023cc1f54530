"""The plain convolution by oneDNN where the library's own choice on CPUs is another."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.api import ConvCase
from impls._shared.convolution import convolve, pad_by_mode, readable


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
    """Return `conv(x, w) + b`, computed by oneDNN.

    On one thread PyTorch takes its own slow loop for 3D layers of up to 32 channels and a batch of
    one; oneDNN is several times faster there. The gradient is the library's.
    """
    if padding_mode != "zeros" and any(padding):
        x, padding = pad_by_mode(x, padding, padding_mode), [0] * len(padding)
    # it has no form for tensors without values: a compiler's, or a subclass such as fake tensors
    bare = type(x) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()
    if not (bare and x.is_cpu and x.numel()):
        return convolve(
            x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
        )
    try:
        x, weight, _ = readable(x, weight, padding)
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, groups)
    except NotImplementedError:  # it has no forward-mode derivative
        return convolve(
            x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
        )


def unsupported(case: ConvCase) -> str | None:
    """Return why oneDNN does not compute `case`, or None."""
    if not torch.backends.mkldnn.is_available():
        return "PyTorch was built without oneDNN"
    return None if case.dtype == "float32" else f"oneDNN computes float32, not {case.dtype}"
