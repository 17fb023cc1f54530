"""The image continued into one buffer by kernels, then one convolution of the library."""

from typing import Any

from torch import Tensor

from impls._shared.triton_extension import extend_by_kernels
from impls.diff.extended_once import extended_once


def extended_by_kernels(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, edge_kernel: Tensor | None = None,
    edge_bias: Tensor | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """Return `y = conv_valid(P x, w) + b`, `P x` made by one kernel per axis, folded back by one."""
    return extended_once(
        x, weight, bias, edge_kernel, edge_bias, extension=extend_by_kernels, **options
    )
