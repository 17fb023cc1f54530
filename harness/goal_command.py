"""`python3 -m harness goals`: measure what the operations cost against what they may cost."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from harness.case import ConvCase
from harness.clock import utc_now
from harness.contest import Rules
from harness.evidence import EVIDENCE, Evidence, Made
from harness.goal import Goal, Reach, Result, judge_goals, load_goals
from harness.machine import choose_device
from harness.results import ResultsError
from harness.selection import fastest
from harness.table import Table, UnknownName, load_table
from harness.terminal import write_lines

ROOT = Path(__file__).parent.parent
COLUMNS = (
    "operation", "direction", "limit", "ratio", "from", "to", "verdict", "slowest case", "as called",
    "floor", "floor from", "placebo",
)  # fmt: skip
LAYER_COLUMNS = (
    "operation", "direction", "layer", "implementation", "ratio", "from", "to", "as called", "floor",
)  # fmt: skip


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    command.add_argument("--variant", action="append", default=[], help="only this variant")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    command.add_argument("--threads", type=int, default=1, metavar="T")
    command.add_argument("--processes", type=int, default=5, metavar="P")
    command.add_argument("--blocks", type=int, default=10, metavar="B")
    command.add_argument("--write", action="store_true", help="keep the table in evidence and docs")


def run(options: argparse.Namespace, table: Table) -> int:
    """Measure and print; return 1 where a goal is missed, or something measured is wrong."""
    goals = _chosen(table, options.variant)
    if options.write and options.variant:
        raise ResultsError("--write keeps the table of all goals: leave out --variant")
    device, started = choose_device(options.device), utc_now()
    rules = Rules(options.processes, options.blocks, options.threads)
    results: list[Result] = []
    for result in judge_goals(goals, rules, device):
        results.append(result)
        write_lines([line_of(result)])
    counts = {reach: sum(one.reach is reach for one in results) for reach in Reach}
    write_lines([", ".join(f"{count} {reach}" for reach, count in counts.items())])
    if options.write:
        name = (
            "goals" if (device, rules.threads) == ("cpu", 1) else f"goals_{device}_{rules.threads}"
        )
        command = f"python3 -m harness goals {rules.words} --device {device} --write"
        made = Made.here(command, started, ROOT)
        tables = (as_evidence(name, results, rules, made), by_layer(name, results, made, device))
        write_lines([f"kept in {each.save(EVIDENCE)}" for each in tables])
    return int(counts[Reach.MISSED] + counts[Reach.UNPROVED] > 0)


def _chosen(table: Table, names: Sequence[str]) -> list[Goal]:
    goals = load_goals()
    for name in names:
        if name not in {goal.variant for goal in goals}:
            held = dict.fromkeys(goal.variant for goal in goals)
            raise UnknownName("limited variant", name, held)
        table.variant(name)
    return [goal for goal in goals if not names or goal.variant in names]


def line_of(result: Result) -> str:
    """Return the line of a terminal that shows one result."""
    head = f"{result.reach:<10} {result.goal.operation}, {result.direction}:"
    if result.ratio is None:
        return f"{head} {result.reason}"
    called = "" if result.called is None else f", as called {result.called:.2f}"
    placebo = "" if result.placebo is None else f", placebo within {result.placebo:.1%}"
    floor = "" if result.floor is None else f", floor {result.floor:.3f}"
    barred = " above the limit" if result.is_barred else ""
    return (
        f"{head} {result.ratio:.3f} [{result.low:.3f}, {result.high:.3f}], at most "
        f"{result.limit:.3f}; slowest {result.slowest}{called}{floor}{barred}{placebo}"
    )


def as_evidence(name: str, results: Sequence[Result], rules: Rules, made: Made) -> Evidence:
    """Return the table of `results`."""
    threads = f"{rules.threads} thread{'s' * (rules.threads > 1)}"
    return Evidence(
        name=name,
        title=f"What the operations cost, {threads}",
        about=(
            "Ratios of time (backward: forward and backward; memory: the peak of a training step) "
            "to what the line names, else to the plain convolution of the same geometry: the "
            "implementation that is fastest by the table, geometric mean over the named layers, "
            f"95 % interval over {rules.processes} processes of {rules.blocks} interleaved blocks. "
            "MET: the whole interval is within the limit. As called: through the functional form, "
            "which checks its arguments. Floor: the bare tensor operations that no form of the "
            "operation avoids (properties/floors.py says which), in the same blocks, of memory the "
            "outputs and gradients; where its interval begins above the limit, these alone are too dear. Placebo: by how much what is divided by differs from "
            "itself, at most. All that is measured agrees with the oracle."
        ),
        made=made,
        columns=COLUMNS,
        rows=tuple(
            (
                r.goal.operation, r.direction, r.limit,
                *map(_shown, (r.ratio, r.low, r.high)), r.reach.value,
                r.slowest or r.reason, "" if r.called is None else f"{r.called:.3g}",
                *map(_shown, (r.floor, r.floor_low)),
                "" if r.placebo is None else f"{r.placebo:.1%}",
            )
            for r in results
        ),
    )  # fmt: skip


def by_layer(name: str, results: Sequence[Result], made: Made, device: str) -> Evidence:
    """Return what the layers of `results` came to one by one."""
    table = load_table()

    def chosen(goal: Goal, layer: str) -> str:
        case = ConvCase.parse(goal.cases[layer])
        return fastest(table.variant(goal.variant), case, device).name

    return Evidence(
        name=f"{name}_layers",
        title="What the operations cost, layer by layer",
        about=(
            f"The layers behind the means of {name}, with the implementation that the table takes: "
            "ratios and 95 % intervals as there, each of its layer alone."
        ),
        made=made,
        columns=LAYER_COLUMNS,
        rows=tuple(
            (
                r.goal.operation, r.direction, one.name, chosen(r.goal, one.name),
                *map(_shown, (one.ratio, one.low, one.high, one.called, one.floor)),
            )
            for r in results
            for one in r.layers
        ),
    )  # fmt: skip


def _shown(end: float | None) -> float | str:
    return "" if end is None or not math.isfinite(end) else end
