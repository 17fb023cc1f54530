"""One benchmark run: laws judged, every cell proved, and what is proved sampled, row by row."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import clock, sampling
from harness.case import ConvCase
from harness.catalogue import law_cards, variant_card
from harness.comparison import compare
from harness.evidence import EVIDENCE, load_evidence
from harness.isolation import End, Job, Pool
from harness.judge import BAD, Court, Unit, judge, pairs
from harness.machine import describe_code, describe_flags, describe_machine, describe_versions
from harness.plan import Cell, GroupKey, Plan, Selection, cell_of, grouped
from harness.proof import Common, Proof, Question
from harness.results import (
    LoadedRun,
    Measurement,
    Recorder,
    ResultsError,
    Run,
    Status,
    Verdict,
)
from harness.sampling import FAILED, Budget, Group, Sampled, Setting
from harness.search import COSTLY
from harness.table import PLUGIN, Table, every_form
from harness.terminal import Progress
from harness.variant import Need

try:
    import fcntl
except ImportError:  # not a POSIX system: nobody is kept out
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent
PAGE_S = 35.0
LAWS_SHARE = 0.4
"""Which share of the budget laws may take before the remaining variants go without."""
PROOFS_SHARE = 0.6
"""Which share of what is then left proofs may take before sampling begins."""
PROVED_AT_ONCE = 16
GRACE_S = 60.0
"""How much later than the budget the first process of every cell may end."""
PROBE_TIMEOUT_S = 30.0
ORACLE_TIMEOUT_S = 300.0
COMPILE_TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a resumed run must take over unchanged."""

    selection: Selection
    processes: int
    blocks: int
    seed: int
    laws: str
    plugins: tuple[str, ...]
    budget_s: float | None

    def words(self) -> dict[str, str]:
        """Return every option as JSON, by name."""
        flat = dataclasses.asdict(self)
        flat |= flat.pop("selection")
        return {name: json.dumps(value) for name, value in flat.items()}

    @classmethod
    def from_words(cls, words: Mapping[str, str], folder: Path) -> Options:
        """Read what `words` gave.

        Raises:
            ResultsError: the run was not made by `bench`.
        """
        try:
            read = {f.name: json.loads(words[f.name]) for f in dataclasses.fields(cls)[1:]}
            chosen: dict[str, Any] = {
                f.name: json.loads(words[f.name]) for f in dataclasses.fields(Selection)
            }
        except (KeyError, ValueError) as error:
            raise ResultsError(f"{folder}: cannot be resumed: no setting {error}") from error
        chosen |= {k: tuple(v) for k, v in chosen.items() if isinstance(v, list)}
        read["plugins"] = tuple(read["plugins"])
        return cls(selection=Selection(**chosen), **read)


