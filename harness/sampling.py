"""Samples: interleaved in random order, in several fresh processes.

The unit is the block: one sample of every implementation of a group, taken in turns of random order,
so that what disturbs the machine for longer than a turn divides out of their ratios. The baseline
takes part a second time, as the placebo. `harness.rounds` starts the processes and reads what they say.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import os
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import harmonic_mean
from typing import Any, NamedTuple

import torch

from harness import clock
from harness.arbiter import Arbiter
from harness.case import ConvCase
from harness.check import Trial
from harness.contender import Contender, Sampled
from harness.cuda_clock import DeviceClock
from harness.disturbances import Disturbance, Watch
from harness.graphs import Captured
from harness.instructions import Counter, open_counter
from harness.isolation import Last
from harness.kernels import kernels_of_call
from harness.plan import GRAPH, Cell, GroupKey
from harness.pool import TensorPool
from harness.proof import (
    Common,
    compare,
    compiles,
    copied,
    prepare,
    require_no_memory,
)
from harness.results import Status
from harness.surroundings import COMPILED, Surroundings
from harness.table import Table
from harness.tensors import make_tensors

WARM_UP_CALLS = 3
BURN_IN_S = 0.25


class Group(NamedTuple):
    """What one process times side by side, and in how many blocks.

    Apart, one sample is taken after another and all is looked after in between: that tells who
    changed what all share.
    """

    key: GroupKey
    cells: tuple[Cell, ...]
    blocks: int
    process: int
    expected_s: float
    apart: bool = False


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


def timing_session(setting: Setting, cursor: Any) -> Callable[[Group | Fingerprints], Any]:
    """Return what samples one group; `Fingerprints` end the process and give an `Ending`.

    A group comes with the seconds that it took. Where a contender has spoiled the process, the rows
    are those of whoever failed, and the others need a new process.
    """
    common = setting.common
    if setting.processors:
        os.sched_setaffinity(0, setting.processors)
    # Before a thread is started: only later ones are counted along.
    counter = open_counter() if common.device == "cpu" else None
    table, clean = prepare(common)
    if found := clean.changes():
        raise RuntimeError(f"a plug-in {found} when it is loaded")
    timers: dict[str, clock.Clock] = {}
    clock.make_clock(common.device).burn_in(BURN_IN_S)
    gc.collect()
    gc.freeze()  # what is loaded stays: collecting before every group need not look at it again
    whole = Watch(setting.processors)

    def measure(group: Group | Fingerprints) -> Any:
        if isinstance(group, Fingerprints):
            found = whole.since()
            return Ending(found, {cell: _kernels(table, cell, common) for cell in group.cells})
        mode = group.key.mode
        timer = timers[mode] = timers.get(mode) or clock.make_clock(common.device, mode)
        started = clock.monotonic_s()
        rows = sample_group(table, setting, group, timer, cursor, clean, counter)
        timed = Timed(rows, clock.monotonic_s() - started)
        return timed if len(rows) == len(group.cells) else Last(timed)

    return measure


class Fingerprints(NamedTuple):
    """Asks, after the last sample, which kernels these cells run in this process."""

    cells: tuple[Cell, ...]

    @property
    def expected_s(self) -> float:
        """How long that may take."""
        return float(len(self.cells))


class Ending(NamedTuple):
    """What disturbed a process from beginning to end, and the kernels of what was asked for."""

    disturbance: Disturbance
    kernels: Mapping[Cell, tuple[str, ...]]


class Timed(NamedTuple):
    """The rows of a group, and how long it took by the clock of its process."""

    rows: list[Sampled]
    shown_s: float


class _Spoiled(Exception):
    """The process is not what it was: nobody else may be timed in it."""


def sample_group(
    table: Table, setting: Setting, group: Group, timer: clock.Clock, cursor: Any,
    clean: Surroundings | None = None, counter: Counter | None = None,
) -> list[Sampled]:  # fmt: skip
    """Sample every cell of a group in blocks of random order, then look at the results again.

    Where one changes what all share, `clean` being how it was, only the rows of those who failed
    are returned; none, where it is not known who did.
    """
    device_clock = timer if isinstance(timer, DeviceClock) else None
    watch, seen = Watch(setting.processors), list[Disturbance]()
    cursor.value = -1
    device, backward = setting.common.device, group.key.direction == "backward"
    order = random.Random(f"{setting.seed}/{group.process}/{group.key}")
    contenders = [Contender(cell) for cell in group.cells]
    variant, case = table.variant(group.key.variant), ConvCase.parse(group.key.case)
    arbiter = Arbiter(table, setting.common, group.key, instead=group.cells[0].implementation)
    pool = TensorPool(arbiter.call, make_tensors(variant, case, device))
    clean = clean or Surroundings()
    expected = {"gc.isenabled()": False, "torch.is_grad_enabled()": backward}

    def changed(*, everywhere: bool = False) -> str:
        return clean.changes(expected) or pool.harm(everywhere=everywhere)

    def turn(number: int, work: Callable[[Contender], None], *, look: bool = True) -> None:
        contender = contenders[number]
        cursor.value = number  # whom to blame should this process die or hang
        if contender.failure:
            return
        contender.attempt(lambda: work(contender))
        found = changed(everywhere=True) if look else ""
        cursor.value = -1
        if contenders[number].failure and not look:  # another may have caused it: apart, that shows
            contender.failure = None
            raise _Spoiled
        if found:
            contender.failure = (Status.REFUTED, found)
        if found or contender.has_spoiled:
            raise _Spoiled

    def prepare(contender: Contender) -> None:
        contender.load(table)
        for arguments in pool.batch(WARM_UP_CALLS):
            contender.call(arguments)
        if GRAPH in group.key.mode:
            contender.capture(pool.bound)
            if contender.failure:
                return
        count = clock.calibrate(timer, contender.run, pool.batch, setting.target_ns)
        contender.batch = pool.batch(count)
        if compiles(contender.implementation):
            clean.accept(*COMPILED)

    def sample(contender: Contender, step: int) -> None:
        part, last = contender.parts[step], step == len(contender.parts) - 1
        if step == 0:
            contender.keep = order.choice(pool.places(contender.batch, arbiter.number))
            contender.elapsed_ns = []
        place = contender.keep - step * len(part)
        is_kept = 0 <= place < len(part)
        if is_kept:  # what others have computed is not to be found in free memory
            arbiter.spoil_free_memory()
            if isinstance(contender.run, Captured):
                contender.run.spoil()
        elapsed, result = timer.sample(contender.run, part, place if is_kept else -1)
        contender.elapsed_ns.append(elapsed)
        if is_kept:
            contender.found = copied(contender.call.read(result, pool.first))
        del result
        if not last:
            return
        contender.last = contender.found if block == group.blocks - 1 else None
        arbiter.judge(contender.found)
        if device_clock is not None:
            wall, enqueue = device_clock.host(contender.run, contender.batch)
            contender.wall_ns.append(round(wall / len(contender.batch)))
            contender.enqueue_ns.append(round(enqueue / len(contender.batch)))

    def close(block: int) -> None:
        timed = [contender for contender in contenders if not contender.failure]
        calls = [len(contender.parts[0]) for contender in timed]
        samples = clock.samples_of([contender.elapsed_ns for contender in timed], calls)
        for contender, found in zip(timed, samples, strict=True):
            contender.samples.append(found)
            contender.blocks.append(block)

    def check(contender: Contender) -> None:
        trial = Trial(variant, contender.implementation, case, device)
        compare(trial, contender.call, contender.last, arbiter.answer)
        if counter is not None:
            contender.instructions = counter.per_call(contender.call, list(contender.batch))
        if not compiles(contender.implementation):
            require_no_memory(contender.call, pool.bound[0])

    with torch.set_grad_enabled(backward), no_collection(), contextlib.suppress(_Spoiled):
        # Not the proved values: an answer remembered from now on shall be wrong in the last block.
        pool.refresh(group.blocks, proved=False)
        for number in range(len(contenders)):
            turn(number, prepare)
        counts = [len(c.batch) for c in contenders if c.batch] or [1]
        turns = 1 if group.apart or device_clock else clock.turns_of(counts, setting.target_ns)
        for contender in contenders:
            each = math.ceil(len(contender.batch) / turns)
            contender.batch = pool.batch(turns * each)
            contender.parts = [contender.batch[i * each : (i + 1) * each] for i in range(turns)]
        fewest = min(counts)
        for block in range(group.blocks):
            last = block == group.blocks - 1
            pool.refresh(block, proved=last)
            arbiter.attend(pool, 0 if last else order.randrange(min(fewest, len(pool.sets))))
            watch.since()
            rates = [device_clock.frequency_hz()] if device_clock else []
            # who tidies up in time does not know when it is looked at
            glance = order.randrange(turns * len(contenders))
            order_of_turns = clock.in_turns(range(len(contenders)), turns, order)
            for moment, (step, number) in enumerate(order_of_turns):
                turn(number, functools.partial(sample, step=step), look=turns == 1)
                if moment == glance and turns > 1 and changed():
                    raise _Spoiled
            if turns > 1 and changed():
                raise _Spoiled
            close(block)
            found = watch.since()
            if device_clock:
                rates.append(device_clock.frequency_hz())
                found = found._replace(
                    clock_hz=round(harmonic_mean(rates)), power_w=device_clock.power_w()
                )
            seen.append(found)
        pool.refresh(group.blocks + 1, proved=False)
        for number in range(len(contenders)):
            turn(number, check)
        return [c.row(group.process, setting.processors, seen) for c in contenders]
    return [c.row(group.process, setting.processors, seen) for c in contenders if c.failure]


def _kernels(table: Table, cell: Cell, common: Common) -> tuple[str, ...]:
    """Return the kernels of a cell; whatever goes wrong is no fingerprint."""
    contender = Contender(cell)
    with contextlib.suppress(Exception), torch.set_grad_enabled(cell.direction == "backward"):
        contender.load(table)
        variant = table.variant(cell.variant)
        bound = contender.call.bind(make_tensors(variant, contender.case, common.device))
        return kernels_of_call(lambda: contender.call(bound)).names
    return ()


class no_collection:  # noqa: N801 - reads as a statement
    """Keep the garbage collector out of samples."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()
