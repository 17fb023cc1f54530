"""Statistics of activations through depth: plain, masked and partial convolution, the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pixel_unshuffle

from harness.evidence import Evidence, Made
from properties.claims._tools import variant
from properties.claims.distribution import cut_mask

SIZE, STAGES, LARGEST = 256, 8, 16
WAYS = ("plain", "masked", "partial")
ABSENT = "."
"""What stands in a map where no channel is present."""
PROTOCOL = (
    f"One normal image of {SIZE}x{SIZE} with holes through {STAGES} stages, each space-to-depth by 2 "
    "and a 3x3 convolution without bias or activation; the same weights for all, plain sees the "
    "masked image."
)


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


def through_stages() -> Iterator[tuple[int, str, Tensor, Tensor]]:
    """Send one normal image with holes through the stages: yield stage, way, activations, mask.

    Stage 0 is the image, of three channels; the mask is that which a way returns, of the shape of
    the activations.
    """
    draw = torch.Generator().manual_seed(0)
    mask, image = cut_mask(SIZE), torch.randn(1, 3, SIZE, SIZE, generator=draw)
    state = dict.fromkeys(WAYS, (image * mask, mask))
    yield from ((0, way, *state[way]) for way in WAYS)
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
            yield stage + 1, way, y, kept


def statistics(made: Made) -> Evidence:
    """Take the moments of every stage."""
    rows: list[tuple[str | float, ...]] = []
    for stage, way, y, kept in through_stages():
        if stage == 0:
            continue
        share = float((kept > 0).double().mean())
        for name, values in (("all", y.flatten()), ("present", y[kept > 0])):
            found = shape_of(values)
            numbers = ("no spread",) * 4 if found is None else tuple(map(_short, found))
            rows.append((stage, way, name, *numbers, _short(share)))
    return Evidence(
        name="activations",
        title="Activations through depth",
        about=(
            f"{PROTOCOL} Moments over all channels, and over all or the present positions; 3 is "
            "the kurtosis of a normal distribution."
        ),
        made=made,
        columns=("stage", "way", "over", *Shape._fields, "share present"),
        rows=tuple(rows),
    )


def mean_map(y: Tensor, kept: Tensor) -> tuple[float, list[list[str]]]:
    """Return the mean over channels as hundredths of its largest size, and that size.

    Maps are averaged down to at most `LARGEST` a side; `ABSENT` is where no channel is present.
    """
    step = max(1, y.shape[2] // LARGEST)
    means = avg_pool2d(y.double().mean(1, keepdim=True), step)[0, 0]
    present = avg_pool2d((kept > 0).double().mean(1, keepdim=True), step)[0, 0] > 0
    largest = float(means.abs().max())
    hundredths = (100 * means / (largest or 1.0)).round().int().tolist()
    return largest, [
        [str(value) if here else ABSENT for value, here in zip(line, places, strict=True)]
        for line, places in zip(hundredths, present.tolist(), strict=True)
    ]


def maps(made: Made) -> Evidence:
    """Draw the mean over channels of every stage."""
    rows: list[tuple[str | float, ...]] = []
    for stage, way, y, kept in through_stages():
        if stage == 0 and way != WAYS[0]:
            continue
        largest, lines = mean_map(y, kept)
        for number, line in enumerate(lines):
            rows.append((
                stage, "input" if stage == 0 else way, number, _short(largest), " ".join(line)
            ))  # fmt: skip
    return Evidence(
        name="activation_maps",
        title="Mean maps of activations through depth",
        about=(
            f"{PROTOCOL} The mean over the channels of a stage (stage 0 is the image), averaged down "
            f"to at most {LARGEST} a side, line by line from the top, as hundredths of the largest "
            "mean of that map, which stands beside it; a dot where no channel is present."
        ),
        made=made,
        columns=("stage", "way", "line", "largest mean", "hundredths of it, from left to right"),
        rows=tuple(rows),
    )


def _short(value: float) -> float:
    return float(f"{value:.4g}")
