"""Multi-source convolution whose terms are added in one pass over the output."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from impls._shared.sources import convolve_source, out_size_of, source_axes, spread
from impls._shared.triton_broadcast import Repeat
from impls._shared.triton_sources import sum_of_sources


def fused_sum(
    x: Sequence[Tensor | None], weight: Sequence[Tensor | None], bias: Tensor | None = None, *,
    size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], **options: Any,
) -> Tensor:  # fmt: skip
    """Return `conv(image) + conv(row) + conv(column) + (linear(scalar) + b)`, added by one kernel."""
    rank, terms = len(size), {}
    for axes, source, taps in reversed(list(zip(source_axes(rank), x, weight, strict=True))):
        if source is None:
            continue
        term = convolve_source(
            source, taps, bias, axes, stride=stride, padding=padding, dilation=dilation, **options
        )
        terms[axes], bias = spread(term, axes, rank), None
    out_size = out_size_of(size, kernel_size, stride, padding, dilation)
    return sum_of_sources(terms, out_size, [Repeat(0, count) for count in out_size])
