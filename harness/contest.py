"""Calls timed side by side: fresh processes, blocks in random order, a placebo, paired ratios.

For what is not an implementation of one variant: layers, call overhead, one variant against
another.
"""

from __future__ import annotations

import importlib
import math
import os
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness import clock
from harness.comparison import Comparison, compare
from harness.isolation import End, Job, Pool
from harness.processors import environment_for, processors_for
from harness.proof import Call
from harness.results import Measurement, Status
from harness.sampling import BURN_IN_S, no_collection
from harness.variant import Value

PATIENCE_S = 300.0
Contest = Mapping[str, Callable[[], Any]]
"""What is timed, by its name; the first is what the others are divided by."""
Samples = dict[tuple[str, bool], tuple[int, list[clock.Sample]]]
"""Calls per sample and the samples, by name and whether it is the placebo."""


def runner(call: Call, tensors: Mapping[str, Value]) -> Callable[[], Any]:
    """Return `call` with its arguments, for a contest."""
    arguments = call.bind(tensors)
    return lambda: call(arguments)


class Entry(NamedTuple):
    """One contest: `make`, a `module:function`, is called with `case` in every process."""

    make: str
    case: str
    device: str = "cpu"


class Rules(NamedTuple):
    """How much is sampled: so many blocks in each of so many processes."""

    processes: int = 8
    blocks: int = 20
    threads: int = 1

    @property
    def words(self) -> str:
        """The options of a command that samples so much."""
        return f"--processes {self.processes} --blocks {self.blocks} --threads {self.threads}"


DEFAULT = Rules()


class Heat(NamedTuple):
    """What one process is told."""

    process: int
    rules: Rules
    seed: int
    processors: tuple[int, ...] = ()


def session(heat: Heat, cursor: Any) -> Callable[[Entry], Any]:
    """Return what samples one contest after another in this process."""
    del cursor
    torch.set_num_threads(heat.rules.threads)
    burnt: set[str] = set()

    def sample(entry: Entry) -> Samples:
        if entry.device == "cpu" and heat.processors:
            os.sched_setaffinity(0, heat.processors)  # as processes of a benchmark run are
        timer = clock.make_clock(entry.device)
        if entry.device not in burnt:
            timer.burn_in(BURN_IN_S)
            burnt.add(entry.device)
        order = random.Random(f"{heat.seed}/{entry}/{heat.process}")
        return sampled(contest_of(entry), timer, heat.rules.blocks, order)

    return sample


def contest_of(entry: Entry) -> Contest:
    """Make the contest of an entry, in the process that times it."""
    module, _, name = entry.make.partition(":")
    contest: Contest = getattr(importlib.import_module(module), name)(entry.case, entry.device)
    return contest


def sampled(
    contest: Contest, timer: clock.Clock, blocks: int, order: random.Random
) -> Samples:  # fmt: skip
    """Time a contest and its placebo, the first once more, in so many blocks of random order."""
    baseline = next(iter(contest))
    runs = {(label, False): call for label, call in contest.items()}
    runs[baseline, True] = contest[baseline]

    # a function each: a clock remembers of each how long it takes
    called = {key: partial(_called, run) for key, run in runs.items()}

    def repeated(key: tuple[str, bool]) -> Callable[[int], Sequence[Any]]:
        return lambda count: [key] * count

    counts = {key: clock.calibrate(timer, called[key], repeated(key)) for key in runs}
    turns = clock.turns_of(counts.values()) if isinstance(timer, clock.CpuClock) else 1
    parts = {key: [key] * math.ceil(count / turns) for key, count in counts.items()}
    samples: dict[tuple[str, bool], list[clock.Sample]] = {key: [] for key in runs}
    with no_collection():
        for _ in range(blocks):
            taken: dict[tuple[str, bool], list[int]] = {key: [] for key in runs}
            for _, key in clock.in_turns(list(runs), turns, order):
                taken[key].append(timer.sample(called[key], parts[key])[0])
            calls = [len(parts[key]) for key in runs]
            for key, sample in zip(
                runs, clock.samples_of(list(taken.values()), calls), strict=True
            ):
                samples[key].append(sample)
    return {key: (turns * len(parts[key]), samples[key]) for key in runs}


def _called(run: Callable[[], Any], _: Any) -> Any:
    return run()


def compete(
    entries: Sequence[Entry], rules: Rules = DEFAULT, seed: int = 0
) -> tuple[Comparison, ...]:
    """Run every contest in fresh processes and compare; placebos are among the rows.

    Args:
        entries: What is timed.
        rules: How much.
        seed: Of the orders.

    Raises:
        RuntimeError: a process was lost.
    """
    rows: list[Measurement] = []
    here, processors = f"{__name__}:session", processors_for(rules.threads)
    with tempfile.TemporaryDirectory(prefix="convharness-") as scratch:
        # one process after another, and all contests in each: a disturbance meets all alike
        jobs = [
            Job(
                session=here, common=Heat(process, rules, seed, processors), units=entries,
                timeout_s=lambda _: PATIENCE_S,
            )
            for process in range(rules.processes)
        ]  # fmt: skip
        pool = Pool(
            method="spawn", parallel=1, scratch=Path(scratch),
            environment=environment_for(rules.threads),
        )  # fmt: skip
        for report in pool.run(jobs):
            entry = entries[report.unit]
            if report.end is not End.DONE:
                raise RuntimeError(f"{entry.case}: {report.end.value}: {report.text}")
            rows += _rows(entry, report.job, rules.threads, report.result)
    return compare(rows)


def _rows(
    entry: Entry, process: int, threads: int, result: Mapping[Any, Any]
) -> list[Measurement]:  # fmt: skip
    # a baseline is one of a variant: contests that begin with another one are another variant
    variant = f"{entry.make} over {next(iter(result))[0]}"
    return [
        Measurement(
            run_id="contest", variant=variant, implementation=label, case=entry.case,
            case_name=entry.case, direction="as named", dtype="float32", device=entry.device,
            threads=threads, placebo=placebo, process=process, block=tuple(range(len(samples))),
            samples_ns=tuple(sample.middle_ns for sample in samples),
            mean_ns=tuple(sample.mean_ns for sample in samples), calls_per_sample=calls,
            status=Status.MEASURED,
        )
        for (label, placebo), (calls, samples) in result.items()
    ]  # fmt: skip


def real(rows: Sequence[Comparison]) -> list[Comparison]:
    """Return the rows that are no placebo."""
    return [row for row in rows if not row.placebo]


def figures(rows: Sequence[Comparison]) -> str:
    """Return the ratios with their intervals, and the worst placebo."""
    words = [
        f"{row.case} {row.ratio:.2f} [{row.ratio_low:.2f}, {row.ratio_high:.2f}] {row.verdict}"
        for row in real(rows)
    ]
    worst = max((abs((row.ratio or 1.0) - 1) for row in rows if row.placebo), default=0.0)
    return (
        f"time over that of {rows[0].baseline}, {DEFAULT.processes} processes of {DEFAULT.blocks} "
        f"blocks, {DEFAULT.threads} thread: "
        f"{'; '.join(words)}; placebo within {worst:.1%}"
    )
