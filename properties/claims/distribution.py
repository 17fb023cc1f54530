"""Does the distribution of activations survive a mask? Statistics through depth."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from harness.claim import Answer, Judgement, claim, decide
from properties.claims._tools import MASKED_TORCH, variant

SAMPLES, SIZE, STAGES = 64, 64, 4
SIGNIFICANT = 5.0
"""Standard errors over channels: beyond chance for the few comparisons that are made here."""


class Moments(NamedTuple):
    """Averages over the channels of one stage; `error` is the standard error of the kurtosis."""

    deviation: float
    skewness: float
    kurtosis: float
    error: float


def moments(y: Tensor, present: Tensor) -> Moments:
    """Return the moments over samples and present positions, channel by channel, averaged."""
    rows = []
    for channel in range(y.shape[1]):
        values = y[:, channel][:, present[0, channel] > 0].double().flatten()
        values = values - values.mean()
        variance = values.square().mean()
        if values.numel() and variance > 0:
            rows.append(
                torch.stack([
                    variance.sqrt(), values.pow(3).mean() / variance**1.5,
                    values.pow(4).mean() / variance**2,
                ])
            )  # fmt: skip
    found = torch.stack(rows)
    error = found[:, 2].std() / len(rows) ** 0.5
    return Moments(*found.mean(0).tolist(), float(error))


def cut_mask(size: int) -> Tensor:
    """Return a mask of three channels: quarters cut away clockwise, then a grid of positions."""
    half, mask = size // 2, torch.ones(1, 3, size, size)
    mask[:, :1, :half, half:] = 0
    mask[:, :2, half:, half:] = 0
    mask[:, :, half:, :half] = 0
    for step in (2, 3):
        mask[..., ::step, :] = 0
        mask[..., ::step] = 0
    return mask


@cache
def through_depth() -> dict[str, list[Moments]]:
    """Return the moments over present positions, stage by stage, for every way to convolve.

    A stage is space-to-depth by 2 and a 3x3 convolution without a bias; the weights are the same
    for all. `plain` sees the whole image, the others the masked one.
    """
    draw = torch.Generator().manual_seed(0)
    mask = cut_mask(SIZE)
    whole = torch.randn(SAMPLES, 3, SIZE, SIZE, generator=draw)
    ways = {"plain": (whole, torch.ones_like(mask)), "masked": (whole * mask, mask)}
    ways["partial"] = ways["masked"]
    found: dict[str, list[Moments]] = {way: [] for way in ways}
    for stage in range(STAGES):
        c_out = 4 * 2**stage
        c_in = 12 if stage == 0 else 2 * c_out
        weight = torch.randn(c_out, c_in, 3, 3, generator=draw) / (9 * c_in) ** 0.5
        for way, (signal, present) in ways.items():
            y, updated = pixel_unshuffle(signal, 2), pixel_unshuffle(present, 2)
            y, updated = variant(way).functional(y, weight, None, updated, padding=1) if (
                way != "plain"
            ) else (torch.conv2d(y, weight, padding=1), None)  # fmt: skip
            updated = torch.ones_like(y[:1]) if updated is None else updated.expand_as(y[:1])
            ways[way] = y, updated.contiguous()
            found[way].append(moments(y, updated))
    return found


def _kurtoses(way: str) -> str:
    return ", ".join(f"{m.kurtosis:.2f}" for m in through_depth()[way])


def _is_disturbed(way: str) -> bool:
    """Whether the kurtosis differs from that without any mask, at some stage beyond chance."""
    pairs = zip(through_depth()[way], through_depth()["plain"], strict=True)
    return any(
        abs(a.kurtosis - b.kurtosis) > SIGNIFICANT * (a.error**2 + b.error**2) ** 0.5
        for a, b in pairs
    )


@claim("000.1", MASKED_TORCH, "MaskedConv keeps outputs normally distributed.", Answer.FALSE)
def masked_keeps_the_distribution() -> Judgement:
    """Compare the kurtosis with that of the same network without a mask."""
    return decide(
        not _is_disturbed("masked"),
        f"kurtosis over present positions, stages 1 to {STAGES}: masked {_kurtoses('masked')}; "
        f"the same network without a mask {_kurtoses('plain')} (normal: 3)",
    )


@claim("000.2", MASKED_TORCH, "PartialConv disturbs the distribution of outputs.", Answer.TRUE)
def partial_disturbs_the_distribution() -> Judgement:
    """Compare the kurtosis with that of the same network without a mask."""
    return decide(
        _is_disturbed("partial"),
        f"kurtosis over present positions, stages 1 to {STAGES}: partial {_kurtoses('partial')}; "
        f"the same network without a mask {_kurtoses('plain')} (normal: 3)",
    )


@claim(
    "000.3", MASKED_TORCH,
    "Through depth, activations keep a steadier scale with MaskedConv than with PartialConv.",
    Answer.FALSE,
)  # fmt: skip
def masked_is_steadier() -> Judgement:
    """Compare how much of the first stage's deviation is left, against the unmasked network."""

    def kept(way: str) -> float:
        rows = [row.deviation for row in through_depth()[way]]
        return rows[-1] / rows[0]

    plain, masked, partial = map(kept, ("plain", "masked", "partial"))
    drift = {way: abs(torch.tensor(kept(way) / plain).log()) for way in ("masked", "partial")}
    return decide(
        bool(drift["masked"] < drift["partial"]),
        f"deviation at stage {STAGES} over that at stage 1: masked {masked:.3g}, partial "
        f"{partial:.3g}, without a mask {plain:.3g}",
    )