@contextlib.contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keep every other process from measuring into `folder`; the system frees it after a kill.

    Raises:
        ResultsError: somebody does already, or the folder cannot be written.
    """
    try:
        file = (folder / "lock").open("a", encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error.strerror}") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ResultsError(f"{folder}: another process is measuring into it") from error
        yield


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
    flags: str = ""

    def __post_init__(self) -> None:
        self.flags = self._describe_flags()
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
            self._prove(common, budget)
            self._sample(common, budget)

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
        lost = {cell for (cell, _), row in self.rows.items() if row.status is not Status.MEASURED}
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
        questions: dict[str, list[Question]] = {}
        contenders: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            asked = questions.setdefault(cell.variant, [])
            if (question := Question(cell.variant, cell.case)) not in asked:
                asked.append(question)
            if not cell.placebo:
                contenders.setdefault((cell.variant, cell.implementation), []).append(cell)
        for session, work, timeout_s in (
            ("answer_session", list(questions.values()), lambda _: ORACLE_TIMEOUT_S),
            ("probe_session", list(contenders.values()), self._probe_timeout_s),
        ):
            jobs = [
                Job(session=f"harness.proof:{session}", units=units, timeout_s=timeout_s,
                    common=replace(common, plugins=self._plugins(units[0])))
                for units in work
            ]  # fmt: skip
            for report in self._pool(common).run(jobs):
                unit = work[report.job][report.unit]
                what = f"{unit.variant}/{getattr(unit, 'implementation', 'oracle')}"
                self.progress.show(share, f"proving {what}")
                if isinstance(unit, Cell):
                    self._accept(unit, report.end, report.result, report.text)
                elif report.end is not End.DONE:
                    self.note(f"{what} does not answer for {unit.case}: {report.text}")

    def _plugins(self, unit: Cell | Question) -> tuple[str, ...]:
        """Return the plug-ins that a process needs for `unit`: no stranger meets another."""
        variant = self.table.variant(unit.variant)
        origins = {variant.reference.origin}
        if isinstance(unit, Cell):
            origins.add(self.table.implementation(variant, unit.implementation).origin)
        return tuple(word for word in self.options.plugins if f"{PLUGIN}{word}" in origins)

    def _pool(self, common: Common) -> Pool:
        loaded = [m for m in sys.modules if m.startswith(("impls.", "properties.laws."))]
        return Pool(
            method="forkserver",  # it has imported torch, and never touched a device
            parallel=max(1, min(4, self.run.machine.cores)),
            scratch=common.answers,
            preload=("harness.__main__", "torch._dynamo", *loaded),  # or each child imports them
            environment=sampling.environment_for(self.run.threads),
        )

    def _probe_timeout_s(self, cell: Cell) -> float:
        variant = self.table.variant(cell.variant)
        implementation = self.table.implementation(variant, cell.implementation)
        slow = Need.COMPILER in implementation.needs or Need.TRITON in implementation.needs
        return COMPILE_TIMEOUT_S if slow else PROBE_TIMEOUT_S

    def _accept(self, cell: Cell, end: End, proof: Proof | None, text: str) -> None:
        if end is End.DONE and proof is not None and not proof.reason:
            self.proofs[cell] = proof
            if (placebo := cell._replace(placebo=True)) in self.plan.cells:
                self.proofs[placebo] = proof
            return
        if end is End.DONE and proof is not None:
            status, reason = Status.REFUTED, proof.reason
        else:
            status = Status.TIMED_OUT if end is End.TIMED_OUT else Status.CRASHED
            reason = text
        self._record(cell, status=status, reason=reason)

    def _sample(self, common: Common, budget: Budget) -> None:
        options = self.options
        processors = sampling.processors_for(self.run.threads) if common.device == "cpu" else ()
        plugins = {(c.variant, c.implementation): self._plugins(c) for c in self.proofs}
        setting = Setting(
            common=common, seed=options.seed, processors=processors, plugins=plugins
        )  # fmt: skip
        total = max(1, len(grouped(self.proofs)) * options.processes)
        for process in range(options.processes):
            groups = self._groups(process)
            if not groups:
                continue
            rounds = options.processes - process
            calls = sampling.calls_of(groups, self.proofs)
            blocks = budget.blocks(calls, rounds, options.blocks)
            if blocks < options.blocks:
                self.note(f"budget: {blocks} instead of {options.blocks} blocks in some processes")
            planned = [
                Group(key, tuple(cells), blocks, process,
                      sampling.fixed_s(calls[key]) + blocks * sampling.block_s(calls[key]))
                for key, cells in groups.items()
            ]  # fmt: skip
            deadline = budget.deadline_s
            if deadline is not None and process == 0:
                deadline += GRACE_S
            started, done = clock.monotonic_s(), 0
            expected = sampling.START_S + sum(group.expected_s for group in planned)
            for found in sampling.sample_process(setting, planned, common.answers, deadline):
                if isinstance(found, dict):
                    self._note_disturbances(process, found)
                    continue
                done += 1
                for sampled in found:
                    self._record_sampled(sampled)
                key = found[0].cell
                share = 0.1 + 0.9 * (process * len(groups) + done) / max(
                    total, options.processes * len(groups)
                )
                left = (expected - (clock.monotonic_s() - started)) + expected * (rounds - 1)
                self.progress.show(
                    min(share, 1.0), f"process {process + 1}/{options.processes} {key.variant} "
                    f"{key.case_name or key.case} {key.direction}", left,
                )  # fmt: skip
            budget.learn(expected, clock.monotonic_s() - started)
            if done < len(planned):
                self.note(
                    f"budget: process {process} timed {done} of {len(planned)} groups; "
                    "go on with --resume"
                )

    def _groups(self, process: int) -> dict[GroupKey, list[Cell]]:
        """Return the groups that this process has not measured whole, without whoever failed."""
        failed = {cell for (cell, _), row in self.rows.items() if row.status is not Status.MEASURED}
        alive = [cell for cell in self.proofs if cell not in failed]
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
            key = GroupKey(row.variant, row.case, row.case_name, row.direction)
            widths[key] = max(widths.get(key, 0.0), width)
        return widths

    def _record_sampled(self, sampled: Sampled) -> None:
        self._record(
            sampled.cell, process=sampled.process, status=sampled.status, reason=sampled.reason,
            block=sampled.block, samples_ns=sampled.samples_ns,
            calls_per_sample=sampled.calls_per_sample,
        )  # fmt: skip

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
            threads=self.run.threads,
            flags=self.flags,
            placebo=cell.placebo,
            process=process,
            peak_bytes=proof.peak_bytes,
            saved_bytes=proof.saved_bytes,
            proof=proof.proof,
            **values,
        )
        self.recorder.add(row)
        self.rows[cell, process] = row
        if row.status in FAILED:
            name = f"{row.variant}/{row.implementation} {row.case_name or row.case} {row.direction}"
            self.progress.say(f"{row.status} {name}: {row.reason}")

    def _note_disturbances(self, process: int, found: Mapping[str, float]) -> None:
        if found["steal"] > 0.005:
            self.note(f"process {process}: {found['steal']:.1%} of the machine's time was stolen")
        switches = f"{found['switches']:.0f} involuntary context switches"
        words = f"load {found['load']:.2f}, steal {found['steal']:.2%}, {switches}"
        settings = {**self.run.settings, f"process {process}": words}
        self.run = replace(self.run, settings=settings)
        self.write()

    def _describe_flags(self) -> str:
        if self.run.device == "cpu":
            return "pinned" if sampling.processors_for(self.run.threads) else ""
        return ",".join(f"{name}={value}" for name, value in sorted(describe_flags().items()))


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
