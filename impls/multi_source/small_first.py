"""Multi-source convolution with the small terms added up before they are spread."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared.convolution import is_plainly_laid_out
from impls._shared.narrow import convolve_narrow, is_narrow
from impls._shared.onednn import convolve_faster
from impls._shared.sources import (
    add_into,
    convolve_source,
    on_axes,
    out_size_of,
    over_output,
    source_axes,
    spread,
    sum_small_first,
)


class Step(NamedTuple):
    """One source: its place, the axes that it spans, how it is convolved and what it joins.

    Args:
        place: Among the sources.
        axes: That it spans.
        stride, padding, dilation, none: Of its convolution; `none` is the output padding.
        into: The place of the smallest wider source there is, or its own.
        missing: The dimensions of that source's term which this one's lacks, rising.
    """

    place: int
    axes: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    none: Shape
    into: int
    missing: Shape


@lru_cache(maxsize=256)
def steps_of(
    present: tuple[bool, ...], stride: Shape, padding: Shape, dilation: Shape
) -> tuple[Step, ...]:
    """Return the steps of the sources that are there, smallest first."""
    spans = source_axes(len(stride))
    places = [place for place, is_there in enumerate(present) if is_there]
    steps = []
    for place in reversed(places):
        axes = spans[place]
        into = max((i for i in places if set(axes) < set(spans[i])), default=place)
        missing = tuple(2 + n for n, axis in enumerate(spans[into]) if axis not in axes)
        own = (on_axes(values, axes) for values in (stride, padding, dilation))
        steps.append(Step(place, axes, *own, (0,) * len(axes), into, missing))
    return tuple(steps)


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
    of the output is made, where adding term by term makes one per source. What is constant over a
    single sample is the bias of what it joins.
    """
    apart = groups > 1 or torch.compiler.is_compiling() or torch.jit.is_tracing()
    if x[0] is None or apart or (padding_mode != "zeros" and any(padding)):
        return _by_terms(
            x, weight, bias, size=size, kernel_size=kernel_size, stride=stride, padding=padding,
            dilation=dilation, groups=groups, padding_mode=padding_mode,
        )  # fmt: skip
    present = tuple([source is not None for source in x])
    waiting: list[tuple[int, Tensor, Shape]] = []
    steps = steps_of(present, tuple(stride), tuple(padding), tuple(dilation))
    for place, axes, s, p, d, none, into, missing in steps:
        source, taps = x[place], weight[place]
        joined = [entry for entry in waiting if entry[0] == place]
        if joined and bias is None and joined[0][1].dim() == 2 and len(source) == 1:
            bias = joined.pop(0)[1].view(-1)
        if not axes:
            term = torch.nn.functional.linear(source, taps, bias)
        elif len(axes) == 1 and is_narrow(source, taps, s, p, d):
            term = convolve_narrow(source, taps, bias, s, p, d)
        elif len(axes) < 3 and is_plainly_laid_out(source, taps):
            term = torch.convolution(source, taps, bias, s, p, d, False, none, 1)
        else:
            term = convolve_faster(source, taps, bias, stride=s, padding=p, dilation=d, groups=1)
        for _, part, dims in joined:
            for dim in dims:
                part = part.unsqueeze(dim)
            term = add_into(term, part)
        bias = None
        waiting.append((into, term, missing))
    return term


def _by_terms(
    x: Sequence[Tensor | None], weight: Sequence[Tensor | None], bias: Tensor | None, *,
    size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], groups: int, padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
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
