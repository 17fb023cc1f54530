"""Samples: interleaved in random order, in several fresh processes, within a budget.

The unit is the block: one sample of every implementation of a group in random order, so that what
disturbs the machine for longer than a block divides out of their ratios. The baseline takes part a
second time, as the placebo. Processes come in rounds: every cell has its first process before any
has its second.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness import clock
from harness.arbiter import Arbiter
from harness.case import ConvCase
from harness.check import Refuted, Trial
from harness.isolation import End, Job, Last, Pool, Report, error_text
from harness.plan import Cell, GroupKey
from harness.pool import TensorPool
from harness.proof import (
    Call,
    Common,
    Proof,
    compare,
    compiles,
    copied,
    prepare,
    refutation_text,
    require_no_memory,
)
from harness.results import Status
from harness.surroundings import COMPILED, Surroundings
from harness.table import Table
from harness.tensors import make_tensors

LEAST_BLOCKS = 3
WARM_UP_CALLS = 3
BURN_IN_S = 0.25
START_S = 4.0
HANG_S = 30.0
FAILED = (Status.REFUTED, Status.CRASHED, Status.TIMED_OUT)


class Group(NamedTuple):
    """What one process times side by side, and in how many blocks."""

    key: GroupKey
    cells: tuple[Cell, ...]
    blocks: int
    process: int
    expected_s: float


class Sampled(NamedTuple):
    """What one process measured of one cell; the fields are those of a row."""

    cell: Cell
    process: int
    status: Status
    block: tuple[int, ...] = ()
    samples_ns: tuple[int, ...] = ()
    calls_per_sample: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a timing process is set up.

    Args:
        common: Where table and answers are.
        seed: Of the orders.
        processors: Where the process is pinned; empty = nowhere.
        plugins: What plug-ins an implementation needs, by its variant and name; a process loads
            those of whoever is timed in it.
        target_ns: Shortest sample.
    """

    common: Common
    seed: int
    processors: tuple[int, ...]
    plugins: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    target_ns: int = clock.TARGET_NS

    def strangers(self, cells: Iterable[Cell]) -> tuple[Cell, ...]:
        """Return those of `cells` that come from plug-ins."""
        return tuple(c for c in cells if self.plugins.get((c.variant, c.implementation)))

    def loading(self, groups: Iterable[Group]) -> Setting:
        """Return the setting of a process that times these groups."""
        needed = {
            word
            for group in groups
            for cell in group.cells
            for word in self.plugins.get((cell.variant, cell.implementation), ())
        }
        words = tuple(word for word in self.common.plugins if word in needed)
        return replace(self, common=replace(self.common, plugins=words))


# -- in the timing process ---------------------------------------------------------------------


def timing_session(setting: Setting, cursor: Any) -> Callable[[Group | None], Any]:
    """Return what samples one group; None ends the process and gives what disturbed it.

    A group comes with the seconds that it took. Where a contender has spoiled the process, the rows
    are those of whoever failed, and the others need a new process.
    """
    common = setting.common
    if setting.processors:
        os.sched_setaffinity(0, setting.processors)
    table, clean = prepare(common)
    if found := clean.changes():
        raise RuntimeError(f"a plug-in {found} when it is loaded")
    timer = clock.make_clock(common.device)
    timer.burn_in(BURN_IN_S)
    before = _disturbances()

    def measure(group: Group | None) -> Any:
        if group is None:
            return _since(before)
        started = clock.monotonic_s()
        rows = sample_group(table, setting, group, timer, cursor, clean)
        timed = Timed(rows, clock.monotonic_s() - started)
        return timed if len(rows) == len(group.cells) else Last(timed)

    return measure


class Timed(NamedTuple):
    """The rows of a group, and how long it took by the clock of its process."""

    rows: list[Sampled]
    shown_s: float


class _Spoiled(Exception):
    """The process is not what it was: nobody else may be timed in it."""


class _Contender:
    """One cell of a group while it is sampled."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.batch: Sequence[Any] = ()
        self.blocks: list[int] = []
        self.samples_ns: list[int] = []
        self.last: Any = None
        self.failure: tuple[Status, str] | None = None

    def load(self, table: Table) -> None:
        """Load the implementation: a stranger's code."""
        variant = table.variant(self.cell.variant)
        self.case = ConvCase.parse(self.cell.case)
        self.implementation = table.implementation(variant, self.cell.implementation)
        self.call = Call(variant, self.implementation, self.case, self.cell.direction)

    def attempt(self, work: Callable[[], None]) -> None:
        """Do `work`; an exception ends this contender alone."""
        try:
            work()
        except Refuted as error:
            self.failure = (Status.REFUTED, refutation_text(error))
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything at all
            self.failure = (Status.CRASHED, error_text(error))

    def row(self, process: int) -> Sampled:
        """Return what this came to."""
        if self.failure:
            status, reason = self.failure
            return Sampled(self.cell, process, status, reason=reason)
        return Sampled(
            self.cell, process, Status.MEASURED, tuple(self.blocks), tuple(self.samples_ns),
            len(self.batch),
        )  # fmt: skip


