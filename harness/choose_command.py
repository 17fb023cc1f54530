"""`python3 -m harness choose`: let calls on this machine take what won a benchmark run."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from harness import choice
from harness.choice import Choice
from harness.clock import COLD
from harness.comparison import Comparison, Speed, compare
from harness.machine import describe_machine
from harness.plan import cell_of
from harness.results import ResultsError, load_run
from harness.table import Table
from harness.terminal import write_lines


def choices_of(rows: Iterable[Comparison], run: str) -> list[Choice]:
    """Return the winner of every case: what is not SLOWER in any direction, quickest on average."""
    cells: dict[tuple[str, str, str], dict[str, list[Comparison]]] = {}
    for row in rows:
        if not row.placebo and row.ratio is not None and not row.lack:
            cell = cells.setdefault((row.variant, row.case, row.device), {})
            cell.setdefault(row.implementation, []).append(row)
    found = []
    for (variant, case, device), contenders in cells.items():
        baseline = next(iter(contenders.values()))[0].baseline
        ratios = {
            name: math.exp(statistics.fmean(math.log(row.ratio or 1.0) for row in own))
            for name, own in contenders.items()
            if all(row.verdict is not Speed.SLOWER for row in own)
        }
        ratios[baseline] = 1.0
        best = min(ratios, key=lambda name: ratios[name])
        found.append(
            Choice(
                variant=variant, case=case, device=device, implementation=best,
                ratio=round(ratios[best], 4), baseline=baseline, run=run,
            )
        )  # fmt: skip
    return found


def merged(kept: Sequence[Choice], fresh: Sequence[Choice]) -> list[Choice]:
    """Return both, `fresh` in place of what was kept of the same case, in a fixed order."""
    cells = {(c.variant, c.device, c.case): c for c in (*kept, *fresh)}
    return [cells[key] for key in sorted(cells)]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options of `choose`."""
    command.add_argument("run_folder", type=Path, metavar="RUN", help="a results folder")
    command.add_argument("--write", action="store_true", help="let calls on this machine take them")


def run(options: argparse.Namespace, table: Table) -> int:
    """Print what a run's winners are; with --write keep them.

    Raises:
        ResultsError: no results folder, or one of another machine.
    """
    found = load_run(options.run_folder)
    here, there = describe_machine(), found.run.machine
    if options.write and (here.processor, here.gpu) != (there.processor, there.gpu):
        raise ResultsError(
            f"{options.run_folder}: was taken on {there.processor} {there.gpu}, and this is "
            f"{here.processor} {here.gpu}: choices hold for one kind of machine"
        )
    # rows of other threads, of a hot cache or of a graph are other questions
    usual = [
        row for row in found.measurements
        if row.threads == found.run.threads and cell_of(row).mode in ("", COLD)
    ]  # fmt: skip
    fresh = choices_of(compare(usual), found.run.id)
    known = [c for c in fresh if c.variant in table.variants]
    for one in known:
        write_lines([f"{one.variant}/{one.implementation} {one.ratio:.2f} {one.case}"])
    if options.write:
        path = choice.FOLDER / f"{choice.machine_key(found.run.device)}.json"
        path.parent.mkdir(exist_ok=True)
        rows = [asdict(one) for one in merged(choice.read(path), known)]
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        choice.loaded.cache_clear()
        write_lines([f"{len(rows)} choices in {path}"])
    return 0
