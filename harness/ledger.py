"""What is known of a benchmark run while it is measured: its rows, its proofs, what to tell of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from harness import clock
from harness.case import ConvCase
from harness.catalogue import law_cards, variant_card
from harness.contender import Sampled
from harness.cuda_clock import throttled
from harness.machine import describe_code, describe_flags, describe_machine, describe_versions
from harness.options import Options
from harness.plan import Cell, Plan, cell_of
from harness.processors import processors_for
from harness.proof import Proof
from harness.results import (
    FAILED,
    MOST_STEAL,
    LoadedRun,
    Measurement,
    Recorder,
    Run,
    Status,
    Verdict,
)
from harness.sampling import Ending
from harness.table import Table
from harness.terminal import Progress

ROOT = Path(__file__).resolve().parent.parent
OF_BUDGET = "budget: "
"""How a note begins that tells what there was no time for."""


@dataclass(slots=True)
class Ledger:
    """What is known of one run; rows are written down as they become known."""

    folder: Path
    run: Run
    options: Options
    plan: Plan
    table: Table
    progress: Progress
    before: LoadedRun | None = None
    proofs: dict[Cell, Proof] = field(default_factory=dict)
    rows: dict[tuple[Cell, int], Measurement] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.before is not None:
            self.rows = {
                (cell_of(row), row.process): row
                for row in self.before.measurements
                if row.status is not Status.NO_TIME  # perhaps there is some now
            }
            self.verdicts = list(self.before.verdicts)
            # what has no time again will be said again
            notes = tuple(note for note in self.run.notes if not note.startswith(OF_BUDGET))
            self.run = replace(self.run, notes=notes)

    @property
    def recorder(self) -> Recorder:
        """What appends this run's rows."""
        return Recorder(self.folder)

    def write(self) -> None:
        """Write what is known of the run, so that a killed one can be read."""
        self.recorder.write_run(self.run)

    def note(self, text: str) -> None:
        """Add a line that the page will show."""
        if text not in self.run.notes:
            self.run = replace(self.run, notes=(*self.run.notes, text))
            self.write()

    def record_sampled(self, sampled: Sampled) -> None:
        """Write down what one process measured of one cell."""
        values = sampled._asdict()
        values |= self._off_clock(sampled)
        self.record(values.pop("cell"), **values)

    def _off_clock(self, sampled: Sampled) -> dict[str, Any]:
        """Return the blocks at another frequency than the run's, and the status they lead to.

        A device's alone: what a processor's system says of its frequency is no measurement.
        """
        if self.run.device == "cpu" or not sampled.block_clock_hz:
            return {}
        known = [rate for row in self.rows.values() for rate in row.block_clock_hz]
        usual = median([*known, *sampled.block_clock_hz])
        return throttled(sampled.block, sampled.block_clock_hz, usual)

    def record(self, cell: Cell, *, process: int = 0, **values: Any) -> None:
        """Write down a row of a cell."""
        known = self.rows.get((cell, process))
        if known and known.status is values["status"] is not Status.MEASURED:
            return  # a resumed run finds the same
        proof = self.proofs.get(cell, Proof())
        row = Measurement(
            run_id=self.run.id,
            variant=cell.variant,
            implementation=cell.implementation,
            case=cell.case,
            case_name=cell.case_name,
            direction=cell.direction,
            dtype=ConvCase.parse(cell.case).dtype,
            device=self.run.device,
            threads=cell.threads,
            flags=self._flags(cell),
            placebo=cell.placebo,
            process=process,
            proof=proof.proof,
            **proof.costs(),
            **values,
        )
        self.recorder.add(row)
        self.rows[cell, process] = row
        if row.status in FAILED:
            name = f"{row.variant}/{row.implementation} {row.case_name or row.case} {row.direction}"
            self.progress.say(f"{row.status} {name}: {row.reason}")

    def note_ending(self, process: int, threads: int, ending: Ending) -> None:
        """Write down what disturbed a process, and which kernels it ran that others did not."""
        found, name = ending.disturbance, f"process {process}"
        if len(self.options.selection.threads) > 1:
            name += f" with {threads} thread{'s' * (threads > 1)}"
        if found.steal_share > MOST_STEAL:
            self.note(f"{name}: {found.steal_share:.1%} of the machine's time was stolen")
        words = (
            f"load {found.load:.2f}, steal {found.steal_share:.2%}, "
            f"{found.involuntary_switches} involuntary context switches"
        )
        self.run = replace(self.run, settings={**self.run.settings, name: words})
        self.write()
        proved = {cell.proved_as: proof.kernels for cell, proof in self.proofs.items()}
        for cell, kernels in ending.kernels.items():
            if kernels and kernels != (proved.get(cell) or kernels):
                self.note(
                    f"warning: {cell.variant}/{cell.implementation} ran other kernels in {name} "
                    f"than in its proof: {cell.case_name or cell.case} {cell.direction}"
                )

    def processors(self, threads: int) -> tuple[int, ...]:
        """Return where processes of so many threads are pinned; empty = nowhere."""
        return processors_for(threads) if self.run.device == "cpu" else ()

    def _flags(self, cell: Cell) -> str:
        """Return what else tells a row from others: how the process is set up, and the mode."""
        if self.run.device == "cpu":
            return "pinned" if self.processors(cell.threads) else ""
        words = [f"{name}={value}" for name, value in sorted(describe_flags().items())]
        return ",".join([*words, cell.mode])


def describe_run(
    table: Table, baselines: Mapping[str, str], *, argv: Sequence[str], device: str, threads: int,
    seed: int = 0, processes: int = 0, blocks: int = 0, notes: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> Run:  # fmt: skip
    """Return what is known of a run before it begins; `baselines` names its variants."""
    started, code = clock.utc_now(), describe_code(ROOT)
    cards = (replace(variant_card(table.variant(v)), baseline=b) for v, b in baselines.items())
    return Run(
        id=f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}",
        started=started.isoformat(timespec="seconds"),
        commit=code.commit,
        dirty=code.dirty,
        machine=describe_machine(),
        versions=describe_versions(),
        argv=tuple(argv),
        seed=seed,
        device=device,
        threads=threads,
        processes=processes,
        blocks=blocks,
        catalogue=tuple(cards),
        laws=law_cards(table),
        notes=tuple(notes),
        settings=settings or {},
    )