def sample_group(
    table: Table, setting: Setting, group: Group, timer: clock.Clock, cursor: Any,
    clean: Surroundings | None = None,
) -> list[Sampled]:  # fmt: skip
    """Sample every cell of a group in blocks of random order, then look at the results again.

    Where one changes what all share, `clean` being how it was, only the rows of those who failed
    are returned.
    """
    cursor.value = -1
    device, backward = setting.common.device, group.key.direction == "backward"
    order = random.Random(f"{setting.seed}/{group.process}/{group.key}")
    contenders = [_Contender(cell) for cell in group.cells]
    variant, case = table.variant(group.key.variant), ConvCase.parse(group.key.case)
    arbiter = Arbiter(table, setting.common, group.key, instead=group.cells[0].implementation)
    pool = TensorPool(arbiter.call, make_tensors(variant, case, device))
    clean = clean or Surroundings()
    expected = {"gc.isenabled()": False, "torch.is_grad_enabled()": backward}

    def turn(number: int, work: Callable[[_Contender], None]) -> None:
        contender = contenders[number]
        cursor.value = number  # whom to blame should this process die or hang
        if contender.failure:
            return
        contender.attempt(lambda: work(contender))
        found = clean.changes(expected) or pool.harm()
        cursor.value = -1
        if found:
            contender.failure = (Status.REFUTED, found)
            raise _Spoiled

    def prepare(contender: _Contender) -> None:
        contender.load(table)
        for arguments in pool.batch(WARM_UP_CALLS):
            contender.call(arguments)
        count = clock.calibrate(timer, contender.call, pool.batch, setting.target_ns)
        contender.batch = pool.batch(count)
        if compiles(contender.implementation):
            clean.accept(*COMPILED)

    def sample(contender: _Contender) -> None:
        keep = order.choice(pool.places(contender.batch, arbiter.number))
        arbiter.spoil_free_memory()
        elapsed, result = timer.sample(contender.call, contender.batch, keep)
        found = copied(contender.call.read(result, pool.first))
        contender.last = found if block == group.blocks - 1 else None
        contender.samples_ns.append(round(elapsed / len(contender.batch)))
        contender.blocks.append(block)
        arbiter.judge(found)

    def check(contender: _Contender) -> None:
        trial = Trial(variant, contender.implementation, case, device)
        compare(trial, contender.call, contender.last, arbiter.answer)
        if not compiles(contender.implementation):
            require_no_memory(contender.call, pool.bound[0])

    with torch.set_grad_enabled(backward), _no_collection(), contextlib.suppress(_Spoiled):
        # Not the proved values: an answer remembered from now on shall be wrong in the last block.
        pool.refresh(group.blocks, proved=False)
        for number in range(len(contenders)):
            turn(number, prepare)
        fewest = min((len(c.batch) for c in contenders if c.batch), default=1)
        for block in range(group.blocks):
            last = block == group.blocks - 1
            pool.refresh(block, proved=last)
            arbiter.attend(pool, 0 if last else order.randrange(min(fewest, len(pool.sets))))
            for number in order.sample(range(len(contenders)), len(contenders)):
                turn(number, sample)
        pool.refresh(group.blocks + 1, proved=False)
        for number in range(len(contenders)):
            turn(number, check)
        return [contender.row(group.process) for contender in contenders]
    return [c.row(group.process) for c in contenders if c.failure]


