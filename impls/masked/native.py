"""Masked convolution with the mask mixed over channels and applied in C++."""

from functools import lru_cache
from typing import Any

from torch import Tensor

from harness.api import Shape
from impls._shared import native
from impls._shared.convolution import has_channels_last, laid_out_like
from impls._shared.onednn import slow_paths
from impls.masked.oracle import MaskedOutput
from impls.masked.sampled_centres import by_sampled_centres

# Channels of a mask up to which they are mixed entry by entry: `kFewMixed` in masked.h.
FEW_MIXED = 16


def mixed_in_blocks(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int, padding_mode: str = "zeros",
    apply_mask: bool = False,
) -> MaskedOutput:  # fmt: skip
    """Return `((conv(x, w) + b) * m', m')`, sampling the mask before it is mixed over channels.

    Masks of few channels are mixed entry by entry, others by products of matrices with a block of
    positions; the backward pass keeps `m'` and nothing of the signal's size.
    """
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    read = None if mask is None or apply_mask else mask.detach().to(x.dtype)
    if read is not None and native.takes_zero_padded(padding, padding_mode, x, weight, bias, read):
        slow = slow_paths(x.shape, weight.shape[2:], dilation, groups, x.dtype)
        y, updated = _operation()(x, weight, bias, read, *geometry.values(), groups, *slow)
        return MaskedOutput(laid_out_like(x, y) if has_channels_last(x) else y, updated)
    return by_sampled_centres(
        x, weight, bias, mask, **geometry, groups=groups, padding_mode=padding_mode,
        apply_mask=apply_mask,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _operation() -> Any:
    return native.operations().masked.default
