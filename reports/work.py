"""What calls ask for and what is called for: operations, bytes, the share of a ceiling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from harness.comparison import deciding_row, median_ns
from harness.results import LoadedRun, Measurement, Status
from reports.doubt import Doubts
from reports.frame import case_labels, grouped
from reports.ledger import COPY


def work(run: LoadedRun, doubtful: Doubts) -> list[dict[str, Any]]:
    """Return the work of every implementation in the case of its variant that needs most of it."""
    labels = case_labels(run.measurements)
    cells = [rows for rows in grouped(run.measurements).values() if not rows[0].placebo]
    cells = [rows for rows in cells if rows[0].useful_flop is not None]
    largest: dict[tuple[object, ...], tuple[int, str]] = {}
    for first, *_ in cells:
        size = (first.useful_flop or 0, first.case)
        key = (first.variant, first.direction)
        largest[key] = max(largest.get(key, size), size)
    found = []
    for rows in cells:
        first = rows[0]
        if largest[first.variant, first.direction][1] == first.case:
            names = ("variant", "case", "case_name", "direction", "dtype", "device", "threads")
            cell = tuple(getattr(first, name) for name in (*names, "flags"))
            doubt = doubtful.get((first.variant, first.implementation))
            counts = [row.instructions for row in rows if row.instructions is not None]
            found.append({
                "row": first, "label": labels[cell], "doubt": doubt and doubt.outcome,
                "share": share(rows, run.run.ceilings, run.run.threads),
                "instructions": min(counts, default=None),
            })  # fmt: skip
    return found


def share(
    rows: Iterable[Measurement], ceilings: Mapping[str, float], usual_threads: int
) -> float | None:
    """Return the useful rate over what the machine was seen to reach at that intensity.

    None where that is not known, and for rows that did not end well: their time is not that of
    the work.
    """
    rows = list(rows)
    row, middle = rows[0], median_ns(rows)
    if deciding_row(rows).status is not Status.MEASURED:
        return None
    ending = "" if row.threads == usual_threads else f"_with_{row.threads}_threads"
    copy = ceilings.get(f"{COPY}{ending}", math.nan)
    product = ceilings.get(f"{row.dtype}_flop_per_s{ending}", math.nan)
    if not (middle and row.useful_flop and row.useful_bytes and copy > 0 and product > 0):
        return None
    roof = min(product, copy * row.useful_flop / row.useful_bytes)
    return row.useful_flop / (middle / 1e9) / roof
