"""What process-wise log ratios say: an interval, tests, p-values adjusted for a family, a verdict.

Nothing here knows what was measured; `harness.comparison` does.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from scipy import special

CONFIDENCE = 0.95
MARGIN = 0.03


class Speed(StrEnum):
    """What can be said about a ratio of times."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    UNRESOLVED = "UNRESOLVED"


class Adjusted(NamedTuple):
    """A p-value adjusted for a family of so many rows."""

    p_value: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean log ratio with its interval and tests; `half` is None for less than two processes."""

    mean: float | None
    count: int = 0
    half: float | None = None
    p_value: float | None = None
    p_same: float = 1.0

    def at(self, side: int) -> float | None:
        """Return the lower (-1) or upper (1) end of the interval as a ratio."""
        if self.mean is None or self.half is None:
            return None
        return math.exp(self.mean + side * self.half)

    @property
    def ratio(self) -> float | None:
        """The mean as a ratio."""
        return None if self.mean is None else math.exp(self.mean)


def estimated(logs: Sequence[float], margin: float) -> Estimate:
    """Return what the log ratios of so many processes come to."""
    if not logs:
        return Estimate(mean=None)
    mean = statistics.fmean(logs)
    if len(logs) == 1:
        return Estimate(mean=mean, count=1)
    error, freedom = statistics.stdev(logs) / math.sqrt(len(logs)), len(logs) - 1
    return Estimate(
        mean=mean,
        count=len(logs),
        half=float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error,
        p_value=2 * _upper_tail(abs(mean), error, freedom),
        # Of the two one-sided tests against the margin the nearer end decides.
        p_same=_upper_tail(math.log1p(margin) - abs(mean), error, freedom),
    )


def _upper_tail(distance: float, error: float, freedom: int) -> float:
    if error == 0:  # processes agree to the last bit: the limit of the t-distribution
        return 0.5 if distance == 0 else float(distance < 0)
    return float(special.stdtr(freedom, -distance / error))


def adjusted_for(p_values: Mapping[int, float | None]) -> dict[int, Adjusted]:
    """Return p-values after Benjamini and Hochberg; those that are not known stay out."""
    from scipy import stats  # it takes a second to import, which few of our processes need

    known = {i: p for i, p in p_values.items() if p is not None}
    if not known:
        return {}
    adjusted = stats.false_discovery_control(list(known.values()))
    return {i: Adjusted(float(p), len(known)) for i, p in zip(known, adjusted, strict=True)}


def judged(
    estimate: Estimate, adjusted: Adjusted | None, margin: float, of: str
) -> tuple[Speed, str]:
    """Return the verdict on an interval and the sentence that says why."""
    alpha = 1 - CONFIDENCE
    if estimate.mean is None or estimate.ratio is None:
        return Speed.UNRESOLVED, "there is no ratio to judge"
    if estimate.half is None or adjusted is None:
        text = f"ratio {estimate.ratio:.4g} {of}, but an interval takes two processes, better five"
        return Speed.UNRESOLVED, text
    low, high = math.exp(estimate.mean - estimate.half), math.exp(estimate.mean + estimate.half)
    found = f"ratio {estimate.ratio:.4g}, {CONFIDENCE:.0%} interval [{low:.4g}, {high:.4g}] {of}"
    test = f"adjusted p = {adjusted.p_value:.2g} over {adjusted.rows} rows"
    if estimate.p_same <= alpha:
        return (
            Speed.SAME,
            f"{found} lies within {margin:.0%} of 1 (two one-sided tests, p = {estimate.p_same:.2g})",
        )
    if adjusted.p_value <= alpha and abs(estimate.mean) > estimate.half:
        verdict = Speed.FASTER if estimate.mean < 0 else Speed.SLOWER
        return verdict, f"{found} excludes 1; {test}"
    more = f"about {processes_needed(estimate, margin)} processes would tell"
    if abs(estimate.mean) > estimate.half:
        return Speed.UNRESOLVED, f"{found} excludes 1, but {test} does not; {more}"
    return (
        Speed.UNRESOLVED,
        f"{found} holds 1 and reaches beyond the margin of {margin:.0%}; {test}; {more}",
    )


def processes_needed(estimate: Estimate, margin: float) -> int:
    """Return how many processes should tell, were the ratio what it seems and as scattered.

    Half-widths shrink with the root of the number; either 1 or the margin is to be excluded,
    whichever is farther away.
    """
    distance = abs(estimate.mean or 0.0)
    wanted = max(distance, math.log1p(margin) - distance)
    return max(estimate.count + 1, math.ceil(estimate.count * ((estimate.half or 0) / wanted) ** 2))
