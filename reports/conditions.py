"""What went on around the blocks: pace, clock and stolen time, block by block."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from harness.comparison import median_ns
from harness.disturbances import flagged
from harness.results import FAILED, MOST_STEAL, LoadedRun, Measurement, Outcome, Status
from reports import figures
from reports.frame import CELL, grouped, row_anchor
from reports.vector import svg
from reports.words import format_percent

COLUMNS = ("process", "relative", "clock_ghz", "steal_share", "power_w")
WIDE, HIGH = 220.0, 28.0
"""Points of a small curve."""
MOST = 480
"""Places of a curve; where there are more blocks, neighbours share one: their median and range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One quantity block by block: a small curve per process, and the same in words.

    `lines` are the points of a polyline each, within `WIDE` by `HIGH`; empty where the machine does
    not tell, and then `words` says so.
    """

    name: str
    lines: tuple[str, ...]
    words: str


def blocks_frame(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """Return one row per block in the order in which they were taken: how the machine was there.

    `relative` is the median over all rows with a sample in that block of the sample divided by the
    usual time of its row, which is the median over processes: 1 is the usual pace, a slope drift,
    and a process that is slow throughout stands out. `clock_ghz` is the frequency that the rows
    recorded there, `steal_share` the share of stolen time, `power_w` what the device drew; None
    where no row tells.
    """
    usual: dict[tuple[object, ...], float] = {}
    visits: dict[tuple[object, ...], list[Measurement]] = {}
    for rows in grouped(measurements).values():
        if middle := median_ns(rows):
            usual |= {(row_anchor(row), row.process): middle for row in rows if row.samples_ns}
    for row in measurements:  # as they were written: group after group, process after process
        if (row_anchor(row), row.process) in usual:
            cell = (row.process, *(getattr(row, name) for name in CELL))
            visits.setdefault(cell, []).append(row)
    found = []
    for (process, *_), rows in visits.items():
        blocks = sorted({block for row in rows for block in row.block})
        paces: dict[int, list[float]] = {block: [] for block in blocks}
        clocks, stolen, drawn = dict[int, int](), dict[int, float](), dict[int, float]()
        for row in rows:
            middle = usual[row_anchor(row), row.process]
            for block, sample in zip(row.block, row.samples_ns, strict=True):
                paces[block].append(sample / middle)
            clocks |= zip(row.block, row.block_clock_hz, strict=False)
            stolen |= zip(row.block, row.block_steal_share, strict=False)
            drawn |= zip(row.block, row.block_power_w, strict=False)
        for block in blocks:
            clock = clocks.get(block)
            pace = statistics.median(paces[block])
            measured = clock and clock / 1e9, stolen.get(block), drawn.get(block)
            found.append((process, pace, *measured))
    return pd.DataFrame(found, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[2:], "float64"))


def traces(blocks: pd.DataFrame) -> list[Trace]:
    """Return the curves of the trust strip: pace, clock, power, stolen time."""
    return [
        _trace("Pace", blocks, "relative", _pace, "no sample was taken"),
        _trace(
            "Clock", blocks, "clock_ghz", _clock,
            "the system does not tell its frequency, as in most virtual machines",
        ),
        _trace("Power", blocks, "power_w", _power, "nothing tells what a device draws"),
        _trace(
            "Stolen time", blocks, "steal_share", _steal,
            "the system does not tell what a hypervisor took",
        ),
    ]  # fmt: skip


def proofs(run: LoadedRun) -> list[str]:
    """Return the sentences that say what was checked before and beside the clock."""
    timed = [row for row in run.measurements if row.samples_ns and not row.placebo]
    agrees: dict[tuple[object, ...], bool] = {}
    for row in run.measurements:
        if not row.placebo and (row.samples_ns or row.status in FAILED):
            key = _key(row)
            agrees[key] = agrees.get(key, True) and bool(row.proof) and row.status not in FAILED
    known = {_key(row) for row in timed}
    proved = sum(agrees[key] for key in known)
    failed = sum(row.status in FAILED for row in run.measurements)
    judged = dict.fromkeys(Outcome, 0)
    for verdict in run.verdicts:
        judged[verdict.status] += 1
    throttled = sum(row.status is Status.THROTTLED for row in run.measurements)
    said = [f"{proved} of {len(known)} timed results agree with the oracle" if known else ""]
    if run.verdicts:
        kept = ", ".join(f"{n} {outcome.lower()}" for outcome, n in judged.items() if n)
        cases = sum(row.cases for row in run.verdicts)
        said.append(f"laws by implementations: {kept}, in {cases:,} cases")
    else:
        said.append("no law was judged in this run")
    said.append(f"{failed} rows failed" if failed else "")
    said.append(f"{throttled} rows were throttled and are not compared" if throttled else "")
    return [one for one in [*said, *flagged(run.measurements)] if one]


def _key(row: Measurement) -> tuple[object, ...]:
    return row.implementation, *(getattr(row, name) for name in CELL)


def curve(blocks: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return `place`, `process`, `low`, `middle`, `high` of a column, at most about `MOST` rows.

    Blocks without a value are left out; neighbours of one process share a row where there are many.
    """
    known = blocks.assign(place=np.arange(len(blocks)))[blocks[column].notna().to_numpy()]
    wide = max(1, math.ceil(len(known) / MOST))
    bins = known.groupby([known["process"], known["place"] // wide], sort=False)
    found = bins.agg(
        place=("place", "mean"), low=(column, "min"), middle=(column, "median"),
        high=(column, "max"),
    )  # fmt: skip
    return found.reset_index(level=0).reset_index(drop=True)


def curves(blocks: pd.DataFrame) -> dict[str, Markup]:
    """Return what was known of every block as figures by name: pace, and clock where it can be read."""
    drawn = {}
    if len(blocks):
        points = curve(blocks, "relative")
        low, high = blocks["relative"].min(), blocks["relative"].max()
        text = f"Block by block everything took between {low:.3f} and {high:.3f} of its usual time."
        figure = figures.blocks(points, "time / usual time", usual=1.0, least=0.05)
        drawn["pace"] = svg(figure, "pace", "Pace of the machine in time order", text)
    if blocks["clock_ghz"].notna().any():
        points = curve(blocks, "clock_ghz")
        low, high = blocks["clock_ghz"].min(), blocks["clock_ghz"].max()
        text = f"Block by block the clock ran at {low:.3f} to {high:.3f} GHz."
        figure = figures.blocks(points, "clock, GHz", least=0.02)
        drawn["clock"] = svg(figure, "clock", "Clock of the machine in time order", text)
    return drawn


def _trace(
    name: str, blocks: pd.DataFrame, column: str, say: Callable[[Sequence[float]], str],
    lack: str,
) -> Trace:  # fmt: skip
    known = [float(value) for value in blocks[column].dropna()]
    if not known:
        return Trace(name=name, lines=(), words=f"not measurable here: {lack}")
    drawn = curve(blocks, column)
    low, high = drawn["middle"].min(), drawn["middle"].max()
    step = WIDE / max(1, len(blocks) - 1)
    lines: list[list[str]] = []
    before = None
    for process, place, value in zip(
        drawn["process"], drawn["place"], drawn["middle"], strict=True
    ):
        if process != before:
            lines.append([])
            before = process
        # a curve of one value stays in the middle
        share = (value - low) / (high - low) if high > low else 0.5
        lines[-1].append(f"{place * step:.1f},{1 + (HIGH - 2) * (1 - share):.1f}")
    return Trace(name=name, lines=tuple(" ".join(points) for points in lines), words=say(known))


def _pace(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f} of the usual time"


def _clock(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f} GHz, median {statistics.median(values):.2f} GHz"


def _power(values: Sequence[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f} W, median {statistics.median(values):.0f} W"


def _steal(values: Sequence[float]) -> str:
    over = sum(value > MOST_STEAL for value in values)
    return (
        f"at most {format_percent(max(values))} of a block; "
        f"above {format_percent(MOST_STEAL)} in {over} of {len(values)} blocks"
    )
