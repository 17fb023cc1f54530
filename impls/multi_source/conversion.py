"""Weights of one convolution of tiled sources as weights per source, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.api import CaseError, named_padding, per_axis
from impls._shared.sources import NAMES, resolve_kernel_size, source_axes

Padding = int | str | Sequence[int]


def from_tile_concat(
    weight: Tensor,
    in_channels: Sequence[int],
    *,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> tuple[Tensor | None, ...]:
    """Return `w_i = sum of W_i over the axes that source i does not span`, per source.

    Args:
        weight: Taps over the concatenated sources, `(C_out, sum C_i / groups, *kernel_size)`.
        in_channels: Channels of every source, 0 where there is none.
        padding, dilation, groups, padding_mode: Of the convolution.

    Raises:
        CaseError: zero padding along a tiled axis cuts off a tap whose weight is not 0, so that
            outputs at the border see another sum than those inside; or channels that do not fit.
    """
    rank, kernel_size = weight.dim() - 2, tuple(weight.shape[2:])
    if len(in_channels) != len(NAMES[rank]) or sum(in_channels) != weight.shape[1] * groups:
        raise CaseError(
            f"in_channels={tuple(in_channels)} needs {len(NAMES[rank])} entries that sum to "
            f"{weight.shape[1] * groups}, the channels of weight times groups"
        )
    if any(channels % groups for channels in in_channels):
        raise CaseError(f"in_channels={tuple(in_channels)} is not divisible by groups={groups}")
    inside = _taps_inside(kernel_size, padding, dilation, padding_mode)
    start, weights = 0, []
    for name, axes, channels in zip(NAMES[rank], source_axes(rank), in_channels, strict=True):
        taps, start = weight.narrow(1, start, channels // groups), start + channels // groups
        tiled = [axis for axis in range(rank) if axis not in axes]
        for axis in tiled if channels else ():
            cut = [u for u in range(kernel_size[axis]) if u not in inside[axis]]
            if cut and bool(taps.detach().movedim(2 + axis, 0)[cut].any()):
                raise CaseError(
                    f"padding={padding} must be 0 on spatial axis {axis}, or the taps {cut} there: "
                    f"{name} is tiled along it and zero padding cuts them off at the border"
                )
        summed = taps.sum([2 + axis for axis in tiled]) if tiled else taps
        weights.append(summed if channels else None)
    return tuple(weights)


def to_tile_concat(
    weights: Sequence[Tensor | None],
    *,
    kernel_size: Sequence[int] | None = None,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Return one weight over the tiled sources, whose taps for source i hold `w_i` at one place.

    That place is a tap which no output, however near the border, loses to zero padding.

    Args:
        weights: Taps per source, `(C_out, C_i/groups, *kernel sizes of its axes)`, None = absent.
        kernel_size: Required where no weight tells it.
        padding, dilation, padding_mode: Of the convolution.

    Raises:
        CaseError: every tap is lost somewhere, or weights that disagree.
    """
    kernel_size = resolve_kernel_size(weights, weights, kernel_size)
    rank = len(kernel_size)
    inside = _taps_inside(kernel_size, padding, dilation, padding_mode)
    given = next(weight for weight in weights if weight is not None)
    parts = []
    for name, axes, weight in zip(NAMES[rank], source_axes(rank), weights, strict=True):
        if weight is None:
            continue
        tiled = [axis for axis in range(rank) if axis not in axes]
        for axis in tiled:
            if not inside[axis]:
                raise CaseError(
                    f"padding={padding} must be smaller on spatial axis {axis}: {name} is tiled "
                    "along it and zero padding cuts off every tap somewhere"
                )
        full = given.new_zeros((*weight.shape[:2], *kernel_size))
        place = [
            inside[axis][len(inside[axis]) // 2] if axis in tiled else slice(None)
            for axis in range(rank)
        ]
        full[(..., *place)] = weight
        parts.append(full)
    return torch.cat(parts, dim=1)


def _taps_inside(
    kernel_size: Sequence[int], padding: Padding, dilation: int | Sequence[int], mode: str
) -> list[list[int]]:
    """Return per axis the taps that read the image at every output, whatever the image's size."""
    rank = len(kernel_size)
    dilation = per_axis("dilation", dilation, rank)
    if isinstance(padding, str):
        sides = named_padding(padding, kernel_size, (1,) * rank, dilation)
    else:
        sides = tuple((p, p) for p in per_axis("padding", padding, rank))
    if mode != "zeros":
        sides = ((0, 0),) * rank
    return [
        [u for u in range(k) if before <= u * d <= d * (k - 1) - behind]
        for k, d, (before, behind) in zip(kernel_size, dilation, sides, strict=True)
    ]
