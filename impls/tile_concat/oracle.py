"""The definition of tiling, concatenating and convolving."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.api import correlate, per_channel
from impls._shared.sources import source_axes, spread


def tiled(x: Sequence[Tensor | None], size: Sequence[int], groups: int) -> Tensor:
    """Return all sources over the whole image, `(N, sum C_i, *size)`.

    Channels are interleaved by group: a group holds its share of every source, in their order.
    """
    rank = len(size)
    whole = [
        spread(source, axes, rank).expand(*source.shape[:2], *size).unflatten(1, (groups, -1))
        for axes, source in zip(source_axes(rank), x, strict=True)
        if source is not None
    ]
    return torch.cat(whole, dim=2).flatten(1, 2)


def tile_concat(
    x: Sequence[Tensor | None],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    size: Sequence[int],
    groups: int,
    kernel_size: Sequence[int],  # noqa: ARG001 - that of the weight
    **geometry: Any,
) -> Tensor:
    """Return `y = conv(concat_i tile(x_i), w) + b`.

    Source: miaotianyi/multi-source-convolution, README, "Tile, Concatenate, and Convolve".
    """
    y = correlate(tiled(x, size, groups), weight, groups=groups, **geometry)
    return y if bias is None else y + per_channel(bias, y)
