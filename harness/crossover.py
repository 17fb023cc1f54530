"""From which density on a mask-aware implementation pays: structures of masks by how much is left.

Every structure is swept from full to nearly empty against the plain convolution of the same
geometry, which knows no mask. Where the ratio falls through 1 is the crossover density.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from scipy import stats

from harness.case import ConvCase
from harness.clock import utc_now
from harness.comparison import CONFIDENCE, Comparison
from harness.contest import Entry, Rules, compete, real, runner
from harness.evidence import EVIDENCE, Evidence, Made
from harness.gate import cell_for, examine, refusals
from harness.masks import STRUCTURES
from harness.proof import Call
from harness.selection import declines
from harness.table import Table, load_table
from harness.tensors import make_tensors
from harness.terminal import write_lines
from harness.variant import Implementation, Variant

DENSITIES = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)
FAMILIES = ("bernoulli", *STRUCTURES)
CASE = "n1 c32>32 i64x64 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
DENSE = "dense"


class Curve(NamedTuple):
    """One implementation over the densities of one structure."""

    implementation: str
    family: str
    rows: tuple[Comparison, ...]


class Crossing(NamedTuple):
    """The density below which an implementation wins; `low` and `high` enclose it."""

    density: float
    low: float
    high: float


def contest(words: str, device: str) -> dict[str, Callable[[], Any]]:
    """Make the dense convolution and every implementation; `words` are `variant direction case`."""
    name, direction, line = words.split(" ", 2)
    table, case = load_table(), ConvCase.parse(line)
    torch.set_grad_enabled(direction == "backward")
    plain, bare = table.variant("plain"), replace(case, options=())
    variant, tensors = table.variant(name), make_tensors(table.variant(name), case, device)
    found = {
        DENSE: runner(
            Call(plain, plain.reference, bare, direction), make_tensors(plain, bare, device)
        )
    }
    for implementation in variant.implementations:
        if _takes_part(implementation, variant, case):
            call = Call(variant, implementation, case, direction)
            found[implementation.name] = runner(call, tensors)
    return found


def masked_cases(line: str) -> dict[tuple[str, float], str]:
    """Return the case of every structure and density."""
    case = ConvCase.parse(line)
    return {
        (family, density): str(case.with_options(mask=f"{family}:{density}"))
        for family in FAMILIES
        for density in DENSITIES
    }


def unproved(
    table: Table, variant: Variant, line: str, direction: str, device: str
) -> dict[str, str]:  # fmt: skip
    """Return the implementations that are wrong on a case, each with where and why."""
    cells = [
        cell_for(table, variant.name, implementation.name, case, direction)
        for case in masked_cases(line).values()
        for implementation in variant.implementations
        if _takes_part(implementation, variant, ConvCase.parse(case))
    ]
    wrong: dict[str, str] = {}
    for cell, reason in refusals(examine(cells, device)).items():
        wrong.setdefault(cell.implementation, f"{cell.case}: {reason}")
    return wrong


def _takes_part(implementation: Implementation, variant: Variant, case: ConvCase) -> bool:
    return not implementation.needs and declines(implementation, variant, case) is None


def curves(
    variant: str, line: str, direction: str, rules: Rules, device: str
) -> tuple[list[Curve], float]:
    """Measure every structure at every density; beside the curves, the worst of the placebos."""
    cells = masked_cases(line)
    entries = {
        cell: Entry(f"{__name__}:contest", f"{variant} {direction} {described}", device)
        for cell, described in cells.items()
    }
    timed = compete(list(entries.values()), rules)
    rows, worst = real(timed), max(abs((r.ratio or 1.0) - 1) for r in timed if r.placebo)
    names = dict.fromkeys(row.implementation for row in rows)
    found = {(row.implementation, row.case): row for row in rows}
    return [
        Curve(name, family, tuple(found[name, entries[family, d].case] for d in DENSITIES))
        for name in names
        for family in FAMILIES
    ], worst


def crossing(curve: Curve) -> Crossing | None:
    """Return where the ratio falls through 1, interpolated in every process; None where nowhere.

    Nowhere also where a process does not see it, or where the interval reaches beyond the
    densities: then they do not enclose it.
    """
    seen = []
    for place in range(min(len(row.process_ratios) for row in curve.rows)):
        logs = [math.log(row.process_ratios[place]) for row in curve.rows]
        seen.append(_falls_through(logs))
    known = [density for density in seen if density is not None]
    if len(known) < max(2, len(seen)):
        return None
    mean, error = statistics.fmean(known), statistics.stdev(known) / math.sqrt(len(known))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(known) - 1)) * error
    found = Crossing(mean, mean - half, mean + half)
    return found if DENSITIES[-1] <= found.low and found.high <= DENSITIES[0] else None


def _falls_through(logs: Sequence[float]) -> float | None:
    """Return the density at which the log ratio, highest density first, goes below 0 for good."""
    steps = list(zip(DENSITIES, DENSITIES[1:], logs, logs[1:], strict=False))
    for above, below, before, after in reversed(steps):
        if after >= 0:
            return None  # it loses at the lowest densities
        if before >= 0:
            return above + (below - above) * before / (before - after)
    return None


# -- the command -------------------------------------------------------------------------------


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options of `crossover`."""
    command.add_argument("--variant", default="input_masked")
    command.add_argument("--case", default=CASE, metavar="DESCRIPTOR")
    command.add_argument("--direction", choices=("forward", "backward"), default="forward")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--processes", type=int, default=5, metavar="P")
    command.add_argument("--blocks", type=int, default=10, metavar="B")
    command.add_argument("--write", action="store_true", help="keep the table as evidence")


