"""One benchmark run: laws judged, every cell proved, and what is proved sampled, row by row."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import budget as stages
from harness import ceilings, clock, estimate, rounds
from harness.budget import Budget, group_s
from harness.case import ConvCase
from harness.comparison import compare
from harness.effort import COSTLY
from harness.evidence import EVIDENCE, load_evidence
from harness.isolation import End, Job
from harness.judge import BAD, Court, Unit, judge, pairs
from harness.ledger import Ledger, describe_run
from harness.plan import Cell, GroupKey, cell_of, grouped
from harness.proof import Common, Proof, Question
from harness.proving import plugins_of, pool, prove
from harness.results import FAILED, SAMPLED, Status
from harness.sampling import Ending, Group, Setting
from harness.table import every_form

__all__ = ["Benchmark", "describe_run"]

PROVED_AT_ONCE = 16
CEILINGS_TIMEOUT_S = 60.0
LEAST_STAGE_S = 1.0
"""What is worth beginning."""
NO_TIME = "the budget ended before; go on with --resume"
DEVICE_TARGET_NS = 500_000
"""Shortest sample there: events are exact to a microsecond, and every call is flushed before."""


class Benchmark(Ledger):
    """One run: its stages, each within what the budget leaves it."""

    def measure(self, budget: Budget | None = None) -> None:
        """Judge the laws, prove every cell, sample what is proved; say what had no time."""
        budget = budget or Budget(self.options.budget_s)
        if budget.left_s is None:
            left = [self._missing(self.plan.cells, *turn) for turn in self._turns()]
            self.progress.say(
                estimate.before(
                    self.table, left, len(self._unjudged()), self.options.blocks, budget.start_s,
                    self.run.device,
                )
            )  # fmt: skip
        for table in load_evidence(EVIDENCE):
            table.save(self.recorder.folder / "evidence")
        self._judge(budget)
        for cell, status, reason in self.plan.skipped:
            self.record(cell, status=status, reason=reason)
        with tempfile.TemporaryDirectory(prefix="convharness-") as scratch:
            common = Common(
                plugins=self.options.plugins, device=self.run.device, threads=self.run.threads,
                answers=Path(scratch),
            )  # fmt: skip
            self._measure_ceilings(common, budget)
            self._prove(common, budget)
            self._sample(common, budget)
        self._record_late()

    def _record_late(self) -> None:
        """Give a row to every cell that no process has timed, though nothing is wrong with it."""
        known = {cell for cell, _ in self.rows}
        failed = {cell for (cell, _), row in self.rows.items() if row.status in FAILED}
        for cell in self.plan.cells:
            # the placebo of what failed was never to be timed
            if cell not in known and cell._replace(placebo=False) not in failed:
                self.record(cell, status=Status.NO_TIME, reason=NO_TIME)

    def _measure_ceilings(self, common: Common, budget: Budget) -> None:
        """Measure what the machine can do at most, with every number of threads."""
        if self.run.ceilings or not self.plan.cells:
            return
        dtypes = tuple(dict.fromkeys(ConvCase.parse(cell.case).dtype for cell in self.plan.cells))
        found: dict[str, float] = {}
        for threads in self.options.selection.threads:
            seconds = budget.stage(stages.CEILINGS_SHARE, later=stages.PROOFS + stages.SAMPLES)
            if seconds is not None and seconds < LEAST_STAGE_S:
                self.note(f"budget: no time for the ceilings of {threads} threads")
                continue
            job = Job(
                session="harness.ceilings:session", common=replace(common, threads=threads),
                units=[ceilings.Asked(dtypes, self.processors(threads))],
                timeout_s=lambda _: CEILINGS_TIMEOUT_S,
            )  # fmt: skip
            workers = pool(common, self.run.machine.cores, _moment(seconds))
            for report in workers.run([job]):
                if report.end is not End.DONE:
                    why = report.text or report.end.value
                    self.note(f"the ceilings of {threads} threads are not known: {why}")
                    continue
                ending = "" if threads == self.run.threads else f"_with_{threads}_threads"
                found |= {name + ending: rate for name, rate in report.result.items()}
        self.run = replace(self.run, ceilings=found)
        self.write()

    def _judge(self, budget: Budget) -> None:
        left = self._unjudged()
        if not left:
            return  # nor is a server begun: what it takes stays set apart
        total = len(left)
        seconds = budget.stage(stages.LAWS_SHARE, later=stages.PROOFS + stages.SAMPLES)
        if seconds is None or seconds > 0:
            self._judge_some(left, _moment(seconds))
        if left:
            self.note(
                f"budget: {len(left)} of {total} pairs of law and implementation were not judged; "
                "python3 -m pytest properties does"
            )

    def _judge_some(self, left: list[Unit], deadline_s: float | None) -> None:
        """Judge until a moment of `clock.monotonic_s`; `left` keeps what was not."""
        court = Court(
            plugins=self.options.plugins, profile=self.options.laws, device=self.run.device
        )
        total = len(left)
        # devices are shared badly: there one process at a time
        parallel = max(1, min(4, self.run.machine.cores)) if self.run.device == "cpu" else 1
        for row in judge(
            self.table, court, tuple(left), run_id=self.run.id, parallel=parallel,
            deadline_s=deadline_s,
        ):  # fmt: skip
            self.recorder.add(row)
            self.verdicts.append(row)
            left.remove((row.variant, row.implementation, row.law))
            what = f"{row.law} {row.law_name}: {row.variant}/{row.implementation}"
            if row.status in BAD:
                self.progress.say(f"{row.status} {what}")
            self.progress.show(0.0, f"{total - len(left)} of {total} laws, {what}")

    def _unjudged(self) -> list[Unit]:
        """Return what is still to be judged: the laws that cost little over all that is selected."""
        if self.options.laws == "none":
            return []
        judged = {(row.variant, row.implementation, row.law) for row in self.verdicts}
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
                if law.share >= COSTLY and (name, implementation.name, law.id) not in judged
            ]
        return found

    def _turns(self) -> list[tuple[int, int]]:
        """Return number and threads of every process, few and many threads by turns."""
        return list(
            itertools.product(range(self.options.processes), self.options.selection.threads)
        )

    def _missing(
        self, cells: Iterable[Cell], process: int, threads: int
    ) -> dict[GroupKey, list[Cell]]:
        """Return the groups that this process has not measured whole, without whoever failed."""
        failed = {cell for (cell, _), row in self.rows.items() if row.status not in SAMPLED}
        groups = grouped(c for c in cells if c.threads == threads and c not in failed)
        # Only samples of one process pair: a group that was cut short is measured again whole.
        return {
            key: some for key, some in groups.items()
            if any((cell, process) not in self.rows for cell in some)
        }  # fmt: skip

    def _unfinished(self) -> list[Cell]:
        """Return the cells that some process has not measured."""
        left = (self._missing(self.plan.cells, *turn) for turn in self._turns())
        return list(dict.fromkeys(c for groups in left for some in groups.values() for c in some))

    def _prove(self, common: Common, budget: Budget) -> None:
        """Prove what is unfinished, least measured first, in part where the budget ends before."""
        cells: dict[Question, list[Cell]] = {}
        for cell in self._unfinished():
            cells.setdefault(Question(cell.variant, cell.case), []).append(cell)
        measured = Counter(Question(cell.variant, cell.case) for cell, _ in self.rows)
        left = sorted(cells, key=measured.__getitem__)
        end_s = _moment(
            budget.stage(
                stages.PROOFS_SHARE, own=stages.PROOFS, later=stages.SAMPLES, is_needed=True
            )
        )
        total = len(left)
        while left and (end_s is None or clock.monotonic_s() < end_s):
            chosen = left[: total if end_s is None else PROVED_AT_ONCE]
            left = left[len(chosen) :]
            share = 0.1 * (total - len(left)) / total
            some = [cell for question in chosen for cell in cells[question]]
            self._prove_some(common, some, share, end_s)
        asked = {cell.proved_as for some in cells.values() for cell in some}
        known = {cell.proved_as for cell in (*self.proofs, *(cell for cell, _ in self.rows))}
        if late := len(asked - known):
            self.note(f"budget: {late} of {len(asked)} cells were not proved; go on with --resume")

    def _prove_some(
        self, common: Common, cells: Sequence[Cell], share: float, end_s: float | None
    ) -> None:
        """Ask the oracle, then try every contender alone; record who fails."""
        threads, cores = self.options.selection.threads, self.run.machine.cores
        for unit, report in prove(self.table, common, cells, threads, cores, end_s):
            what = f"{unit.variant}/{getattr(unit, 'implementation', 'oracle')}"
            self.progress.show(share, f"proving {what}")
            if report.end is End.OUT_OF_TIME:
                continue
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
                self.record(one, status=status, reason=reason)

    def _sample(self, common: Common, budget: Budget) -> None:
        """Let one process after another sample what is proved, by turns with few and many threads."""
        options = self.options
        plugins = {
            (cell.variant, cell.implementation): plugins_of(self.table, options.plugins, cell)
            for cell in self.proofs
        }
        turns = self._turns()
        if budget.left_s is None:
            left = [rounds.calls_of(self._groups(*turn), self.proofs) for turn in turns]
            seconds = estimate.sampling_s(left, options.blocks, budget.start_s, self.run.device)
            self.progress.say(estimate.after(seconds))
        for number, (process, threads) in enumerate(turns):
            groups = self._groups(process, threads)
            if groups:
                setting = Setting(
                    common=replace(common, threads=threads), seed=options.seed, plugins=plugins,
                    processors=self.processors(threads),
                    target_ns=clock.TARGET_NS if self.run.device == "cpu" else DEVICE_TARGET_NS,
                )  # fmt: skip
                self._sample_process(setting, groups, process, budget, number, len(turns))

    def _sample_process(
        self, setting: Setting, groups: Mapping[GroupKey, Sequence[Cell]], process: int,
        budget: Budget, turn: int, turns: int,
    ) -> None:  # fmt: skip
        options, common, left = self.options, setting.common, turns - turn
        calls, device = rounds.calls_of(groups, self.proofs), self.run.device
        least = min(stages.LEAST_BLOCKS, options.blocks)
        cheapest_s = min(group_s(some, least, device) for some in calls.values())
        if turn == 0 and not budget.can_sample(cheapest_s):
            budget.borrow()
        if not budget.can_sample(cheapest_s):
            self.note(
                f"budget: no time for process {process} with {common.threads} threads; "
                "go on with --resume"
            )
            return
        blocks = budget.blocks(calls, left, options.blocks, device)
        if blocks < options.blocks:
            self.note(f"budget: {blocks} instead of {options.blocks} blocks in some processes")
        planned = [
            Group(key, tuple(cells), blocks, process, group_s(calls[key], blocks, device))
            for key, cells in groups.items()
        ]
        started, done = clock.monotonic_s(), 0
        expected = budget.start_s + sum(group.expected_s for group in planned)
        for found in rounds.sample_process(setting, planned, common.answers, budget.deadline_s):
            if isinstance(found, Ending):
                self.note_ending(process, common.threads, found)
                continue
            done += 1
            for sampled in found:
                self.record_sampled(sampled)
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
        """Return what this process is to sample, what is least known first: time may run out."""
        groups = self._missing((c for c in self.plan.cells if c in self.proofs), process, threads)
        widths = self._widths()
        return {key: groups[key] for key in sorted(groups, key=lambda k: -widths.get(k, math.inf))}

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


def _moment(seconds: float | None) -> float | None:
    """Return when so many seconds are over, as `clock.monotonic_s` will say."""
    return None if seconds is None else clock.monotonic_s() + seconds
