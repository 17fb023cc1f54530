"""The gate of the smaller commands: who is proved against the oracle before it is timed.

`harness.proof` says what a proof is; here it is asked for a handful of cells at once. A benchmark
run asks cell by cell as its budget allows.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from harness.isolation import End, Job, Pool, Report
from harness.plan import Cell
from harness.processors import environment_for
from harness.proof import Common, Proof, Question
from harness.proving import PRELOADED
from harness.table import Table

PATIENCE_S = 300.0
Unit = TypeVar("Unit")
Needy = TypeVar("Needy")


@contextmanager
def answered(
    questions: Sequence[Question], device: str = "cpu", threads: int = 1,
    deadline_s: float | None = None, plugins: tuple[str, ...] = (),
) -> Iterator[Common]:  # fmt: skip
    """Ask the oracle, in a process of its own; the answers are there while this lasts.

    A question without an answer raises where the answer is read: `harness.proof.load_answer`. At
    `deadline_s`, a moment of `clock.monotonic_s`, the oracle is interrupted.
    """
    with tempfile.TemporaryDirectory(prefix="convharness-") as scratch:
        common = Common(plugins=plugins, device=device, threads=threads, answers=Path(scratch))
        for _ in in_children("harness.proof:answer_session", common, questions, deadline_s):
            pass
        yield common


def examine(
    cells: Sequence[Cell], device: str = "cpu", threads: int = 1
) -> dict[Cell, Proof]:  # fmt: skip
    """Prove every cell alone, in children; `Proof.reason` says why one is not proved.

    Args:
        cells: What is going to be timed.
        device: Where.
        threads: With how many.
    """
    cells = list(dict.fromkeys(cells))
    questions = list(dict.fromkeys(Question(cell.variant, cell.case) for cell in cells))
    found: dict[Cell, Proof] = {}
    with answered(questions, device, threads) as common:
        for cell, report in in_children("harness.proof:probe_session", common, cells):
            proof = report.result
            failed = Proof(reason=f"{report.end.value}: {report.text}")
            found[cell] = proof if report.end is End.DONE else failed
    return found


def refusals(proofs: Mapping[Cell, Proof]) -> dict[Cell, str]:
    """Return the cells that are not to be timed, each with the reason."""
    return {cell: proof.reason for cell, proof in proofs.items() if proof.reason}


def unproved(
    needed: Mapping[Needy, Sequence[Cell]], device: str = "cpu", threads: int = 1
) -> dict[Needy, str]:  # fmt: skip
    """Return whoever needs a cell that is not proved, each with the first reason."""
    wrong = refusals(examine([c for cells in needed.values() for c in cells], device, threads))
    return {
        one: next(f"{c.implementation} on {c.case}: {wrong[c]}" for c in cells if c in wrong)
        for one, cells in needed.items()
        if any(cell in wrong for cell in cells)
    }


def cell_for(table: Table, variant: str, implementation: str, case: str, direction: str) -> Cell:
    """Return a cell of the table.

    Raises:
        UnknownName: there is no such variant or implementation.
    """
    known = table.variant(variant)
    return Cell(known.name, table.implementation(known, implementation).name, case, "", direction)


def in_children(
    session: str, common: Common, units: Sequence[Unit], deadline_s: float | None = None
) -> Iterator[tuple[Unit, Report]]:
    """Run `session` on every unit in children; what they print is kept out of the terminal."""
    loaded = [m for m in sys.modules if m.startswith(("impls.", "properties.laws."))]
    pool = Pool(
        method="forkserver",
        parallel=1,
        scratch=common.answers,
        preload=PRELOADED + tuple(loaded),
        environment=environment_for(common.threads),
        deadline_s=deadline_s,
    )
    job = Job(session=session, common=common, units=units, timeout_s=lambda _: PATIENCE_S)
    return ((units[report.unit], report) for report in pool.run([job]))
