"""How much faster: ratios of time, intervals over processes, verdicts; derived, never stored.

Two samples pair when they come from the same block of the same process, so what disturbs a whole
block divides out. The unit of evidence is the process: the per-process medians of the per-block
log ratios carry the interval, because samples of one process are far from independent.

Samples that were taken in turns are those of their middle turns at the usual pace, as long as the whole
samples do not say otherwise: what only some calls cost is seen by these alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from harness.inference import (
    CONFIDENCE,
    MARGIN,
    Adjusted,
    Estimate,
    Speed,
    adjusted_for,
    estimated,
    judged,
)
from harness.results import Measurement, Status

__all__ = [
    "CONFIDENCE", "MARGIN", "Comparison", "GeometricMean", "PlaceboSummary", "Speed", "compare",
    "deciding_row", "median_ns", "peak_bytes", "summarize", "summarize_placebo",
]  # fmt: skip

# What decides a cell that ended differently in different processes, first match first: a failure
# anywhere outweighs numbers, numbers outweigh a process that was merely left out.
_DECIDING = (
    Status.REFUTED,
    Status.CRASHED,
    Status.TIMED_OUT,
    Status.OUT_OF_MEMORY,
    Status.MEASURED,
    Status.THROTTLED,
    Status.UNSUPPORTED,
    Status.NO_TIME,
    Status.NOT_SELECTED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One implementation against its baseline in one cell; `ratio` below 1 is faster.

    `process_ratios[i]` is what process `process[i]` found, `samples` the number of paired blocks,
    `p_value` the two-sided t-test of ratio 1, `p_adjusted` the same after Benjamini-Hochberg over
    all rows compared at once. `lack` is what keeps the row from being judged, empty where nothing
    does. Whatever could not be had is `None`, never 1.
    """

    variant: str
    implementation: str
    case: str
    case_name: str
    direction: str
    dtype: str
    device: str
    threads: int
    flags: str
    baseline: str
    placebo: bool
    status: Status
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    p_value: float | None
    p_adjusted: float | None
    verdict: Speed
    why: str
    lack: str
    median_ns: float | None
    baseline_median_ns: float | None
    processes: int
    samples: int
    process: tuple[int, ...]
    process_ratios: tuple[float, ...]
    peak_bytes: int | None
    baseline_peak_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricMean:
    """The ratios of one implementation over its cells, as one ratio with an interval.

    `counted` of `cells` cells have a ratio; a cell that failed or is unsupported stays in `cells`
    and out of the mean. `memory_ratio` is the geometric mean of the ratios of peak bytes over
    `memory_cells` cells.
    """

    variant: str
    implementation: str
    direction: str
    device: str
    threads: int
    flags: str
    baseline: str
    cells: int
    counted: int
    faster: int
    slower: int
    same: int
    processes: int
    process_ratios: tuple[float, ...]
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    p_adjusted: float | None
    verdict: Speed
    why: str
    memory_ratio: float | None
    memory_cells: int

    @property
    def place(self) -> tuple[str, int, str]:
        """Where and how it ran; only means of one place can be set against each other."""
        return self.device, self.threads, self.flags


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceboSummary:
    """How far the baseline differs from itself, and the smallest effect the run can tell.

    `alarms` counts placebo rows judged FASTER or SLOWER. `detectable_*` are half-widths of the
    intervals of the ratios, as fractions: 0.01 means that a difference of 1 % shows.
    """

    rows: int
    alarms: int
    worst: Comparison | None
    detectable_median: float | None
    detectable_worst: float | None


def deciding_row(rows: Sequence[Measurement]) -> Measurement:
    """Return the row whose status and reason stand for a cell measured by several processes."""
    return min(rows, key=lambda row: _DECIDING.index(row.status))


def median_ns(rows: Iterable[Measurement], kind: str = "samples_ns") -> float | None:
    """Return the median over processes of the median sample, None without samples."""
    medians = [statistics.median(own) for row in rows if (own := getattr(row, kind))]
    return statistics.median(medians) if medians else None


def peak_bytes(rows: Iterable[Measurement]) -> int | None:
    """Return the largest peak over processes, None where none was measured."""
    return max((row.peak_bytes for row in rows if row.peak_bytes is not None), default=None)


