"""The soak: laws over right implementations, round after round, where any refutation is an alarm."""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import clock
from harness.benchmark import describe_run
from harness.effort import COSTLY
from harness.evidence import EVIDENCE, Evidence, Made
from harness.judge import Court, Unit, judge, pairs
from harness.law import natural_order
from harness.machine import Code, choose_device, describe_code
from harness.results import LoadedRun, Outcome, Recorder, ResultsError, Verdict, load_run
from harness.table import Table

ROOT = Path(__file__).parents[1]
# A round whose few cases of a dtype were all vacuous is said, but is no alarm.
ALARMS = (Outcome.REFUTED, Outcome.CRASHED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `soak`."""
    parser.add_argument("--minutes", type=float, default=30.0, metavar="M")
    parser.add_argument(
        "--least", type=int, default=1000, metavar="CASES", help="of every pair; then it ends"
    )
    parser.add_argument("--processes", type=int, default=2, metavar="P")
    parser.add_argument("--variant", action="append", default=[], help="only this variant")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, help="of the first round; by chance if not given")
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="go on with the folder of a soak"
    )
    parser.add_argument("--write", action="store_true", help=f"keep the table in {EVIDENCE.name}/")


def run(options: argparse.Namespace, table: Table) -> int:
    """Judge every pair until it had its cases or time is up; return 1 where one is refuted."""
    deadline = clock.monotonic_s() + 60 * options.minutes
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    device, started = choose_device(options.device), clock.utc_now()
    before = _before(options.resume) if options.resume else None
    names = [card.name for card in before.run.catalogue] if before else options.variant
    units = [(v.name, i.name, law.id) for law, v, i in pairs(table, names)]
    found: dict[Unit, list[Verdict]] = {unit: [] for unit in units}
    if before:
        described, seed, device = before.run, before.run.seed, before.run.device
        for row in before.verdicts:
            found[row.variant, row.implementation, row.law].append(row)
    else:
        variants = dict.fromkeys(name for name, *_ in units)
        described = describe_run(
            table, {name: table.variant(name).reference.name for name in variants},
            argv=("python3", "-m", "harness", "soak"), device=device, threads=1, seed=seed,
        )  # fmt: skip
    recorder = Recorder(options.resume or ROOT / "results" / described.id)
    recorder.write_run(described)
    court = Court(plugins=(), profile="soak", device=device, seed=seed)
    with contextlib.suppress(KeyboardInterrupt):  # what was judged until then counts
        for row in _rounds(
            table, court, found, options.least,
            run_id=described.id, parallel=options.processes, deadline_s=deadline,
        ):  # fmt: skip
            recorder.add(row)
            found[row.variant, row.implementation, row.law].append(row)
            total = sum(map(_cases, found.values()))
            print(f"\r{total:,} cases", end="", file=sys.stderr, flush=True)
            if row.status not in {Outcome.HOLDS, Outcome.UNSUPPORTED}:
                said = row.replay or row.detail
                print(f"\n{row.status} {row.variant}/{row.implementation} {row.law}: {said}")
    print(file=sys.stderr)
    words = [f"--variant {name}" for name in options.variant]
    words += [f"--minutes {options.minutes:g}", f"--least {options.least}"]
    words += [f"--processes {options.processes}", f"--device {device}", f"--seed {seed}"]
    made = Made.here(" ".join(["python3 -m harness soak", *words, "--write"]), started, ROOT)
    evidence = _evidence(table, found, made, seed)
    print(f"{evidence.about}\nresults: {recorder.folder}; --resume goes on with them")
    if options.write:
        print(f"kept in {evidence.save(EVIDENCE)}")
    return int(any(evidence.column("refuted")))


def _before(folder: Path) -> LoadedRun:
    """Return what a soak of this same code judged before.

    Raises:
        ResultsError: `folder` is no results folder, or of other code than this.
    """
    Recorder(folder).mend()
    before, here = load_run(folder), describe_code(ROOT)
    judged = Code(commit=before.run.commit, dirty=before.run.dirty)
    if judged != here:
        raise ResultsError(
            f"{folder}: judged {judged}, and here is {here}; only the same code can be judged on: "
            f"`git worktree add ../soak {judged.commit[:12]}` brings it back"
        )
    return before


def _rounds(
    table: Table, court: Court, found: Mapping[Unit, Sequence[Verdict]], least: int, *,
    run_id: str, parallel: int, deadline_s: float,
) -> Iterator[Verdict]:  # fmt: skip
    """Yield the verdicts of one round after another, each with a seed of its own.

    `found` is read between rounds: those behind in rounds come first, a pair that had its cases, or
    whose law found nothing to run, is left out, and one of which a case takes seconds has one round.
    """
    while clock.monotonic_s() < deadline_s:
        due = [
            unit
            for unit, rows in found.items()
            if not rows or (table.laws[unit[2]].share >= COSTLY and 0 < _cases(rows) < least)
        ]
        if not due:
            return
        number = min(len(found[unit]) for unit in due)
        yield from judge(
            table, replace(court, seed=(court.seed or 0) + number),
            [unit for unit in due if len(found[unit]) == number],
            run_id=run_id, parallel=parallel, deadline_s=deadline_s,
        )  # fmt: skip


def _cases(rows: Sequence[Verdict]) -> int:
    return sum(row.cases for row in rows)


def _evidence(
    table: Table, found: Mapping[Unit, Sequence[Verdict]], made: Made, seed: int
) -> Evidence:
    judged = {
        unit: [row for row in rows if row.status is not Outcome.UNSUPPORTED]
        for unit, rows in found.items()
    }
    judged = {unit: rows for unit, rows in judged.items() if rows}
    entries = []
    for law_id in sorted({unit[2] for unit in judged}, key=natural_order):
        own = [rows for unit, rows in judged.items() if unit[2] == law_id]
        cases = [_cases(rows) for rows in own]
        law = table.laws[law_id]
        costly = " (costly)" if law.share < COSTLY else ""
        bad = sum(any(row.status in ALARMS for row in rows) for rows in own)
        entries.append((law_id, law.name + costly, len(own), sum(cases), min(cases), bad))
    total, refuted = sum(entry[3] for entry in entries), sum(entry[5] for entry in entries)
    return Evidence(
        name="soak",
        title="Soak",
        about=(
            f"{total:,} cases over {len(judged):,} of {len(found):,} pairs of law and "
            f"implementation, in rounds from seed {seed} on: {refuted} pairs refuted. A law gets "
            "fewer cases where its domain holds no more that differ, where a case takes long, or "
            "where time ran out."
        ),
        made=made,
        columns=("law", "name", "pairs", "cases", "fewest of a pair", "refuted"),
        rows=tuple(entries),
    )
