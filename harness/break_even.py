"""After how many calls a compiled form has paid for its compilation.

The first call of a compiled form compiles: it is timed in a fresh process whose cache is empty,
the import of the compiler included. In the same process the calls that follow are timed beside
what a caller gets without a compiler, block by block. Compilation over gain is the number of calls.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy import stats

from harness import clock
from harness.case import ConvCase
from harness.comparison import CONFIDENCE
from harness.contest import Contest, Entry, Rules, contest_of, runner, sampled
from harness.isolation import End, Job, Pool
from harness.processors import environment_for
from harness.proof import Call
from harness.sampling import BURN_IN_S
from harness.table import load_table
from harness.tensors import make_tensors

PATIENCE_S = 600.0
EAGER = "eager"


class Pays(StrEnum):
    """Whether compiling pays."""

    AFTER = "AFTER"
    NEVER = "NEVER"
    UNRESOLVED = "UNRESOLVED"
    FAILED = "FAILED"


class Subject(NamedTuple):
    """A compiled form on a case, and what is called without it."""

    variant: str
    compiled: str
    instead: str
    direction: str
    case: str

    @property
    def entry(self) -> Entry:
        """The contest of the two."""
        return Entry(f"{__name__}:contest", " ".join(self))


class Seen(NamedTuple):
    """What one process saw, in nanoseconds: compilation, both calls, what the placebo gains."""

    compile_ns: float
    eager_ns: float
    compiled_ns: float
    gain_ns: float
    placebo_ns: float


class Span(NamedTuple):
    """A mean with its interval; the ends are None for a single process."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Span:
        """Return the mean of processes and its t-interval."""
        if len(values) < 2:
            return cls(values[0], None, None)
        if len(set(values)) == 1:  # the limit of the t-distribution
            return cls(values[0], values[0], values[0])
        found = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
        return cls(statistics.fmean(values), float(found.low), float(found.high))


class Result(NamedTuple):
    """What became of a subject; `calls` is where it breaks even, where it does."""

    subject: Subject
    verdict: Pays
    seen: tuple[Seen, ...] = ()
    calls: Span | None = None
    reason: str = ""


def contest(words: str, device: str) -> dict[str, Callable[[], Any]]:
    """Make what a caller gets, then the compiled form; `words` are those of a subject."""
    name, compiled, instead, direction, line = words.split(" ", 4)
    table, case = load_table(), ConvCase.parse(line)
    variant = table.variant(name)
    torch.set_grad_enabled(direction == "backward")
    tensors = make_tensors(variant, case, device)

    def made(chosen: str) -> Callable[[], Any]:
        return runner(
            Call(variant, table.implementation(variant, chosen), case, direction), tensors
        )

    @cache
    def late() -> Callable[[], Any]:  # making it imports the compiler, which is part of the price
        return made(compiled)

    def run() -> Any:
        return late()()

    return {EAGER: made(instead), compiled: run}


class Fresh(NamedTuple):
    """What one process is told; `cache` is an empty folder of its own."""

    process: int
    rules: Rules
    seed: int
    cache: Path


def session(fresh: Fresh, cursor: Any) -> Callable[[Entry], Seen]:
    """Return what times the first call of a compiled form, then the others, in this process."""
    del cursor
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(fresh.cache)
    torch.set_num_threads(fresh.rules.threads)

    def see(entry: Entry) -> Seen:
        timer = clock.make_clock(entry.device)
        timer.burn_in(BURN_IN_S)
        made = contest_of(entry)
        order = random.Random(f"{fresh.seed}/{entry}/{fresh.process}")
        return look(made, timer, fresh.rules.blocks, order)

    return see


def look(contest: Contest, timer: clock.Clock, blocks: int, order: random.Random) -> Seen:
    """Time the first call of the second of a contest, then both side by side."""
    compiled = next(label for label in contest if label != EAGER)
    contest[EAGER]()
    first_ns, _ = timer.sample(lambda _: contest[compiled](), [None])
    found = {
        key: [sample.middle_ns for sample in samples]
        for key, (_, samples) in sampled(contest, timer, blocks, order).items()
    }
    eager = found[EAGER, False]

    def gain(other: Sequence[int]) -> float:
        return statistics.median(a - b for a, b in zip(eager, other, strict=True))

    own = statistics.median(found[compiled, False])
    return Seen(
        max(first_ns - own, 0.0), statistics.median(eager), own, gain(found[compiled, False]),
        gain(found[EAGER, True]),
    )  # fmt: skip


def measure(subject: Subject, rules: Rules, seed: int = 0, device: str = "cpu") -> Result:
    """Time a subject, every process fresh and compiling anew."""
    with tempfile.TemporaryDirectory(prefix="convharness-") as scratch:
        jobs = []
        for process in range(rules.processes):
            cache = Path(scratch) / f"cache-{process}"
            cache.mkdir()
            jobs.append(
                Job(
                    session=f"{__name__}:session", common=Fresh(process, rules, seed, cache),
                    units=[subject.entry._replace(device=device)], timeout_s=lambda _: PATIENCE_S,
                )
            )  # fmt: skip
        pool = Pool(
            method="spawn", parallel=1, scratch=Path(scratch),
            environment=environment_for(rules.threads),
        )  # fmt: skip
        seen = []
        for report in pool.run(jobs):
            if report.end is not End.DONE:
                reason = f"{report.end.value}: {report.text}"
                return Result(subject, Pays.FAILED, reason=reason)
            seen.append(report.result)
    return judged(subject, seen)


def judged(subject: Subject, seen: Sequence[Seen]) -> Result:
    """Return after how many calls it pays; the interval takes the worse ends of both parts."""
    compiling = Span.of([one.compile_ns for one in seen])
    gain = Span.of([one.gain_ns for one in seen])
    if gain.low is None or gain.high is None:
        return Result(
            subject, Pays.UNRESOLVED, tuple(seen), reason="an interval takes two processes"
        )
    if gain.high <= 0:
        return Result(subject, Pays.NEVER, tuple(seen))
    if gain.low <= 0:
        reason = f"the gain of a call may be {gain.low / 1e3:.3g} to {gain.high / 1e3:.3g} µs"
        return Result(subject, Pays.UNRESOLVED, tuple(seen), reason=reason)
    calls = Span(
        compiling.mean / gain.mean, max(compiling.low or 0.0, 0.0) / gain.high,
        (compiling.high or 0.0) / gain.low,
    )  # fmt: skip
    return Result(subject, Pays.AFTER, tuple(seen), calls)