def compare(
    measurements: Iterable[Measurement],
    baseline: Mapping[str, str] | None = None,
    *,
    margin: float = MARGIN,
) -> tuple[Comparison, ...]:
    """Compare every implementation with the baseline of its variant, cell by cell.

    Args:
        measurements: rows of one run; a later row of the same cell and process replaces an earlier.
        baseline: implementation to divide by, per variant; a variant that is not named takes the
            implementation its placebo repeats, else the first one measured.
        margin: ratios from 1 / (1 + margin) to 1 + margin count as SAME.

    Returns:
        One row per cell and implementation other than the baseline, in the order of appearance,
        also where there is no ratio: `why` then says what is missing.
    """
    cells: dict[tuple[str, ...], dict[tuple[str, bool], dict[int, Measurement]]] = {}
    chosen: dict[str, str] = {}
    for row in measurements:
        key = (row.variant, row.case, row.case_name, row.direction, row.dtype, row.device)
        cell = cells.setdefault((*key, str(row.threads), row.flags), {})
        cell.setdefault((row.implementation, row.placebo), {})[row.process] = row
        if row.placebo or row.variant not in chosen:
            chosen[row.variant] = row.implementation
    chosen |= baseline or {}

    drafts = [
        _Draft(rows, cell.get((chosen[variant], False), {}), chosen[variant])
        for (variant, *_), cell in cells.items()
        for (name, placebo), rows in cell.items()
        if placebo or name != chosen[variant]
    ]
    estimates = [draft.estimate(margin) for draft in drafts]
    # The placebo is known to be null: it neither pads nor thins the family of real questions.
    adjusted: dict[int, Adjusted] = {}
    for placebo in (False, True):
        asked = [i for i, d in enumerate(drafts) if d.rows[0].placebo is placebo and not d.lack]
        adjusted |= adjusted_for({i: estimates[i].p_value for i in asked})
    return tuple(
        _comparison(draft, estimate, adjusted.get(i), margin)
        for i, (draft, estimate) in enumerate(zip(drafts, estimates, strict=True))
    )


def summarize(
    comparisons: Iterable[Comparison], *, margin: float = MARGIN
) -> tuple[GeometricMean, ...]:
    """Average ratios geometrically per variant, implementation, direction and place.

    Each process gives the mean over cells of its log ratios; the interval is over processes that
    measured every counted cell. NOT_SELECTED cells were not asked for and are not in `cells`.
    """
    groups: dict[tuple[str | int, ...], list[Comparison]] = {}
    for row in comparisons:
        if not row.placebo and row.status is not Status.NOT_SELECTED:
            place = (row.device, row.threads, row.flags)
            key = (row.variant, row.implementation, row.direction, *place)
            groups.setdefault(key, []).append(row)
    drafts = []
    for rows in groups.values():
        counted = [r for r in rows if r.ratio is not None and not r.lack]
        found = [dict(zip(r.process, r.process_ratios, strict=True)) for r in counted]
        common = sorted(set.intersection(*(set(f) for f in found))) if found else []
        means = [statistics.fmean(math.log(f[p]) for f in found) for p in common]
        estimate = estimated(means, margin)
        if not means and found:  # no process saw all cells: a mean, but no interval
            estimate = Estimate(
                mean=statistics.fmean(math.log(r.ratio) for r in counted if r.ratio)
            )
        drafts.append((rows, counted, means, estimate))
    adjusted = adjusted_for({i: draft[3].p_value for i, draft in enumerate(drafts)})
    return tuple(_geometric_mean(*draft, adjusted.get(i), margin) for i, draft in enumerate(drafts))


def summarize_placebo(comparisons: Iterable[Comparison]) -> PlaceboSummary:
    """Find the placebo row farthest from 1, and how wide the intervals of the run are."""
    rows = list(comparisons)
    placebos = [(abs(math.log(r.ratio)), r) for r in rows if r.placebo and r.ratio is not None]
    worst = max(placebos, key=lambda pair: pair[0])[1] if placebos else None
    halves = [
        math.sqrt(row.ratio_high / row.ratio_low) - 1
        for row in rows
        if row.ratio_low is not None and row.ratio_high is not None
    ]
    alarms = (Speed.FASTER, Speed.SLOWER)
    return PlaceboSummary(
        rows=len(placebos),
        alarms=sum(row.verdict in alarms for _, row in placebos),
        worst=worst,
        detectable_median=statistics.median(halves) if halves else None,
        detectable_worst=max(halves, default=None),
    )


def _paired_logs(
    rows: Mapping[int, Measurement], base: Mapping[int, Measurement], kind: str
) -> dict[int, list[float]]:
    """Return the log ratios of paired blocks per process, leaving out processes without a pair."""
    logs, samples = {}, attrgetter(kind)
    for process in sorted(rows.keys() & base.keys()):
        if Status.THROTTLED in {rows[process].status, base[process].status}:
            continue
        one, two = rows[process], base[process]
        if one.block == two.block and len(set(one.block)) == len(one.block):  # nearly always
            pairs = list(zip(samples(one), samples(two), strict=True))
        else:
            mine, theirs = (dict(zip(m.block, samples(m), strict=True)) for m in (one, two))
            pairs = [(mine[b], theirs[b]) for b in sorted(mine.keys() & theirs.keys())]
        # A sample of 0 ns says that the timer was too coarse, not that the ratio is 0.
        if pairs and all(min(pair) > 0 for pair in pairs):
            logs[process] = [math.log(a / b) for a, b in pairs]
    return logs