class _no_collection:  # noqa: N801 - reads as a statement
    """Keep the garbage collector out of samples."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()


def _disturbances() -> tuple[int, int, int]:
    """Return involuntary context switches, and stolen and total ticks of the machine."""
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
        ticks = [int(word) for word in first.split()[1:9]]
    except (OSError, ValueError, IndexError):
        return switches, 0, 0
    return switches, ticks[7] if len(ticks) > 7 else 0, sum(ticks)


def _since(before: tuple[int, int, int]) -> dict[str, float]:
    switches, stolen, ticks = (b - a for a, b in zip(before, _disturbances(), strict=True))
    load = os.getloadavg()[0]
    return {"switches": switches, "steal": stolen / ticks if ticks else 0.0, "load": load}


# -- in the parent -----------------------------------------------------------------------------


class Budget:
    """Time left, and how many blocks it pays for."""

    def __init__(self, seconds: float | None, now: Callable[[], float] = clock.monotonic_s) -> None:
        self._now, self._start, self.seconds = now, now(), seconds
        self._pace = 1.0

    @property
    def left_s(self) -> float | None:
        """Seconds left, None without a limit."""
        return None if self.seconds is None else self.seconds - (self._now() - self._start)

    @property
    def spent_share(self) -> float:
        """Which share of the budget is spent, 0 without a limit."""
        return 0.0 if not self.seconds else (self._now() - self._start) / self.seconds

    @property
    def deadline_s(self) -> float | None:
        """Moment of `clock.monotonic_s` when the budget ends."""
        return None if self.seconds is None else self._start + self.seconds

    def blocks(self, calls_ns: Mapping[GroupKey, Sequence[int]], rounds: int, most: int) -> int:
        """Return how many blocks a process may take when `rounds` of them are still to run."""
        if self.left_s is None:
            return most
        fixed = START_S + sum(fixed_s(calls) for calls in calls_ns.values())
        each_block = sum(block_s(calls) for calls in calls_ns.values())
        able = (self.left_s / max(rounds, 1) / self._pace - fixed) / max(each_block, 1e-9)
        return max(min(most, int(able)), min(LEAST_BLOCKS, most))

    def learn(self, expected_s: float, actual_s: float) -> None:
        """Take note how long a process took against what was expected."""
        self._pace *= min(max(actual_s / max(expected_s, 1e-9), 0.2), 5.0)


def block_s(calls_ns: Sequence[int], target_ns: int = clock.TARGET_NS) -> float:
    """Return the seconds of one block of contenders with these times per call."""
    return sum(max(clock.HEADROOM * target_ns, call) for call in calls_ns) / 1e9


def fixed_s(calls_ns: Sequence[int]) -> float:
    """Return the seconds a group takes beside its blocks: warming up, calibrating, checking."""
    return 0.02 + 2 * block_s(calls_ns) + (WARM_UP_CALLS + 1) * sum(calls_ns) / 1e9


def processors_for(threads: int) -> tuple[int, ...]:
    """Return the processors to pin a timing process to; empty where pinning would not help."""
    if not hasattr(os, "sched_setaffinity"):
        return ()
    available = sorted(os.sched_getaffinity(0))
    # The last ones: interrupts and the parent tend to sit on the first.
    return tuple(available[-threads:]) if len(available) > threads else ()


def environment_for(threads: int) -> dict[str, str]:
    """Return the variables that hold every library to `threads` threads from its start."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: str(threads) for name in names}


def sample_process(
    setting: Setting, groups: Sequence[Group], scratch: Path, deadline_s: float | None
) -> Iterator[list[Sampled] | dict[str, float]]:
    """Time groups in one fresh process; yield the rows of each, at last what disturbed it.

    A contender that ends or hangs the process is left out, and the rest of its group is timed again
    in a new process, as are the groups after it.
    """
    waiting = list(groups)
    while waiting:
        units = [*waiting, None]
        job = Job(
            session="harness.sampling:timing_session",
            common=setting.loading(waiting),
            units=units,
            timeout_s=lambda group: HANG_S + (0 if group is None else 5 * group.expected_s),
        )
        environment = environment_for(setting.common.threads)
        pool = Pool(
            method="spawn", parallel=1, scratch=scratch, environment=environment,
            deadline_s=deadline_s,
        )  # fmt: skip
        retry: list[Group] = []
        for report in pool.run([job]):
            group = units[report.unit]
            if report.end is End.DONE and group is None:
                yield report.result
            elif report.end is End.DONE and group is not None:
                rows = _believed(report)
                yield rows
                known = {row.cell for row in rows}
                others = tuple(cell for cell in group.cells if cell not in known)
                retry += [group._replace(cells=others)] if others else []
            elif group is not None and report.end is not End.OUT_OF_TIME:
                strangers = setting.strangers(group.cells)
                failed, rest = _without_culprit(
                    group, report.end, report.cursor, report.text, strangers
                )
                yield failed
                retry += rest
        waiting = retry


def _believed(report: Report) -> list[Sampled]:
    """Return the rows of a group, without samples where its clock cannot have been right."""
    rows: list[Sampled] = report.result.rows
    spent_s = sum(sum(row.samples_ns) * row.calls_per_sample for row in rows) / 1e9
    shown_s = report.result.shown_s
    reason = clock.disagreement(shown_s, report.waited_s, report.alive_s)
    if not reason and spent_s > report.alive_s:
        reason = clock.disagreement(spent_s, 0.0, report.alive_s)
    if not reason:
        return rows
    return [Sampled(row.cell, row.process, Status.REFUTED, reason=reason) for row in rows]


def _without_culprit(
    group: Group, end: End, cursor: int, text: str, strangers: tuple[Cell, ...] = ()
) -> tuple[list[Sampled], list[Group]]:
    """Return the rows of who is to blame, and the group of the others.

    Where that is not known, strangers are tried apart from the table's own.
    """
    status = Status.TIMED_OUT if end is End.TIMED_OUT else Status.CRASHED
    known = end is not End.RAISED and 0 <= cursor < len(group.cells)
    guilty = (group.cells[cursor],) if known else strangers or group.cells
    rest = tuple(cell for cell in group.cells if cell not in guilty)
    rows = [Sampled(cell, group.process, status, reason=text) for cell in guilty]
    return rows, [group._replace(cells=rest)] if rest else []


def calls_of(
    groups: Mapping[GroupKey, Sequence[Cell]], proofs: Mapping[Cell, Proof]
) -> dict[GroupKey, list[int]]:
    """Return the nanoseconds per call of every contender of every group."""
    return {key: [proofs[cell].call_ns for cell in cells] for key, cells in groups.items()}
