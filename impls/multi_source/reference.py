"""Multi-source convolution as published: a convolution per source, added by broadcasting."""

from collections.abc import Sequence

from torch import Tensor

from impls._shared.sources import convolve_source, out_size_of, over_output, source_axes, spread


def one_per_source(
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
    """Return `conv(image) + conv(row)[..., None] + conv(column)[:, :, None] + linear(scalar) + b`.

    Source: miaotianyi/multi-source-convolution, README; the bias belongs to the widest source.
    """
    rank, y = len(size), None
    for axes, source, taps in zip(source_axes(rank), x, weight, strict=True):
        if source is None:
            continue
        term = convolve_source(
            source, taps, bias, axes, stride=stride, padding=padding, dilation=dilation,
            groups=groups, padding_mode=padding_mode,
        )  # fmt: skip
        term, bias = spread(term, axes, rank), None
        y = term if y is None else y + term
    return over_output(y, out_size_of(size, kernel_size, stride, padding, dilation))
