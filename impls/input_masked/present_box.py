"""The convolution of a masked signal, computed only where the mask lets anything through."""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api import Shape, per_channel
from impls._shared.convolution import convolve
from impls._shared.masks import convolve_present, present_by_product

Box = list[tuple[int, int]]
# Below this share of the outputs a smaller convolution pays for its copies.
WORTHWHILE = 0.75


def by_present_box(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int, padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    """Return `y = conv(x*m, w) + b`, convolving only the smallest box that holds what is present.

    Outside of the outputs whose windows meet the box, `y = b`. A batch of images of different
    sizes, padded to one, is convolved sample by sample where that is less work.

    Exact at every density: a mask that reaches every edge of the image is recognised by its edges
    alone, and the convolution is then the dense one.
    """
    geometry = {"stride": stride, "dilation": dilation, "groups": groups}
    spread = None if padding_mode != "zeros" else _sample_boxes(mask)
    if spread is None:
        return convolve_present(
            x, mask, weight, bias, stride, padding, dilation, groups, padding_mode
        )
    field = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    axes = list(zip(x.shape[2:], field, stride, padding, strict=True))
    boxes = [_outputs(box, axes) for box in spread]
    union = [
        (min(a for a, _ in ends), max(b for _, b in ends)) for ends in zip(*boxes, strict=True)
    ]
    total = prod((size + 2 * p - f) // s + 1 for size, f, s, p in axes)
    apart = len(boxes) == len(x) > 1 and sum(map(_volume, boxes)) < WORTHWHILE * len(x) * _volume(
        union
    )
    if not apart and _volume(union) > WORTHWHILE * total:
        return convolve_present(x, mask, weight, bias, stride, padding, dilation, groups)
    pieces = [(x, mask, union)]
    if apart:
        pieces = list(zip(x.split(1), mask.split(1), boxes, strict=True))
    parts = [_convolve_box(*piece, weight, axes, geometry) for piece in pieces]
    y = parts[0] if len(parts) == 1 else torch.cat(parts)
    return y if bias is None else y + per_channel(bias, y)


def _sample_boxes(mask: Tensor) -> list[Box] | None:
    """Return the box of what is present, per sample; None where that is everything."""
    if torch.compiler.is_compiling() or mask.numel() == 0:
        return None
    try:
        if _meets_every_edge(mask):
            return None
        return [_box(sample) for sample in mask.any(1)]
    except RuntimeError:  # no value to read: a meta or fake tensor, or inside of vmap
        return None


def _meets_every_edge(mask: Tensor) -> bool:
    """Whether every sample has something present on both edges of every axis."""
    for axis in range(2, mask.dim()):
        for end in (0, -1):
            edge = mask.select(axis, end)
            held = edge.any() if len(mask) == 1 else edge.flatten(1).any(1).all()
            if not held.item():
                return False
    return True


def _box(held: Tensor) -> Box:
    """Return `[first, last + 1)` of the True entries along every axis; `(0, 0)` without any."""
    ends = []
    for axis in range(held.dim()):
        others = [other for other in range(held.dim()) if other != axis]
        found = (held.any(others) if others else held).nonzero()
        ends.append((int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0))
    return ends


def _outputs(box: Box, axes: list[tuple[int, int, int, int]]) -> Box:
    """Return the box of the outputs whose windows meet `box`.

    One output where none do: what is computed stays a function of signal and weight for autograd.
    """
    ends = []
    for (low, high), (size, field, s, p) in zip(box, axes, strict=True):
        first = max(0, -((field - 1 - p - low) // s))  # the first q with q*s - p + field - 1 >= low
        last = min((size + 2 * p - field) // s, (high - 1 + p) // s)
        if low == high or last < first:
            return [(0, 1)] * len(box)
        ends.append((first, last + 1))
    return ends


def _volume(box: Box) -> int:
    return prod(high - low for low, high in box)


def _convolve_box(
    x: Tensor, mask: Tensor, box: Box, weight: Tensor, axes: list[tuple[int, int, int, int]],
    geometry: dict[str, Any],
) -> Tensor:  # fmt: skip
    """Return `conv(x*m, w)`, computed for the outputs in `box`, 0 elsewhere."""
    around, beyond = [], []
    for axis, ((first, end), (size, field, s, p)) in enumerate(
        zip(box, axes, strict=True), start=2
    ):
        low, total = first * s - p, (end - 1 - first) * s + field
        start = max(low, 0)
        held = max(min(low + total, size) - start, 0)
        x, mask = x.narrow(axis, start, held), mask.narrow(axis, start, held)
        before = min(start - low, total)
        around = [before, total - before - held, *around]
        beyond = [first, (size + 2 * p - field) // s + 1 - end, *beyond]
    signal = F.pad(present_by_product(x, mask), around)
    y = convolve(signal, weight, padding=[0] * len(axes), **geometry)
    return F.pad(y, beyond)
