"""The definition of partial convolution."""

from typing import Any, NamedTuple

from torch import Tensor

from harness.api import apply_mask, correlate, per_channel


class PartialOutput(NamedTuple):
    """What partial convolution returns: the output, and the mask for the next layer."""

    output: Tensor
    mask: Tensor


def coverage(
    x: Tensor, weight: Tensor, mask: Tensor | None, *, groups: int, **geometry: Any
) -> tuple[Tensor, int]:
    """Return the sum of the mask over every window, and `win`: that of a mask of ones, unbounded.

    A shared mask is counted once per position, shape `(1|N, 1, *S_out)`; a mask per channel within
    its group, shape `(1|N, groups, *S_out)`.
    """
    mask = x.new_ones((1, 1, *x.shape[2:])) if mask is None else mask.detach().to(x.dtype)
    groups = groups if mask.shape[1] > 1 else 1
    box = x.new_ones((groups, mask.shape[1] // groups, *weight.shape[2:]))
    return correlate(mask, box, groups=groups, **geometry), box[0].numel()


def partial(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None,
    **geometry: Any,
) -> PartialOutput:  # fmt: skip
    """Return `y = (conv(x*m, w) * r + b) * m'`, `r = win / coverage`, `m' = min(coverage, 1)`.

    Where nothing is present, `y = 0` and `m' = 0`. No mask is a shared mask of ones.

    Source: Liu et al. 2018 (arXiv 1804.07723), eq. (1) and (2).
    """
    covered, win = coverage(x, weight, mask, **geometry)
    if covered.shape[1] > 1:  # one channel per group
        covered = covered.repeat_interleave(weight.shape[0] // covered.shape[1], 1)
    updated = covered.clamp(max=1)
    ratio = win / covered.where(covered > 0, 1.0)
    y = correlate(x if mask is None else apply_mask(x, mask.detach()), weight, **geometry) * ratio
    y = y if bias is None else y + per_channel(bias, y)
    return PartialOutput((y * updated).where(covered > 0, 0.0), updated)
