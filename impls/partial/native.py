"""Partial convolution with all but the library's convolution in three passes in C++."""

from functools import lru_cache
from typing import Any

from torch import Tensor

from harness.api import Shape
from impls._shared import native
from impls._shared.convolution import has_channels_last, laid_out_like
from impls._shared.onednn import slow_paths
from impls.partial.box_filter import by_box_filter, of_every_channel
from impls.partial.oracle import PartialOutput


def in_few_passes(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int, padding_mode: str = "zeros",
) -> PartialOutput:  # fmt: skip
    """Return `((conv(x*m, w) * win/coverage + b) * m', m')`, the mask counted while it is applied.

    One pass over signal and mask gives `x * m`, 0 in every hole whatever stands there, and the sum
    of the mask over channels; one over the output scales it and adds the bias. The backward pass
    makes `x * m` again: it keeps the share of every window and its `m'`, nothing of the signal's
    size.
    """
    read = None if mask is None else mask.detach().to(x.dtype)
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    if read is not None and native.takes_zero_padded(padding, padding_mode, x, weight, bias, read):
        looped = slow_paths(x.shape, weight.shape[2:], dilation, groups, x.dtype).looped
        y, updated = _operation()(x, weight, bias, read, *geometry.values(), groups, looped)
        if has_channels_last(x):
            y = laid_out_like(x, y)
        if groups > 1 and read.shape[1] > 1:
            updated = of_every_channel(updated, y.shape[1])
        return PartialOutput(y, updated)
    return by_box_filter(
        x, weight, bias, mask, **geometry, groups=groups, padding_mode=padding_mode
    )


@lru_cache(maxsize=1)
def _operation() -> Any:
    return native.operations().partial.default
