"""Masks by the name of their family: how much is present, and in which shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.case import CaseError

Shape = tuple[int, ...]
BAND = 8
"""Positions from one band to the next."""


def make_mask(shape: Shape, family: str, generator: torch.Generator) -> Tensor:
    """Return a float64 mask of `shape`, entries in [0, 1].

    Families: `ones`, `zeros`, `bernoulli:p` (present with probability p), `box` (one box of
    present positions over the spatial axes), `checkerboard`, `stripes` (along the last axis),
    `real` (multiples of 1/4, so that sums of them are exact). Structures of a share `p` that is
    present, alike in all channels: `blocks:p`, `border:p` (absent at the border), `bands:p` (along
    the last axis), `freeform:p` (smooth blots).

    Raises:
        CaseError: another family.
    """
    name, _, number = family.partition(":")
    if name in ("ones", "zeros"):
        return torch.full(shape, float(name == "ones"), dtype=torch.float64)
    if name == "bernoulli":
        return (torch.rand(shape, generator=generator) < float(number)).double()
    if name == "real":
        return torch.randint(0, 5, shape, generator=generator).double() / 4
    if name == "box":
        return _box(shape, generator)
    if name in ("checkerboard", "stripes"):
        axes = range(2, len(shape)) if name == "checkerboard" else [len(shape) - 1]
        total = torch.zeros((), dtype=torch.long)
        for axis in axes:
            index = torch.arange(shape[axis])
            total = total + index.view(-1, *(1 for _ in shape[axis + 1 :]))
        return ((total + 1) % 2).double().expand(shape).clone()
    if name in STRUCTURES:
        structure = STRUCTURES[name]((shape[0], 1, *shape[2:]), float(number), generator)
        return structure.double().expand(shape).clone()
    raise CaseError(f"mask={family} is no family of masks")


def _box(shape: Shape, generator: torch.Generator) -> Tensor:
    mask = torch.ones(shape, dtype=torch.float64)
    for axis in range(2, len(shape)):
        ends = torch.randint(0, shape[axis] + 1, (2,), generator=generator).sort().values
        index = torch.arange(shape[axis])
        inside = (index >= ends[0]) & (index < ends[1].clamp(min=int(ends[0]) + 1))
        mask = mask * inside.view(-1, *(1 for _ in shape[axis + 1 :]))
    return mask


def _blocks(shape: Shape, share: float, generator: torch.Generator) -> Tensor:
    """Return blocks of an eighth of every axis, each present with probability `share`."""
    sides = [max(1, size // 8) for size in shape[2:]]
    counts = [-(-size // side) for size, side in zip(shape[2:], sides, strict=True)]
    mask = torch.rand((*shape[:2], *counts), generator=generator) < share
    for axis, (side, size) in enumerate(zip(sides, shape[2:], strict=True), start=2):
        mask = mask.repeat_interleave(side, axis).narrow(axis, 0, size)
    return mask


def _border(shape: Shape, share: float, _: torch.Generator) -> Tensor:
    """Return the centred box that holds `share` of the positions."""
    mask = torch.ones(shape, dtype=torch.bool)
    for axis, size in enumerate(shape[2:], start=2):
        held = round(size * share ** (1 / (len(shape) - 2)))
        index = torch.arange(size) - (size - held) // 2
        inside = (index >= 0) & (index < held)
        mask &= inside.view(-1, *(1 for _ in shape[axis + 1 :]))
    return mask


def _bands(shape: Shape, share: float, _: torch.Generator) -> Tensor:
    """Return bands along the last axis."""
    return (torch.arange(shape[-1]) % BAND < round(BAND * share)).expand(shape)


def _freeform(shape: Shape, share: float, generator: torch.Generator) -> Tensor:
    """Return smooth noise, cut where `share` of the positions is above."""
    coarse = [max(2, size // 8) for size in shape[2:]]
    noise = torch.randn((*shape[:2], *coarse), generator=generator)
    mode = ("linear", "bilinear", "trilinear")[len(coarse) - 1]
    smooth = F.interpolate(noise, shape[2:], mode=mode, align_corners=False).flatten(1)
    order = smooth.argsort(1, descending=True).argsort(1)
    return (order < round(share * prod(shape[2:]))).view(shape)


STRUCTURES: Mapping[str, Callable[[Shape, float, torch.Generator], Tensor]] = {
    "blocks": _blocks,
    "border": _border,
    "bands": _bands,
    "freeform": _freeform,
}
"""Where `bernoulli` can be chosen, these can; laws do not draw them, since they say no more."""
