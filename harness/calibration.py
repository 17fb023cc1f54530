"""How far the clock can be trusted: code against itself, and against a planted slowdown.

What is timed twice differs by nothing, so every verdict of a difference is a false alarm. What is
planted makes 34 calls where the other makes 33, so its true ratio is known without any clock. These
are calls of a microsecond or two, so that as many are about as long as one call of a layer.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy import stats

from harness.case import ConvCase
from harness.clock import utc_now
from harness.comparison import CONFIDENCE, Comparison, Speed
from harness.contest import Entry, Rules, compete, runner
from harness.evidence import EVIDENCE, Evidence, Made
from harness.proof import Call
from harness.selection import fastest
from harness.table import Table, load_table
from harness.tensors import make_tensors
from harness.terminal import write_lines

UNIT, MORE = 33, 34
SLOWDOWN = MORE / UNIT - 1
LAYERS = tuple(
    f"n1 c{c}>{o} i{s}x{s} k{k}x{k} s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
    for c, o in ((3, 8), (8, 8), (4, 16))
    for s in (8, 12)
    for k in (1, 3)
)
ENTRIES = tuple(map(str, range(1, 1200, 50)))  # of a tensor whose sign is changed
PLANTED = "planted"
ALARMS = (Speed.FASTER, Speed.SLOWER)


def _times(call: Callable[[], Any], count: int) -> Callable[[], None]:
    def repeat() -> None:
        for _ in range(count):
            call()

    return repeat


def layer(line: str, device: str) -> dict[str, Callable[[], Any]]:
    """Make one call of the plain convolution of a case, which meets itself as the placebo."""
    table, case = load_table(), ConvCase.parse(line)
    variant = table.variant("plain")
    torch.set_grad_enabled(mode=False)
    call = Call(variant, fastest(variant, case, device), case, "forward")
    return {"plain": runner(call, make_tensors(variant, case, device))}


def slowed(entries: str, device: str) -> dict[str, Callable[[], Any]]:
    """Make some calls on a tensor of so many entries, and one more."""
    once = torch.ones(int(entries), device=device).neg_
    return {"calls": _times(once, UNIT), PLANTED: _times(once, MORE)}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options of `calibrate`."""
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--rounds", type=int, default=9, metavar="R", help="of fresh processes")
    command.add_argument("--processes", type=int, default=10, metavar="P")
    command.add_argument("--blocks", type=int, default=20, metavar="B")
    command.add_argument("--threads", type=int, default=1, metavar="T")
    command.add_argument("--write", action="store_true", help="keep the table as evidence")


def run(options: argparse.Namespace, table: Table) -> int:
    """Time code against itself and against what is slower by 3 %; return 1 where that fails."""
    del table
    started = utc_now()
    rules = Rules(options.processes, options.blocks, options.threads)
    entries = [Entry(f"{__name__}:layer", line, options.device) for line in LAYERS]
    entries += [Entry(f"{__name__}:slowed", count, options.device) for count in ENTRIES]
    rows: list[Comparison] = []
    for number in range(options.rounds):
        rows += compete(entries, rules, seed=number)
        write_lines([f"round {number + 1} of {options.rounds}: {len(rows)} comparisons"])
    words = f"python3 -m harness calibrate --rounds {options.rounds} {rules.words} --write"
    name = "calibration" if rules.threads == 1 else f"calibration_{rules.threads}"
    evidence = as_evidence(name, rows, rules, Made.here(words, started))
    for row in evidence.rows:
        write_lines([": ".join(map(str, row[:2])) + f" {row[2]} [{row[3]}], wanted {row[4]}"])
    if options.write:
        write_lines([f"kept in {evidence.save(EVIDENCE)}"])
    return int(any(row[-1] != "met" for row in evidence.rows))


def as_evidence(name: str, rows: Sequence[Comparison], rules: Rules, made: Made) -> Evidence:
    """Return what the comparisons come to: rates with exact binomial intervals."""
    same = [row for row in rows if row.placebo]
    slowed = [row for row in rows if not row.placebo]
    outside = [_excludes_one(row) for row in same]
    alarms = [row.verdict in ALARMS for row in same]
    seen = [_excludes_one(row) and (row.ratio or 1.0) > 1 for row in slowed]
    held = [_holds(row, 1 + SLOWDOWN) for row in slowed]
    half = statistics.median(
        ((row.ratio_high or 1.0) / (row.ratio_low or 1.0)) ** 0.5 - 1 for row in rows
    )
    nominal = 1 - CONFIDENCE
    return Evidence(
        name=name,
        title=f"Calibration of the clock, {rules.threads} thread{'s' * (rules.threads > 1)}",
        about=(
            f"{len(same)} comparisons of code with itself and {len(slowed)} with the same slowed by "
            f"{SLOWDOWN:.0%}, {rules.processes} processes of {rules.blocks} interleaved blocks "
            "each, every round in fresh processes. Intervals are exact binomial ones of 95 %."
        ),
        made=made,
        columns=("what", "comparisons", "share", "interval", "wanted", "verdict"),
        rows=(
            _rate("itself: the interval excludes 1", outside, f"{nominal:.0%}",
                  lambda low, _: low <= nominal),
            _rate("itself: judged FASTER or SLOWER", alarms, f"at most {nominal:.0%}",
                  lambda low, _: low <= nominal),
            _rate(f"slowed by {SLOWDOWN:.0%}: seen", seen, "at least 95%",
                  lambda low, _: low >= CONFIDENCE),
            _rate(f"slowed by {SLOWDOWN:.0%}: the interval holds {1 + SLOWDOWN:.4f}", held, "95%",
                  lambda _, high: high >= CONFIDENCE),
            ("half-width of the intervals, median", len(rows), f"{half:.2%}", "", "at most 0.50%",
             "met" if half <= 0.005 else "missed"),
        ),
    )  # fmt: skip


def _rate(
    what: str, events: Sequence[bool], wanted: str, meets: Callable[[float, float], bool]
) -> tuple[str, int, str, str, str, str]:
    """Return a row: how often, the exact interval, and whether what is wanted is within reach."""
    found = stats.binomtest(sum(events), len(events)).proportion_ci(CONFIDENCE, "exact")
    low, high = float(found.low), float(found.high)
    return (
        what, len(events), f"{sum(events) / len(events):.1%}", f"{low:.1%} to {high:.1%}", wanted,
        "met" if meets(low, high) else "missed",
    )  # fmt: skip


def _excludes_one(row: Comparison) -> bool:
    return not _holds(row, 1.0)


def _holds(row: Comparison, ratio: float) -> bool:
    if row.ratio_low is None or row.ratio_high is None:
        return True
    return row.ratio_low <= ratio <= row.ratio_high
