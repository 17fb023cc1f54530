"""Samples: interleaved in random order, in several fresh processes, within a budget.

The unit is the block: one sample of every implementation of a group in random order, so that what
disturbs the machine for longer than a block divides out of their ratios. The baseline takes part a
second time, as the placebo. Processes come in rounds: every cell has its first process before any
has its second.
"""

from __future__ import annotations

import gc
import os
import random
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness import clock
from harness.case import ConvCase
from harness.check import Refuted, Trial
from harness.isolation import End, Job, Pool, error_text
from harness.plan import Cell, GroupKey
from harness.proof import Call, Common, Proof, compare, load_answer, refutation_text
from harness.results import Status
from harness.table import Table, load_table
from harness.tensors import each, leaves, make_tensors
from harness.variant import Role, Value

LEAST_BLOCKS = 3
WARM_UP_CALLS = 3
BURN_IN_S = 0.25
POOL_BYTES = 16 * 2**20
LARGEST_POOL = 8
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
        target_ns: Shortest sample.
    """

    common: Common
    seed: int
    processors: tuple[int, ...]
    target_ns: int = clock.TARGET_NS


# -- in the timing process ---------------------------------------------------------------------


def timing_session(setting: Setting, cursor: Any) -> Callable[[Group | None], Any]:
    """Return what samples one group; None ends the process and gives what disturbed it."""
    common = setting.common
    if setting.processors:
        os.sched_setaffinity(0, setting.processors)
    torch.set_num_threads(common.threads)
    timer = clock.make_clock(common.device)
    table = load_table(common.plugins)
    timer.burn_in(BURN_IN_S)
    before = _disturbances()

    def measure(group: Group | None) -> Any:
        if group is None:
            return _since(before)
        rows = sample_group(table, setting, group, timer, cursor)
        if clock.is_tampered():
            reason = "the timer was replaced while this process ran"
            return [r._replace(**_no_samples(Status.REFUTED, reason)) for r in rows]
        return rows

    return measure


class _Contender:
    """One cell of a group while it is sampled."""

    def __init__(self, table: Table, cell: Cell) -> None:
        variant = table.variant(cell.variant)
        self.cell, self.case = cell, ConvCase.parse(cell.case)
        self.implementation = table.implementation(variant, cell.implementation)
        self.call = Call(variant, self.implementation, self.case, cell.direction)
        self.batch: Sequence[Any] = ()
        self.blocks: list[int] = []
        self.samples_ns: list[int] = []
        self.last: Any = None
        self.failure: tuple[Status, str] | None = None

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
    table: Table, setting: Setting, group: Group, timer: clock.Clock, cursor: Any
) -> list[Sampled]:
    """Sample every cell of a group in blocks of random order, then look at the results again."""
    device = setting.common.device
    order = random.Random(f"{setting.seed}/{group.process}/{group.key}")
    contenders = [_Contender(table, cell) for cell in group.cells]
    variant, case = table.variant(group.key.variant), ConvCase.parse(group.key.case)
    pool = TensorPool(contenders[0].call, make_tensors(variant, case, device))

    def turn(number: int, work: Callable[[_Contender], None]) -> None:
        contender = contenders[number]
        cursor.value = number  # whom to blame should this process die or hang
        if not contender.failure:
            contender.attempt(lambda: work(contender))

    def prepare(contender: _Contender) -> None:
        for arguments in pool.batch(WARM_UP_CALLS):
            contender.call(arguments)
        count = clock.calibrate(timer, contender.call, pool.batch, setting.target_ns)
        contender.batch = pool.batch(count)

    def sample(contender: _Contender) -> None:
        elapsed, result = timer.sample(contender.call, contender.batch)
        # Only the last is looked at; holding others would change what the allocator can reuse.
        contender.last = result if block == group.blocks - 1 else None
        contender.samples_ns.append(round(elapsed / len(contender.batch)))
        contender.blocks.append(block)

    def check(contender: _Contender) -> None:
        trial = Trial(variant, contender.implementation, case, device)
        answer = load_answer(setting.common.answers, variant.name, str(case))
        compare(trial, contender.call, contender.last, pool.first, answer)

    with torch.set_grad_enabled(group.key.direction == "backward"), _no_collection():
        # Not the proved values: an answer remembered from now on shall be wrong in the last block.
        pool.refresh(group.blocks, proved=False)
        for number in range(len(contenders)):
            turn(number, prepare)
        for block in range(group.blocks):
            pool.refresh(block, proved=block == group.blocks - 1)
            for number in order.sample(range(len(contenders)), len(contenders)):
                turn(number, sample)
        for number in range(len(contenders)):
            turn(number, check)
    return [contender.row(group.process) for contender in contenders]


class TensorPool:
    """Tensors of one case several times over, other in their signals from block to block.

    Whoever remembers an answer by the address or the shape of its arguments gives a stale one: the
    last call of every batch is on the first set, and in the last block that set holds the values
    for which the right answer is known.
    """

    def __init__(self, call: Call, tensors: dict[str, Value]) -> None:
        self.first = tensors
        self._proved = {k: v.clone() for k, v in leaves(_signals(call, tensors)).items()}
        size = sum(t.untyped_storage().nbytes() for t in leaves(tensors).values())
        count = max(2, min(LARGEST_POOL, POOL_BYTES // max(size, 1)))
        self.sets = [tensors] + [_copied(tensors) for _ in range(count - 1)]
        self._signals = [leaves(_signals(call, entry)) for entry in self.sets]
        self._bound = [call.bind(entry) for entry in self.sets]

    def batch(self, count: int) -> list[Any]:
        """Return the arguments of `count` calls, the last of them on the first set."""
        return list(islice(cycle(self._bound), count))[::-1]

    def refresh(self, block: int, *, proved: bool) -> None:
        """Write values that no block before held, or the proved ones, into the first set."""
        with torch.no_grad():
            for number, signals in enumerate(self._signals):
                # Not shifted are only the proved values, no shift comes twice.
                shift = number + (0 if proved else (block + 1) * len(self.sets))
                for name, tensor in signals.items():
                    values = self._proved[name]
                    tensor.copy_(values.roll(shift) if shift and values.numel() else values)


def _signals(call: Call, tensors: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in tensors.items() if call.roles[name] is Role.SIGNAL}


def _copied(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return copies that keep layout and gaps."""

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        fresh = torch.empty_strided(
            tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device
        )
        return fresh.copy_(tensor)

    return {name: each(value, copy) for name, value in tensors.items()}


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


