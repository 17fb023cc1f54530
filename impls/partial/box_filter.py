"""Partial convolution with the coverage as a box filter of the mask summed over channels."""

from typing import Any

import torch
from torch import Tensor

from impls._shared.boxes import box_filter
from impls._shared.convolution import convolve
from impls._shared.masks import present_by_product
from impls.partial.oracle import PartialOutput


def by_box_filter(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    groups: int, **geometry: Any,
) -> PartialOutput:  # fmt: skip
    """Return `((conv(x*m, w) * win/coverage + b) * m', m')`; one coverage channel per group.

    The mask is summed over the channels of a group before it is filtered, and the filter runs
    axis by axis: the price of the mask falls from `C_in/G * prod K` to `C_in/G + sum K` additions
    per position.
    """
    y = convolve(
        x if mask is None else present_by_product(x, mask.detach()),
        weight,
        groups=groups,
        **geometry,
    )
    with torch.no_grad():
        scale, updated = _scale(x, weight, mask, groups, geometry)
        scale, updated = scale.to(x.dtype), updated.to(x.dtype)
    if updated.shape[1] == 1:
        y = y * scale
        y = y if bias is None else torch.addcmul(y, _column(bias, y), updated)
        return PartialOutput(y, updated)
    split = y.unflatten(1, (groups, -1))
    split = split * scale.unsqueeze(2)
    if bias is not None:
        split = split + _column(bias, y).unflatten(1, (groups, -1)) * updated.unsqueeze(2)
    return PartialOutput(
        split.flatten(1, 2), updated.repeat_interleave(weight.shape[0] // groups, 1)
    )


def _scale(
    x: Tensor, weight: Tensor, mask: Tensor | None, groups: int, geometry: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Return `r * m'` and `m'`, one channel per group that differs, in float32 at least."""
    win, wide = weight[0, 0].numel(), torch.promote_types(x.dtype, torch.float32)
    if mask is None:
        counted = x.new_ones((1, 1, *x.shape[2:]), dtype=wide)
    elif mask.shape[1] == 1:
        counted = mask.detach().to(wide)
    else:
        win *= weight.shape[1]
        counted = mask.detach().unflatten(1, (groups, -1)).sum(2, dtype=wide)
    coverage = box_filter(counted, weight.shape[2:], **geometry)
    updated = coverage.clamp(max=1)
    return torch.where(coverage > 0, win / coverage * updated, 0.0), updated


def _column(bias: Tensor, y: Tensor) -> Tensor:
    return bias.view(1, -1, *(1 for _ in y.shape[2:]))
