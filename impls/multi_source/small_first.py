"""Multi-source convolution with the small terms added up before they are spread."""

from collections.abc import Sequence

from torch import Tensor

from impls._shared.onednn import convolve_faster
from impls._shared.sources import (
    convolve_source,
    out_size_of,
    over_output,
    source_axes,
    spread,
    sum_small_first,
)


def small_first(
    x: Sequence[Tensor | None],
    weight: Sequence[Tensor | None],
    bias: Tensor | None = None,
    *,
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str = "zeros",
) -> Tensor:
    """Return `conv(image) + (conv(row) + (linear(scalar) + b)) + conv(column)`.

    The bias joins the smallest source and each term the smallest that spans its axes, so that only
    the largest terms are added over the whole output, in the memory of the widest result: no copy
    of the output is made, where adding term by term makes one per source.
    """
    rank, terms = len(size), []
    for axes, source, taps in reversed(list(zip(source_axes(rank), x, weight, strict=True))):
        if source is None:
            continue
        term = convolve_source(
            source, taps, bias, axes, stride=stride, padding=padding, dilation=dilation,
            groups=groups, padding_mode=padding_mode, convolution=convolve_faster,
        )  # fmt: skip
        terms.append((axes, spread(term, axes, rank)))
        bias = None
    _, y = sum_small_first(terms, rank)
    return over_output(y, out_size_of(size, kernel_size, stride, padding, dilation))
