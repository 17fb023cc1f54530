"""Two checkouts timed side by side: a process of each, by turns in random order.

Two checkouts of the same modules cannot live in one process, so a block is one sample of every
side, taken in turns, in which one works while the others wait. What a process happens to be (where its memory lies)
does not divide out as it does within one: that is why a third process, of the first checkout once
more, takes part as the placebo, and why the interval is over sets of fresh processes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from harness import clock, side
from harness.case import ConvCase
from harness.check import DIFFERENTIABLE, Refuted, Trial, expected_dtype
from harness.comparison import Comparison, compare
from harness.contest import Rules
from harness.gate import answered
from harness.plan import Cell
from harness.processors import environment_for, processors_for
from harness.proof import Answer, Call, Common, Question, answer_path, load_answer, refutation_text
from harness.proof import compare as prove
from harness.results import Measurement, Status
from harness.table import Table
from harness.tensors import another, leaves, make_tensors
from harness.variant import Implementation, Role, Value

THEN, NOW, AGAIN = "then", "now", "then again"
NO_TIME = "no time was left"
ORACLE_SHARE = 0.3
"""Which share of the time the oracle may take for its answers."""
START_S, PATIENCE_S, COMPILE_S, JOIN_S = 180.0, 60.0, 240.0, 5.0


class Lost(Exception):
    """A side that failed: which, and why."""


class Row(NamedTuple):
    """What a duel came to for one cell: now over then, then again over then; or why nothing."""

    cell: Cell
    now: Comparison | None
    placebo: Comparison | None
    reason: str = ""


class Process:
    """A process of one checkout; `log` takes what it prints."""

    def __init__(
        self, label: str, checkout: Path, device: str, threads: int, log: Path,
        plugins: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.label, self._log = label, log
        words = [str(checkout.resolve()), str(Path(str(clock.__file__)).resolve()), device]
        command = [
            sys.executable,
            "-P",
            str(Path(side.__file__).resolve()),
            *words,
            str(threads),
            *plugins,
        ]
        with log.open("w", encoding="utf-8") as sink:
            self._process = subprocess.Popen(
                command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink,
                text=True, env=os.environ | environment_for(threads),
            )  # fmt: skip
        if device == "cpu" and (chosen := processors_for(threads)):
            os.sched_setaffinity(self._process.pid, chosen)
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), daemon=True
        )
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._answers.put(line)
        self._answers.put("")

    def answer(self, patience_s: float) -> dict[str, Any]:
        """Return what the process answers.

        Raises:
            Lost: it raised, ended, or gave no answer in time.
        """
        try:
            line = self._answers.get(timeout=patience_s)
        except queue.Empty:
            raise Lost(f"{self.label}: no answer in {patience_s:.0f} s") from None
        if not line:
            last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            code = self._process.wait()
            raise Lost(f"{self.label}: ended with exit code {code} {' '.join(last[-1:])}".strip())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Lost(f"{self.label}: {answer['error']}")
        return answer

    def ask(self, patience_s: float, **request: str | int) -> dict[str, Any]:
        """Send a request; return the answer, or raise as `answer` does."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # who is gone says so in its answer
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self.answer(patience_s)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join(JOIN_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def fight(
    table: Table, cells: Sequence[Cell], then: Path, now: Path, rules: Rules, *,
    device: str = "cpu", seed: int = 0, deadline_s: float | None = None,
    plugins: tuple[str, ...] = (),
) -> list[Row]:  # fmt: skip
    """Time every cell of two checkouts against each other.

    Both are compared with this checkout's oracle first: the time of a wrong answer is no time.

    Args:
        table: The table of this checkout.
        cells: What both checkouts have.
        then: The folder of the first checkout, by which is divided.
        now: The folder of the second.
        rules: How much is sampled.
        device: Where.
        seed: Of the orders.
        deadline_s: Moment of `clock.monotonic_s` when no further cell is begun.
        plugins: What both sides load; a file of the second folder is that of either.

    Raises:
        Lost: a side failed before anything was measured.
    """
    reasons: dict[Cell, str] = {}
    measured: list[Measurement] = []
    questions = list(dict.fromkeys(Question(cell.variant, cell.case) for cell in cells))
    asked = clock.monotonic_s()
    oracle_s = None if deadline_s is None else asked + ORACLE_SHARE * (deadline_s - asked)
    with answered(questions, device, rules.threads, oracle_s, plugins) as common:
        if _is_over(oracle_s):
            late = (c for c in cells if not answer_path(common.answers, c.variant, c.case).exists())
            reasons |= dict.fromkeys(late, NO_TIME)
        ends = _ends(rules.processes, deadline_s)
        for process, end_s in enumerate(ends):
            waiting = [cell for cell in cells if cell not in reasons]
            while waiting and not _is_over(end_s):
                try:
                    with _sides(then, now, common, process) as sides:
                        waiting = _round(
                            table, waiting, sides, common, rules, Turn(process, seed, end_s),
                            measured, reasons,
                        )  # fmt: skip
                except Lost:
                    if not measured:
                        raise
                    break  # what earlier sets have measured counts
            # what the first set had no time for, no later one has
            known = {(row.variant, row.case, row.direction) for row in measured}
            for cell in cells:
                if (_name(cell), cell.case, cell.direction) not in known:
                    reasons.setdefault(cell, NO_TIME)
    rows = {(row.variant, row.case, row.direction, row.placebo): row for row in compare(measured)}
    return [_row(cell, rows, reasons.get(cell, "")) for cell in cells]


def _ends(processes: int, deadline_s: float | None) -> list[float | None]:
    """Return when every set of processes ends: each has the same share of the time."""
    if deadline_s is None:
        return [None] * processes
    start = clock.monotonic_s()
    return [start + (deadline_s - start) * (n + 1) / processes for n in range(processes)]


def _row(
    cell: Cell, rows: Mapping[tuple[str, str, str, bool], Comparison], reason: str
) -> Row:  # fmt: skip
    key = _name(cell), cell.case, cell.direction
    if reason or (*key, False) not in rows:
        return Row(cell, None, None, reason or NO_TIME)
    return Row(cell, rows[*key, False], rows[*key, True])


class Turn(NamedTuple):
    """Which set of processes, its seed, and when it ends."""

    process: int
    seed: int
    deadline_s: float | None


@contextlib.contextmanager
def _sides(then: Path, now: Path, common: Common, process: int) -> Iterator[dict[str, Process]]:
    checkouts = {THEN: then, NOW: now, AGAIN: then}
    started = {
        label: Process(
            label, checkout, common.device, common.threads,
            common.answers / f"{label.replace(' ', '_')}-{process}.log",
            [_found_from(word, checkout, now) for word in common.plugins],
        )
        for label, checkout in checkouts.items()
    }  # fmt: skip
    try:
        for one in started.values():
            one.answer(START_S)
        yield started
    finally:
        for one in started.values():
            one.end()


def _found_from(word: str, checkout: Path, now: Path) -> str:
    """Return a plug-in as a process in `checkout` finds it: one of the folder `now` is its own."""
    path, root = Path(word).resolve(), now.resolve()
    if not path.is_file():
        return word  # a module
    return str(checkout.resolve() / path.relative_to(root) if path.is_relative_to(root) else path)


def _round(
    table: Table, cells: Sequence[Cell], sides: Mapping[str, Process], common: Common,
    rules: Rules, turn: Turn, measured: list[Measurement], reasons: dict[Cell, str],
) -> list[Cell]:  # fmt: skip
    """Time cells in one set of processes; return those that wait for another, one being lost."""
    for number, cell in enumerate(cells):
        if _is_over(turn.deadline_s):
            return []
        try:
            measured += _timed(table, cell, sides, common, rules, turn)
        except (Lost, Refuted, RuntimeError, ValueError, KeyError) as error:
            words = refutation_text(error) if isinstance(error, Refuted) else str(error)
            reasons[cell] = words
            if isinstance(error, Lost):
                return list(cells[number + 1 :])
    return []


def _timed(
    table: Table, cell: Cell, sides: Mapping[str, Process], common: Common, rules: Rules,
    turn: Turn,
) -> list[Measurement]:  # fmt: skip
    inputs, posed = _pose(table, cell, common)
    counts = {}
    for label, process in sides.items():
        result = common.answers / "result.pt"
        counts[label] = process.ask(
            COMPILE_S, do="prepare", variant=cell.variant, implementation=cell.implementation,
            case=cell.case, inputs=str(inputs), result=str(result),
        )["calls"]  # fmt: skip
        if turn.process == 0:
            posed.check(label, torch.load(result, weights_only=True))
    order = random.Random(f"{turn.seed}/{turn.process}/{cell}")
    turns = clock.turns_of(counts.values()) if common.device == "cpu" else 1
    parts = {label: math.ceil(count / turns) for label, count in counts.items()}
    samples: dict[str, list[clock.Sample]] = {label: [] for label in sides}
    for _ in range(rules.blocks):
        taken: dict[str, list[int]] = {label: [] for label in sides}
        for _, label in clock.in_turns(list(sides), turns, order):
            answer = sides[label].ask(PATIENCE_S, do="sample", calls=parts[label])
            taken[label].append(answer["ns"])
        found = clock.samples_of(list(taken.values()), list(parts.values()))
        for label, sample in zip(sides, found, strict=True):
            samples[label].append(sample)
    return [
        Measurement(
            run_id="history", variant=_name(cell),
            implementation=NOW if label == NOW else THEN, placebo=label == AGAIN,
            case=cell.case, case_name=cell.case_name, direction=cell.direction,
            dtype=posed.case.dtype, device=common.device, threads=common.threads,
            process=turn.process, block=tuple(range(rules.blocks)),
            samples_ns=tuple(sample.middle_ns for sample in samples[label]),
            mean_ns=tuple(sample.mean_ns for sample in samples[label]) if turns > 1 else (),
            calls_per_sample=turns * parts[label],
            status=Status.MEASURED,
        )
        for label in sides
    ]  # fmt: skip


class _Posed:
    """A cell's tensors, and what the oracle says of them."""

    def __init__(self, table: Table, cell: Cell, common: Common) -> None:
        self.variant, self.case = table.variant(cell.variant), ConvCase.parse(cell.case)
        implementation: Implementation = table.implementation(self.variant, cell.implementation)
        self.backward = cell.direction == "backward"
        self.call = Call(self.variant, implementation, self.case, cell.direction)
        self.trial = Trial(self.variant, implementation, self.case, common.device)
        self.answer: Answer = load_answer(common.answers, cell.variant, cell.case)

    def tensors(self) -> dict[str, Any]:
        """Return what a side is given."""
        made: Mapping[str, Value] = make_tensors(self.variant, self.case)
        roles = enumerate(arg.role for arg in self.variant.args)
        output = self.answer.truth["output"].to(expected_dtype(self.case))
        dy = another(output, self.case, Role.WEIGHT, "dy") if self.backward else None
        places = [place for place, role in roles if role in DIFFERENTIABLE]
        return {"tensors": list(made.values()), "dy": dy, "differentiable": places}

    def check(self, label: str, found: Mapping[str, Sequence[torch.Tensor | None]]) -> None:
        """Raise Refuted unless a side's result is what the oracle says."""
        given = {
            arg.name: self.trial.tensors[arg.name]
            for arg in self.variant.args
            if arg.role in DIFFERENTIABLE
        }
        outputs = {
            name: value
            for name, value in zip(self.answer.truth, found["outputs"], strict=True)
            if value is not None
        }
        gradients = {
            name: torch.zeros_like(tensor) if gradient is None else gradient
            for (name, tensor), gradient in zip(
                leaves(given).items(), found["gradients"], strict=False
            )
        }
        try:
            prove(self.trial, self.call, (outputs, gradients), self.answer)
        except Refuted as error:
            error.message = f"{label}: {error.message}"
            raise


def _pose(table: Table, cell: Cell, common: Common) -> tuple[Path, _Posed]:
    posed, path = _Posed(table, cell, common), common.answers / "inputs.pt"
    torch.save(posed.tensors(), path)
    return path, posed


def _name(cell: Cell) -> str:
    return f"{cell.variant}/{cell.implementation}"


def _is_over(deadline_s: float | None) -> bool:
    return deadline_s is not None and clock.monotonic_s() > deadline_s
