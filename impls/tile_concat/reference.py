"""Tiling and concatenating as published, then the library's convolution."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from impls._shared.convolution import convolve
from impls._shared.sources import source_axes, spread


def concatenated(
    x: Sequence[Tensor | None], weight: Tensor, bias: Tensor | None = None, *,
    size: Sequence[int], kernel_size: Sequence[int],  # noqa: ARG001 - that of the weight
    groups: int, **geometry: Any,
) -> Tensor:  # fmt: skip
    """Return `conv(concat_i tile(x_i), w) + b`; tiling copies nothing, concatenating all.

    Source: miaotianyi/multi-source-convolution, README, without its single group.
    """
    rank = len(size)
    whole = [
        spread(source, axes, rank).expand(*source.shape[:2], *size)
        for axes, source in zip(source_axes(rank), x, strict=True)
        if source is not None
    ]
    if groups == 1:
        signal = torch.cat(whole, dim=1)
    else:
        split = [source.unflatten(1, (groups, -1)) for source in whole]
        signal = torch.cat(split, dim=2).flatten(1, 2)
    return convolve(signal, weight, bias, groups=groups, **geometry)