def _no_samples(status: Status, reason: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"block": (), "samples_ns": (), "calls_per_sample": 0}
    return {"status": status, "reason": reason, **empty}


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
            common=setting,
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
            if report.end is End.DONE:
                yield report.result
            elif group is not None and report.end is not End.OUT_OF_TIME:
                failed, rest = _without_culprit(group, report.end, report.cursor, report.text)
                yield failed
                retry += rest
        waiting = retry


def _without_culprit(
    group: Group, end: End, cursor: int, text: str
) -> tuple[list[Sampled], list[Group]]:
    """Return the rows of who is to blame, and the group of the others."""
    status = Status.TIMED_OUT if end is End.TIMED_OUT else Status.CRASHED
    known = end is not End.RAISED and 0 <= cursor < len(group.cells)
    guilty = (group.cells[cursor],) if known else group.cells
    rest = tuple(cell for cell in group.cells if cell not in guilty)
    rows = [Sampled(cell, group.process, status, reason=text) for cell in guilty]
    return rows, [group._replace(cells=rest)] if rest else []


def calls_of(
    groups: Mapping[GroupKey, Sequence[Cell]], proofs: Mapping[Cell, Proof]
) -> dict[GroupKey, list[int]]:
    """Return the nanoseconds per call of every contender of every group."""
    return {key: [proofs[cell].call_ns for cell in cells] for key, cells in groups.items()}
