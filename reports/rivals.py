"""Every other implementation as the baseline: compared beforehand, shown by the page on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.comparison import Comparison, GeometricMean, compare, summarize
from harness.results import LoadedRun, Measurement, VariantCard
from reports import frame
from reports.doubt import Doubts
from reports.headlines import Places, headline


def choices(card: VariantCard, measurements: Sequence[Measurement], declared: str) -> list[str]:
    """Return the implementations of a variant that others can be compared with, declared first."""
    timed = dict.fromkeys(
        row.implementation for row in measurements if row.variant == card.name and row.samples_ns
    )
    return sorted(timed, key=lambda name: name != declared)


def rivals(
    card: VariantCard, loaded: LoadedRun, cells: pd.DataFrame, doubtful: Doubts, places: Places,
    render: Callable[[Mapping[str, Any]], str],
) -> dict[str, Any]:  # fmt: skip
    """Return, per baseline other than the declared one, what the page shows then.

    The estimator is that of the run. The p-values are adjusted over the rows of this variant, and
    the placebo, which repeats the declared baseline, is left out.

    Args:
        card: The variant.
        loaded: The run.
        cells: The rows of the page.
        doubtful: Who makes no headline.
        places: Words for devices and threads.
        render: Turns a headline into the HTML of the verdict strip.
    """
    own = [row for row in loaded.measurements if row.variant == card.name and not row.placebo]
    declared = frame.declared_baseline(card, loaded)
    found = {}
    for name in choices(card, own, declared):
        if name == declared:
            continue
        compared = compare(own, {card.name: name})
        means = summarize(compared)
        found[name] = {
            "strip": render(headline(card, means, cells, doubtful, places)),
            "rows": {
                frame.row_anchor(row): [*_numbers(row), row.p_value, row.why] for row in compared
            },
            "means": [
                [
                    mean.implementation,
                    mean.direction,
                    places[mean.place],
                    *_numbers(mean),
                ]
                for mean in means
            ],
        }
    return found


def _numbers(row: Comparison | GeometricMean) -> list[Any]:
    ends = (row.ratio, row.ratio_low, row.ratio_high, row.p_adjusted)
    return [*(None if end is None else float(f"{end:.6g}") for end in ends), str(row.verdict)]
