"""Convolutions as products of matrices with what some taps read, in C++, a block at a time."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

from torch import Tensor

from harness.api import ConvCase, Shape
from impls._shared import native
from impls._shared.convolution import has_channels_last, laid_out_like

# Entries of what taps read at a time: what a core's own cache holds beside the filters.
BLOCK = 1 << 18
# Outputs at a time at least: a product of fewer columns is slow.
FEWEST = 64


def multiply_windows(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, kept: Sequence[int], *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int,
) -> Tensor:  # fmt: skip
    """Return `y[q] = sum over kept u of w[u] m[u,q] x[q*s - p + u*d] + b`; for what `takes` takes.

    Args:
        x, weight, bias: As of the convolution.
        mask: Of every window, `(1|N, 1|C_in, *K, *S_out)`, or None.
        kept: Numbers of the taps that are read, in the order of the kernel.
        stride, padding, dilation, groups: As of the convolution.
    """
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    out_size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
    rows = rows_of(tuple(out_size), weight.shape[1] * len(kept))
    y: Tensor = _operation()(x, weight, bias, mask, kept, stride, padding, dilation, groups, rows)
    return laid_out_like(x, y) if has_channels_last(x) else y


def rows_of(out_size: Shape, entries: int) -> int:
    """Return how many rows of outputs are computed at a time, with so many `entries` each read."""
    rows, width = prod(out_size[:-1]), out_size[-1]
    most = max(BLOCK // (entries * width), -(-FEWEST // width), 1)
    return -(-rows // -(-rows // most))  # blocks of about the same size


def count_blocks(case: ConvCase, taps: int) -> int:
    """Return how many blocks the outputs of a group are computed in, those of all samples."""
    rows = prod(case.out_size[:-1])
    return case.n * -(-rows // rows_of(case.out_size, case.c_in // case.groups * taps))


@lru_cache(maxsize=1)
def _operation() -> Any:
    return native.operations().windows.default