class _Draft:
    """A comparison before the rows of its family are known."""

    def __init__(
        self, rows: Mapping[int, Measurement], base: Mapping[int, Measurement], baseline: str
    ) -> None:
        self.rows, self.base, self.baseline = list(rows.values()), list(base.values()), baseline
        statuses = {row.status for row in (*self.rows, *self.base)}
        # The time of a wrong answer is no time.
        self.logs = {} if Status.REFUTED in statuses else _paired_logs(rows, base, "samples_ns")
        self.uneven, self.kind = "", "samples_ns"
        if self.logs and all(row.mean_ns for row in (*self.rows, *self.base) if row.samples_ns):
            self._heed(_paired_logs(rows, base, "mean_ns"))
        self.lack = self._lack()

    def estimate(self, margin: float) -> Estimate:
        return estimated([statistics.median(logs) for logs in self.logs.values()], margin)

    def _heed(self, whole: dict[int, list[float]]) -> None:
        """Take the whole samples where processes agree that they tell of another ratio."""
        apart = [
            statistics.median(whole[process]) - statistics.median(logs)
            for process, logs in self.logs.items()
            if process in whole
        ]
        found = estimated(apart, MARGIN)
        if found.half is not None and abs(found.mean or 0.0) > found.half:
            turns = self.estimate(MARGIN).ratio or 1.0
            self.uneven = f"by whole samples, as calls cost unevenly: {turns:.4g} by middle turns"
            self.logs, self.kind = whole, "mean_ns"

    def _lack(self) -> str:
        """Return what keeps this comparison from being judged, empty where nothing does."""
        if not self.base:
            return f"baseline {self.baseline} was not measured in this cell"
        for name, rows in (("", self.rows), (f"baseline {self.baseline}: ", self.base)):
            row = deciding_row(rows)
            if row.status is not Status.MEASURED:
                return f"{name}{row.status}" + (f", {row.reason}" if row.reason else "")
        return "" if self.logs else "no block of any process holds a usable sample of both"


def _comparison(
    draft: _Draft, estimate: Estimate, adjusted: Adjusted | None, margin: float
) -> Comparison:
    row, logs = deciding_row(draft.rows), draft.logs
    blocks = "-".join(map(str, sorted({len(values) for values in logs.values()})))
    of = f"over {len(logs)} processes of {blocks} blocks"
    of += f" ({draft.uneven})" if draft.uneven else ""
    verdict, why = judged(estimate, adjusted, margin, of)
    if draft.lack:
        kept = (
            "no ratio" if estimate.ratio is None else f"ratio {estimate.ratio:.4g} {of}, not judged"
        )
        verdict, why = Speed.UNRESOLVED, f"{kept}: {draft.lack}"
    return Comparison(
        **{name: getattr(row, name) for name in _COPIED},
        baseline=draft.baseline,
        ratio=estimate.ratio,
        ratio_low=estimate.at(-1),
        ratio_high=estimate.at(1),
        p_value=estimate.p_value,
        p_adjusted=adjusted.p_value if adjusted else None,
        verdict=verdict,
        why=why,
        lack=draft.lack,
        median_ns=None if row.status is Status.REFUTED else median_ns(draft.rows, draft.kind),
        baseline_median_ns=median_ns(draft.base, draft.kind),
        processes=len(logs),
        samples=sum(map(len, logs.values())),
        process=tuple(logs),
        process_ratios=tuple(math.exp(statistics.median(values)) for values in logs.values()),
        peak_bytes=peak_bytes(draft.rows),
        baseline_peak_bytes=peak_bytes(draft.base),
    )


_COPIED = (
    "variant", "implementation", "case", "case_name", "direction", "dtype", "device", "threads",
    "flags", "placebo", "status",
)  # fmt: skip


def _geometric_mean(
    rows: list[Comparison],
    counted: list[Comparison],
    means: list[float],
    estimate: Estimate,
    adjusted: Adjusted | None,
    margin: float,
) -> GeometricMean:
    row = rows[0]
    cells = f"geometric mean of {len(counted)} of {len(rows)} cells"
    of = f"over {len(means)} processes that measured all, {cells}"
    verdict, why = judged(estimate, adjusted, margin, of)
    if not counted:
        why = f"no ratio in any of {len(rows)} cells; the first: {row.why}"
    memory = [
        math.log(r.peak_bytes / r.baseline_peak_bytes)
        for r in counted
        if r.peak_bytes and r.baseline_peak_bytes
    ]
    votes = [r.verdict for r in counted]
    return GeometricMean(
        variant=row.variant,
        implementation=row.implementation,
        direction=row.direction,
        device=row.device,
        threads=row.threads,
        flags=row.flags,
        baseline=row.baseline,
        cells=len(rows),
        counted=len(counted),
        faster=votes.count(Speed.FASTER),
        slower=votes.count(Speed.SLOWER),
        same=votes.count(Speed.SAME),
        processes=len(means),
        process_ratios=tuple(map(math.exp, means)),
        ratio=estimate.ratio,
        ratio_low=estimate.at(-1),
        ratio_high=estimate.at(1),
        p_adjusted=adjusted.p_value if adjusted else None,
        verdict=verdict,
        why=why,
        memory_ratio=math.exp(statistics.fmean(memory)) if memory else None,
        memory_cells=len(memory),
    )