def run(options: argparse.Namespace, table: Table) -> int:
    """Sweep the densities, print where each implementation starts to win; 1 if one is wrong."""
    started, variant = utc_now(), table.variant(options.variant)
    variant.check_case(ConvCase.parse(options.case).with_options(mask="bernoulli:0.5"))
    rules = Rules(options.processes, options.blocks)
    wrong = unproved(table, variant, options.case, options.direction, options.device)
    found, worst = curves(variant.name, options.case, options.direction, rules, options.device)
    found = [curve for curve in found if curve.implementation not in wrong]
    write_lines([f"{name} is wrong, and left out: {reason}" for name, reason in wrong.items()])
    write_lines([*map(line_of, found), f"placebo within {worst:.1%}"])
    if options.write:
        evidence = as_evidence(
            variant.name, options.case, options.direction, rules, found, worst,
            Made.here(_command(options), started),
        )  # fmt: skip
        write_lines([f"kept in {evidence.save(EVIDENCE)}"])
    return int(bool(wrong))


def _command(options: argparse.Namespace) -> str:
    """Return the whole command that repeats a sweep."""
    return (
        f"python3 -m harness crossover --variant {options.variant} --case '{options.case}' "
        f"--direction {options.direction} --device {options.device} "
        f"--processes {options.processes} --blocks {options.blocks} --write"
    )


def line_of(curve: Curve) -> str:
    """Return the line of a terminal that shows one curve."""
    ratios = ", ".join(
        f"{density:g}: {row.ratio or math.nan:.2f}"
        for density, row in zip(DENSITIES, curve.rows, strict=True)
    )
    return f"{curve.implementation} {curve.family}: {ratios}; {words_of(curve)}"


def words_of(curve: Curve) -> str:
    """Return from which density on an implementation wins, in words."""
    if found := crossing(curve):
        return f"wins below {found.density:.2f} [{found.low:.2f}, {found.high:.2f}]"
    highs, lows = [r.ratio_high for r in curve.rows], [r.ratio_low for r in curve.rows]
    if all(high is not None and high < 1 for high in highs):
        return "wins at every density"
    if all(low is not None and low >= 1 for low in lows):
        return "wins at no density"
    return "no crossover can be told"


def as_evidence(
    variant: str, line: str, direction: str, rules: Rules, found: Sequence[Curve], worst: float,
    made: Made,
) -> Evidence:  # fmt: skip
    """Return the table: a row per implementation and structure, a column per density."""
    return Evidence(
        name="crossover",
        title="From which density on a mask pays",
        about=(
            f"Time over that of the plain convolution of the same geometry, which knows no mask: "
            f"{variant}, {direction}, {line}. A column per share that is present; "
            f"{rules.processes} processes of {rules.blocks} interleaved blocks, one thread. The "
            "crossover is interpolated in every process, its interval is over processes. The plain "
            f"convolution timed twice differs from itself by {worst:.1%} at most."
        ),
        made=made,
        columns=("implementation", "structure", *(f"{d:g} present" for d in DENSITIES), "crossover"),
        rows=tuple(
            (
                curve.implementation, curve.family,
                *(round(row.ratio or math.nan, 3) for row in curve.rows), words_of(curve),
            )
            for curve in found
        ),
    )  # fmt: skip
