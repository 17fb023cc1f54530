"""Multi-source convolution with all small terms added in one pass in C++."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared import native
from impls._shared.native_sources import cost_where, takes_sources
from impls._shared.onednn import SlowPaths, slow_paths
from impls._shared.sources import source_axes
from impls.multi_source.small_first import small_first


def joined_in_one_pass(
    x: Sequence[Tensor | None], weight: Sequence[Tensor | None], bias: Tensor | None = None, *,
    size: Shape, kernel_size: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int,
    padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    """Return `conv(image) + conv(row) + conv(column) + linear(scalar) + b`.

    One pass over the output adds all that is smaller; one over its gradient sums it for all of
    them. Convolutions with a handful of outputs are multiplied in registers. Without an image, with
    groups or another padding the terms are added by the library.
    """
    if takes_sources(x, weight, bias, groups, padding, padding_mode):
        present = tuple([source is not None for source in x])
        plan = _plan(present, x[0].shape, x[0].dtype, tuple(kernel_size), tuple(dilation))
        given, taps = ([each for each in all_ if each is not None] for all_ in (x, weight))
        return _operation()(
            given, taps, bias, plan.spans, (), stride, padding, dilation, *plan.slow
        )
    return small_first(
        x, weight, bias, size=size, kernel_size=kernel_size, stride=stride, padding=padding,
        dilation=dilation, groups=groups, padding_mode=padding_mode,
    )  # fmt: skip


of_native = cost_where(takes_sources)


class _Plan(NamedTuple):
    """What the operation takes beside tensors.

    Args:
        spans: Of every source that is there, bit `a` for axis `a`.
        slow: Where the library is.
    """

    spans: tuple[int, ...]
    slow: SlowPaths


@lru_cache(maxsize=1024)
def _plan(
    present: tuple[bool, ...], shape: torch.Size, dtype: torch.dtype, kernel_size: Shape,
    dilation: Shape,
) -> _Plan:  # fmt: skip
    axes = zip(source_axes(len(kernel_size)), present, strict=True)
    spans = tuple(sum(1 << axis for axis in own) for own, is_there in axes if is_there)
    return _Plan(spans, slow_paths(shape, kernel_size, dilation, 1, dtype))


@lru_cache(maxsize=1)
def _operation() -> Any:
    return native.operations().sources.default
