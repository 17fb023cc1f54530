"""The definition of multi-source convolution."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from harness.api import correlate, per_channel
from impls._shared.sources import on_axes, out_size_of, source_axes, spread


def multi_source(
    x: Sequence[Tensor | None],
    weight: Sequence[Tensor | None],
    bias: Tensor | None = None,
    *,
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    **options: Any,
) -> Tensor:
    """Return `y[n,o,q] = sum_i sum_{c,u} w_i[o,c,u] x_i[n,c,pos(q,u) on the axes of i] + b_o`.

    Source: miaotianyi/multi-source-convolution, README, for any rank.
    """
    rank = len(size)
    out_size = out_size_of(size, kernel_size, stride, padding, dilation)
    given = next(source for source in x if source is not None)
    filters = next(taps for taps in weight if taps is not None)
    y = given.new_zeros((given.shape[0], filters.shape[0], *out_size))
    for axes, source, taps in zip(source_axes(rank), x, weight, strict=True):
        if source is not None:
            term = correlate(
                source, taps, stride=on_axes(stride, axes), padding=on_axes(padding, axes),
                dilation=on_axes(dilation, axes), **options,
            )  # fmt: skip
            y = y + spread(term, axes, rank)
    return y if bias is None else y + per_channel(bias, y)
