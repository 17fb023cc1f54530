"""Statistics of activations through depth: plain, masked and partial convolution, the same weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from harness.evidence import Evidence, Made
from properties.claims._tools import variant
from properties.claims.distribution import cut_mask

SIZE, STAGES = 256, 8


class Shape(NamedTuple):
    """The first four moments of a set of values, standardised beyond the second."""

    mean: float
    deviation: float
    skewness: float
    kurtosis: float


def shape_of(values: Tensor) -> Shape | None:
    """Return the moments; None where there is no spread."""
    values = values.double()
    mean = values.mean()
    centred = values - mean
    variance = centred.square().mean()
    if values.numel() < 2 or variance == 0:
        return None
    return Shape(
        float(mean), float(variance.sqrt()), float(centred.pow(3).mean() / variance**1.5),
        float(centred.pow(4).mean() / variance**2),
    )  # fmt: skip


def statistics(made: Made) -> Evidence:
    """Send one normal image with holes through eight stages."""
    draw = torch.Generator().manual_seed(0)
    mask, image = cut_mask(SIZE), torch.randn(1, 3, SIZE, SIZE, generator=draw)
    state = dict.fromkeys(("plain", "masked", "partial"), (image * mask, mask))
    rows: list[tuple[str | float, ...]] = []
    for stage in range(STAGES):
        c_out = 4 * 2**stage
        c_in = 12 if stage == 0 else 2 * c_out
        weight = torch.randn(c_out, c_in, 3, 3, generator=draw) / (9 * c_in) ** 0.5
        for way, (signal, present) in state.items():
            x, m = pixel_unshuffle(signal, 2), pixel_unshuffle(present, 2)
            if way == "plain":
                y, kept = torch.conv2d(x, weight, padding=1), torch.ones(1, c_out, *x.shape[2:])
            else:
                y, kept = variant(way).functional(x, weight, None, m, padding=1)
                kept = kept.expand_as(y).contiguous()
            state[way] = y, kept
            share = float((kept > 0).double().mean())
            for name, values in (("all", y.flatten()), ("present", y[kept > 0])):
                found = shape_of(values)
                numbers = ("no spread",) * 4 if found is None else tuple(map(_short, found))
                rows.append((stage + 1, way, name, *numbers, _short(share)))
    return Evidence(
        name="activations",
        title="Activations through depth",
        about=(
            f"One normal image of {SIZE}x{SIZE} with holes through {STAGES} stages, each space-to-depth "
            "by 2 and a 3x3 convolution without bias or activation; the same weights for all, plain sees "
            "the masked image. Moments over all channels, and over all or the present positions; 3 is "
            "the kurtosis of a normal distribution."
        ),
        made=made,
        columns=("stage", "way", "over", *Shape._fields, "share present"),
        rows=tuple(rows),
    )


def _short(value: float) -> float:
    return float(f"{value:.4g}")
