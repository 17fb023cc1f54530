"""The samples of a row, process by process, in the order in which they were taken."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import TypeAlias

from harness.results import Measurement

FENCE = 1.5
"""Quartile distances beyond the quartiles: a sample farther out is marked, and kept."""

Series: TypeAlias = list[int | float | list[int]]


def series(rows: Iterable[Measurement]) -> list[Series]:
    """Return `[process, median, low fence, high fence, samples]` per process with samples.

    Samples outside the fences are outliers of their process. Times in ns per call, in block order.
    """
    found: list[Series] = []
    for row in sorted(rows, key=lambda row: row.process):
        if row.samples_ns:
            ordered = [sample for _, sample in sorted(zip(row.block, row.samples_ns, strict=True))]
            low, high = fences(ordered)
            middle = statistics.median(ordered)
            found.append([row.process, _short(middle), _short(low), _short(high), ordered])
    return found


def fences(samples: list[int]) -> tuple[float, float]:
    """Return the ends beyond which samples count as outliers: Tukey's, from the quartiles."""
    ordered = sorted(samples)
    lower, upper = (_quantile(ordered, share) for share in (0.25, 0.75))
    reach = FENCE * (upper - lower)
    return lower - reach, upper + reach


def outliers(found: Iterable[Series]) -> int:
    """Return how many samples lie outside the fences of their process."""
    count = 0
    for _, _, low, high, samples in found:
        assert isinstance(samples, list)
        count += sum(not low <= sample <= high for sample in samples)  # type: ignore[operator]
    return count


def _quantile(ordered: list[int], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _short(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 1)
