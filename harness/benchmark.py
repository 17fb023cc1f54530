"""One benchmark run: laws judged, every cell proved, and what is proved sampled, row by row."""

from __future__ import annotations

import itertools
import math
import secrets
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from harness import ceilings, clock, rounds
from harness.case import ConvCase
from harness.catalogue import law_cards, variant_card
from harness.comparison import compare
from harness.contender import Sampled
from harness.cuda_clock import throttled
from harness.evidence import EVIDENCE, load_evidence
from harness.isolation import End, Job
from harness.judge import BAD, Court, Unit, judge, pairs
from harness.machine import describe_code, describe_flags, describe_machine, describe_versions
from harness.options import Options
from harness.plan import Cell, GroupKey, Plan, cell_of, grouped
from harness.processors import processors_for
from harness.proof import Common, Proof, Question
from harness.proving import plugins_of, pool, prove
from harness.results import (
    FAILED,
    MOST_STEAL,
    SAMPLED,
    LoadedRun,
    Measurement,
    Recorder,
    Run,
    Status,
    Verdict,
)
from harness.rounds import Budget
from harness.sampling import Ending, Group, Setting
from harness.search import COSTLY
from harness.table import Table, every_form
from harness.terminal import Progress

ROOT = Path(__file__).resolve().parent.parent
PAGE_S = 35.0
LAWS_SHARE = 0.4
"""Which share of the budget laws may take before the remaining variants go without."""
PROOFS_SHARE = 0.6
"""Which share of what is then left proofs may take before sampling begins."""
PROVED_AT_ONCE = 16
GRACE_S = 60.0
"""How much later than the budget the first process of every cell may end."""
CEILINGS_TIMEOUT_S, CEILINGS_SHARE = 60.0, 0.1
DEVICE_TARGET_NS = 500_000
"""Shortest sample there: events are exact to a microsecond, and every call is flushed before."""


