"""The verdict strip: per variant its best implementation that may claim, or why there is none."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.comparison import GeometricMean, Speed
from harness.results import VariantCard
from reports.advice import use
from reports.doubt import Doubts
from reports.words import DIRECTIONS, Place, word

Places = Mapping[Place, str]


def headline(
    card: VariantCard, means: Sequence[GeometricMean], cells: pd.DataFrame, doubtful: Doubts,
    places: Places,
) -> dict[str, Any]:  # fmt: skip
    """Return the lines of a variant: its best implementation per direction, or why there is none.

    Whoever is in doubt makes no headline, and nobody does against a baseline in doubt.
    """
    own = [mean for mean in means if mean.variant == card.name]
    baselines = {mean.baseline for mean in own} | (
        {card.baseline} if card.baseline and not own else set()
    )
    spoiled = any((card.name, baseline) in doubtful for baseline in baselines)
    oracles = {item.name for item in card.implementations if item.kind == "oracle"}
    entries = []
    for direction, place in itertools.product(DIRECTIONS, places):
        found = [
            mean
            for mean in own
            if mean.direction == direction
            and mean.place == place
            and mean.ratio is not None
            and (card.name, mean.implementation) not in doubtful
        ]
        found = [mean for mean in found if mean.implementation not in oracles] or found
        # A record on a corner of the cells is no headline if another covers more.
        wide = [mean for mean in found if 2 * mean.counted >= mean.cells] or found
        if wide and not spoiled:
            sure = [mean for mean in wide if mean.verdict is Speed.FASTER]
            best = min(sure or wide, key=lambda mean: mean.ratio or math.inf)
            entries.append(_entry(best) | {"place": places[place]})
    left_out = [
        {"name": name, "doubt": doubt, "is_baseline": name in baselines}
        for (variant, name), doubt in doubtful.items()
        if variant == card.name
    ]
    reason = ""
    if not entries:
        rows = cells[(cells["variant"] == card.name) & ~cells["placebo"]] if len(cells) else cells
        judged = left_out and len(rows) and rows["ratio"].notna().any()
        reason = no_number(card, rows)
        if judged:
            reason = "no ratio between implementations that every law accepts"
    return {
        "name": card.name,
        "entries": entries,
        "use": use(entries, len(DIRECTIONS) * len(places)),
        "reason": reason,
        "left_out": left_out,
        "baseline": ", ".join(sorted(baselines)),
    }


def _entry(mean: GeometricMean) -> dict[str, Any]:
    ratio, low, high = mean.ratio or math.nan, mean.ratio_low, mean.ratio_high
    ends: tuple[float, float] | None = None
    faster = mean.verdict is Speed.FASTER
    if low is not None and high is not None:
        ends = (1 / high, 1 / low) if faster else (low, high)
    return {
        "mean": mean,
        "verdict": mean.verdict,
        "number": 1 / ratio if faster else ratio,
        "ends": ends,
        "memory": None if mean.memory_ratio is None else mean.memory_ratio - 1,
    }


def no_number(card: VariantCard, cells: pd.DataFrame) -> str:
    """Return the sentence for a variant without any ratio."""
    if not len(cells):
        absent = [
            f"{i.name} is not available, {i.reason}" for i in card.implementations if i.reason
        ]
        return "; ".join(["nothing of this variant was timed in this run", *absent])
    counts = Counter(zip(cells["status"], cells["reason"], strict=True))
    parts = [
        f"{count} × {word(status)}" + (f" ({reason})" if reason else "")
        for (status, reason), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    more = f", and {len(parts) - 3} other reasons" if len(parts) > 3 else ""
    return f"no ratio; its cells: {', '.join(parts[:3])}{more}"