@dataclass(slots=True)
class Benchmark:
    """One run: what is known of it, and what is still to do."""

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
            self.rows = {(cell_of(row), row.process): row for row in self.before.measurements}
            self.verdicts = list(self.before.verdicts)

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

    def measure(self) -> None:
        """Judge the laws, prove every cell, sample what is proved."""
        budget = Budget(self.options.budget_s)
        if budget.seconds is not None:
            budget.seconds = max(budget.seconds - PAGE_S, budget.seconds / 2)
        for table in load_evidence(EVIDENCE):
            table.save(self.recorder.folder / "evidence")
        self._judge(budget)
        for cell, status, reason in self.plan.skipped:
            self._record(cell, status=status, reason=reason)
        with tempfile.TemporaryDirectory(prefix="convharness-") as scratch:
            common = Common(
                plugins=self.options.plugins, device=self.run.device, threads=self.run.threads,
                answers=Path(scratch),
            )  # fmt: skip
            self._measure_ceilings(common, budget)
            self._prove(common, budget)
            self._sample(common, budget)

    def _measure_ceilings(self, common: Common, budget: Budget) -> None:
        """Measure what the machine can do at most, with every number of threads."""
        if self.run.ceilings or not self.plan.cells:
            return
        dtypes = tuple(dict.fromkeys(ConvCase.parse(cell.case).dtype for cell in self.plan.cells))
        found: dict[str, float] = {}
        for threads in self.options.selection.threads:
            job = Job(
                session="harness.ceilings:session", common=replace(common, threads=threads),
                units=[ceilings.Asked(dtypes, self._processors(threads))],
                timeout_s=lambda _: CEILINGS_TIMEOUT_S if budget.left_s is None
                else min(CEILINGS_TIMEOUT_S, CEILINGS_SHARE * budget.left_s),
            )  # fmt: skip
            for report in pool(common, self.run.machine.cores).run([job]):
                if report.end is not End.DONE:
                    self.note(f"the ceilings of {threads} threads are not known: {report.text}")
                    continue
                ending = "" if threads == self.run.threads else f"_with_{threads}_threads"
                found |= {name + ending: rate for name, rate in report.result.items()}
        self.run = replace(self.run, ceilings=found)
        self.write()

    def _judge(self, budget: Budget) -> None:
        if self.options.laws == "none":
            return
        judged = {(row.variant, row.implementation, row.law) for row in self.verdicts}
        left = [unit for unit in self._units() if unit not in judged]
        seconds = budget.seconds
        deadline = None if seconds is None else clock.monotonic_s() + LAWS_SHARE * seconds
        court = Court(
            plugins=self.options.plugins, profile=self.options.laws, device=self.run.device
        )
        total = len(left)
        # devices are shared badly: there one process at a time
        parallel = max(1, min(4, self.run.machine.cores)) if self.run.device == "cpu" else 1
        for row in judge(
            self.table, court, left, run_id=self.run.id, parallel=parallel, deadline_s=deadline
        ):
            self.recorder.add(row)
            self.verdicts.append(row)
            left.remove((row.variant, row.implementation, row.law))
            what = f"{row.law} {row.law_name}: {row.variant}/{row.implementation}"
            if row.status in BAD:
                self.progress.say(f"{row.status} {what}")
            self.progress.show(0.0, f"{total - len(left)} of {total} laws, {what}")
        if left:
            self.note(
                f"budget: {len(left)} of {total} pairs of law and implementation were not judged; "
                "python3 -m pytest properties does"
            )

    def _units(self) -> list[Unit]:
        """Return what is judged: the laws that cost little over all that is selected."""
        chosen = self.options.selection.implementations
        names = [card.name for card in self.run.catalogue]
        found = []
        for name in names:
            known = {i.name for i in every_form(self.table.variant(name))}
            implementations = [i for i in chosen if i in known]
            if chosen and not implementations:
                continue
            found += [
                (name, implementation.name, law.id)
                for law, _, implementation in pairs(self.table, [name], implementations)
                if law.share >= COSTLY
            ]
        return found

    def _unfinished(self) -> list[Cell]:
        """Return the cells that still lack a process."""
        lost = {cell for (cell, _), row in self.rows.items() if row.status not in SAMPLED}
        missing = {
            cell.group
            for cell in self.plan.cells
            for process in range(self.options.processes)
            if cell not in lost and (cell, process) not in self.rows
        }
        return [c for c in self.plan.cells if c.group in missing and c not in lost]

    def _prove(self, common: Common, budget: Budget) -> None:
        """Prove what is unfinished, least measured first, in part where the budget ends before."""
        cells: dict[Question, list[Cell]] = {}
        for cell in self._unfinished():
            cells.setdefault(Question(cell.variant, cell.case), []).append(cell)
        measured = Counter(Question(cell.variant, cell.case) for cell, _ in self.rows)
        left = sorted(cells, key=measured.__getitem__)
        end_s = (
            None if budget.left_s is None else clock.monotonic_s() + PROOFS_SHARE * budget.left_s
        )
        total = len(left)
        while left and (end_s is None or len(left) == total or clock.monotonic_s() < end_s):
            chosen = left[: total if end_s is None else PROVED_AT_ONCE]
            left = left[len(chosen) :]
            share = 0.1 * (total - len(left)) / total
            self._prove_some(common, [c for question in chosen for c in cells[question]], share)
        if left:
            self.note(f"budget: {len(left)} of {total} cases were not proved; go on with --resume")

    def _prove_some(self, common: Common, cells: Sequence[Cell], share: float) -> None:
        """Ask the oracle, then try every contender alone; record who fails."""
        threads = self.options.selection.threads
        for unit, report in prove(self.table, common, cells, threads, self.run.machine.cores):
            what = f"{unit.variant}/{getattr(unit, 'implementation', 'oracle')}"
            self.progress.show(share, f"proving {what}")
            if isinstance(unit, Cell):
                self._accept(unit, report.end, report.result, report.text)
            elif report.end is not End.DONE:
                self.note(f"{what} does not answer for {unit.case}: {report.text}")

    def _accept(self, cell: Cell, end: End, proof: Proof | None, text: str) -> None:
        """Note what a probe says of all cells that it speaks for."""
        cells = [one for one in self.plan.cells if one.proved_as == cell]
        if end is End.DONE and proof is not None and not proof.reason:
            self.proofs |= dict.fromkeys(cells, proof)
            return
        if end is End.DONE and proof is not None:
            status, reason = Status.REFUTED, proof.reason
        else:
            status, reason = rounds.STATUSES.get(end, Status.CRASHED), text
        for one in cells:
            if not one.placebo:
                self._record(one, status=status, reason=reason)

    def _sample(self, common: Common, budget: Budget) -> None:
        """Let one process after another sample what is proved, by turns with few and many threads."""
        options = self.options
        plugins = {
            (cell.variant, cell.implementation): plugins_of(self.table, options.plugins, cell)
            for cell in self.proofs
        }
        turns = list(itertools.product(range(options.processes), options.selection.threads))
        for number, (process, threads) in enumerate(turns):
            groups = self._groups(process, threads)
            if groups:
                setting = Setting(
                    common=replace(common, threads=threads), seed=options.seed, plugins=plugins,
                    processors=self._processors(threads),
                    target_ns=clock.TARGET_NS if self.run.device == "cpu" else DEVICE_TARGET_NS,
                )  # fmt: skip
                self._sample_process(setting, groups, process, budget, number, len(turns))

    def _sample_process(
        self, setting: Setting, groups: Mapping[GroupKey, Sequence[Cell]], process: int,
        budget: Budget, turn: int, turns: int,
    ) -> None:  # fmt: skip
        options, common, left = self.options, setting.common, turns - turn
        calls, device = rounds.calls_of(groups, self.proofs), self.run.device
        blocks = budget.blocks(calls, left, options.blocks, device)
        if blocks < options.blocks:
            self.note(f"budget: {blocks} instead of {options.blocks} blocks in some processes")
        planned = [
            Group(key, tuple(cells), blocks, process,
                  rounds.fixed_s(calls[key], device) + blocks * rounds.block_s(calls[key], device))
            for key, cells in groups.items()
        ]  # fmt: skip
        deadline = budget.deadline_s
        if deadline is not None and process == 0:
            deadline += GRACE_S
        started, done = clock.monotonic_s(), 0
        expected = rounds.START_S + sum(group.expected_s for group in planned)
        for found in rounds.sample_process(setting, planned, common.answers, deadline):
            if isinstance(found, Ending):
                self._note_ending(process, common.threads, found)
                continue
            done += 1
            for sampled in found:
                self._record_sampled(sampled)
            key = found[0].cell
            share = 0.1 + 0.9 * (turn + done / len(planned)) / turns
            wait = (expected - (clock.monotonic_s() - started)) + expected * (left - 1)
            self.progress.show(
                min(share, 1.0), f"process {process + 1}/{options.processes} {key.variant} "
                f"{key.case_name or key.case} {key.direction}", wait,
            )  # fmt: skip
        budget.learn(expected, clock.monotonic_s() - started)
        if done < len(planned):
            self.note(
                f"budget: process {process} timed {done} of {len(planned)} groups; "
                "go on with --resume"
            )

    def _groups(self, process: int, threads: int) -> dict[GroupKey, list[Cell]]:
        """Return the groups that this process has not measured whole, without whoever failed."""
        failed = {cell for (cell, _), row in self.rows.items() if row.status not in SAMPLED}
        alive = [c for c in self.proofs if c.threads == threads and c not in failed]
        order = {cell: number for number, cell in enumerate(self.plan.cells)}
        groups = grouped(sorted(alive, key=order.__getitem__))
        widths = self._widths()
        # What is least known comes first: the budget may end before the last.
        groups = {
            key: groups[key] for key in sorted(groups, key=lambda k: -widths.get(k, math.inf))
        }
        # Only samples of one process pair: a group that was cut short is measured again whole.
        return {
            key: cells for key, cells in groups.items()
            if any((cell, process) not in self.rows for cell in cells)
        }  # fmt: skip

    def _widths(self) -> dict[GroupKey, float]:
        """Return how wide the widest interval of every group is, where all have one."""
        widths: dict[GroupKey, float] = {}
        for row in compare(self.rows.values(), self.plan.baselines):
            width = math.inf
            if row.ratio_low is not None and row.ratio_high is not None:
                width = math.log(row.ratio_high / row.ratio_low)
            key = cell_of(row).group
            widths[key] = max(widths.get(key, 0.0), width)
        return widths

    def _record_sampled(self, sampled: Sampled) -> None:
        values = sampled._asdict()
        values |= self._off_clock(sampled)
        self._record(values.pop("cell"), **values)

    def _off_clock(self, sampled: Sampled) -> dict[str, Any]:
        """Return the blocks at another frequency than the run's, and the status they lead to.

        A device's alone: what a processor's system says of its frequency is no measurement.
        """
        if self.run.device == "cpu" or not sampled.block_clock_hz:
            return {}
        known = [rate for row in self.rows.values() for rate in row.block_clock_hz]
        usual = median([*known, *sampled.block_clock_hz])
        return throttled(sampled.block, sampled.block_clock_hz, usual)

    def _record(self, cell: Cell, *, process: int = 0, **values: Any) -> None:
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

    def _note_ending(self, process: int, threads: int, ending: Ending) -> None:
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

    def _processors(self, threads: int) -> tuple[int, ...]:
        return processors_for(threads) if self.run.device == "cpu" else ()

    def _flags(self, cell: Cell) -> str:
        """Return what else tells a row from others: how the process is set up, and the mode."""
        if self.run.device == "cpu":
            return "pinned" if self._processors(cell.threads) else ""
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
