"""Work in processes of its own: a crash or a hang costs one unit of work, never the run.

Units of a job run one after another in one child, which is replaced by a new one after a crash or a
hang; the unit in flight is what is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from harness import clock
from harness.exhaustion import ended_by_memory, is_out_of_memory, system_kills

START_TIMEOUT_S = 180.0
LONGEST_TEXT = 600
PR_SET_PDEATHSIG = 1


class End(Enum):
    """How a unit of work ended."""

    DONE = "done"
    RAISED = "raised"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"
    OUT_OF_TIME = "out of time"
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True, slots=True)
class Last:
    """A result after which its process is not to be used: the units that wait get a new one."""

    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Units of work for one child at a time.

    Args:
        session: `module:function`; called once in the child as `function(common, cursor)`, it
            returns what is called with every unit. `cursor.value` may say what is in flight.
        common: What all units share; pickled, as the units are.
        units: The work.
        timeout_s: How long a unit may take.
    """

    session: str
    common: Any
    units: Sequence[Any]
    timeout_s: Callable[[Any], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of one unit; `text` says why it failed, `cursor` where.

    By the parent's clock the unit took at least `waited_s`, and all units of its process together
    at most `alive_s`.
    """

    job: int
    unit: int
    end: End
    result: Any = None
    text: str = ""
    cursor: int = -1
    waited_s: float = 0.0
    alive_s: float = 0.0


@dataclass(slots=True)
class _Child:
    job: int
    process: Any
    connection: Connection
    cursor: Any
    log: Path
    waiting: list[int]
    deadline: float
    started: float
    kills: int | None
    flying: int | None = None
    waited: float = 0.0
    begun: bool = False


@dataclass(slots=True)
class Pool:
    """Runs jobs side by side, each in children of its own.

    Args:
        method: How children start: `spawn` is truly fresh, `forkserver` is quick.
        parallel: How many children run at once.
        scratch: Folder for what children print.
        preload: Modules that a fork server imports once.
        environment: Variables that the children see.
        deadline_s: Moment (`clock.monotonic_s`) when all work stops; None = never.
    """

    method: str
    parallel: int
    scratch: Path
    preload: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    deadline_s: float | None = None
    children: dict[int, _Child] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> Iterator[Report]:
        """Yield what becomes of every unit of every job, as it becomes known."""
        queue = [(number, list(range(len(job.units)))) for number, job in enumerate(jobs)]
        queue = [entry for entry in queue if entry[1]]
        try:
            while queue or self.children:
                while queue and len(self.children) < self.parallel:
                    number, units = queue.pop(0)
                    self._start(number, jobs[number], units)
                moments = [child.deadline for child in self.children.values()]
                moments += [] if self.deadline_s is None else [self.deadline_s]
                patience = max(0.0, min(moments) - clock.monotonic_s())
                asleep = clock.monotonic_s()
                ready = wait([c.connection for c in self.children.values()], timeout=patience)
                slept = clock.monotonic_s() - asleep
                for child in self.children.values():
                    child.waited += slept
                for child in list(self.children.values()):
                    if child.connection in ready:
                        yield from self._listen(child, jobs, queue)
                    elif clock.monotonic_s() >= child.deadline:
                        yield from self._lost(child, jobs, queue, End.TIMED_OUT)
                if self.deadline_s is not None and clock.monotonic_s() >= self.deadline_s:
                    left = [(c.job, u) for c in self.children.values() for u in _pending(c)]
                    left += [(number, unit) for number, units in queue for unit in units]
                    for number, unit in left:
                        yield Report(job=number, unit=unit, end=End.OUT_OF_TIME)
                    return
        finally:
            self.close()

    def close(self) -> None:
        """End every child."""
        for child in list(self.children.values()):
            self._end(child)

    def _start(self, number: int, job: Job, units: list[int]) -> None:
        context = _context(self.method, tuple(self.preload))
        ours, theirs = context.Pipe(duplex=False)
        cursor = context.RawValue("i", -1)
        log = self.scratch / f"child-{os.getpid()}-{number}-{len(units)}.log"
        arguments = (theirs, log, job.session, job.common, [job.units[u] for u in units], cursor)
        process = context.Process(target=_serve, args=arguments, daemon=True)  # type: ignore[attr-defined]
        started, kills = clock.monotonic_s(), system_kills()
        with _variables(self.environment):
            process.start()
        theirs.close()
        self.children[number] = _Child(
            number, process, ours, cursor, log, list(units), started + START_TIMEOUT_S, started,
            kills,
        )  # fmt: skip

    def _listen(self, child: _Child, jobs: Sequence[Job], queue: list[Any]) -> Iterator[Report]:
        try:
            kind, result, text = child.connection.recv()
        except (EOFError, OSError):
            yield from self._lost(child, jobs, queue, End.CRASHED)
            return
        job = jobs[child.job]
        if kind == "begin":
            child.flying, child.begun, child.waited = child.waiting.pop(0), True, 0.0
            patience = job.timeout_s(job.units[child.flying])
            child.deadline = clock.monotonic_s() + patience
            return
        if child.flying is not None:
            yield Report(
                job=child.job, unit=child.flying, end=End(kind), result=result, text=text,
                cursor=child.cursor.value, waited_s=child.waited,
                alive_s=clock.monotonic_s() - child.started,
            )  # fmt: skip
            child.flying = None
        child.deadline = clock.monotonic_s() + START_TIMEOUT_S
        if not child.waiting:
            self._end(child)

    def _lost(
        self, child: _Child, jobs: Sequence[Job], queue: list[Any], end: End
    ) -> Iterator[Report]:
        self._end(child, join_s=5.0 if end is End.CRASHED else 0.0)
        if end is End.CRASHED:
            code, last = child.process.exitcode, _last_line(child.log)
            text = _exit_text(code, last)
            if ended_by_memory(code, child.kills, system_kills(), last):
                end, text = End.OUT_OF_MEMORY, f"out of memory: {text}"[:LONGEST_TEXT]
        elif child.flying is None:
            text = f"did not start in {START_TIMEOUT_S:.0f} s"
        else:
            text = f"no answer in {jobs[child.job].timeout_s(jobs[child.job].units[child.flying]):.0f} s"
        # Lost before any unit began: a new child would end the same way. Lost between two units, or
        # ended by `Last`: nobody is to blame.
        failed = [] if child.flying is None else [child.flying]
        failed = failed if child.begun else child.waiting
        for unit in failed:
            yield Report(
                job=child.job, unit=unit, end=end, text=text, cursor=int(child.cursor.value)
            )
        if child.begun and child.waiting:
            queue.insert(0, (child.job, child.waiting))

    def _end(self, child: _Child, join_s: float = 0.0) -> None:
        self.children.pop(child.job, None)
        child.process.join(join_s or 0.5 * (not child.waiting and child.flying is None))
        if child.process.is_alive():
            child.process.kill()
            child.process.join()
        child.connection.close()


def _pending(child: _Child) -> list[int]:
    return ([] if child.flying is None else [child.flying]) + child.waiting


def _context(method: str, preload: tuple[str, ...]) -> BaseContext:
    known = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context(method if method in known else "spawn")
    if method == "forkserver" and preload:
        context.set_forkserver_preload(list(preload))
    return context


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""


def _exit_text(code: int | None, last: str) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        text = f"the process was ended by {name}"
        text += ", as a system that runs out of memory does" * (-code == signal.SIGKILL)
    else:
        text = f"the process ended with exit code {code}"
    return (f"{text}: {last}" if last else text)[:LONGEST_TEXT]


def _serve(
    connection: Connection, log: Path, session: str, common: Any, units: list[Any], cursor: Any
) -> None:
    """Run in the child: every unit, each announced before and reported after."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when work ends
    _depend_on_parent()
    # What a stranger's code prints must reach neither the results' last line nor the progress bar.
    with log.open("wb", buffering=0) as sink:
        for stream in (1, 2):
            os.dup2(sink.fileno(), stream)
    module, _, name = session.partition(":")
    work = getattr(importlib.import_module(module), name)(common, cursor)
    for unit in units:
        connection.send(("begin", None, ""))
        try:
            result = work(unit)
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything at all
            end = End.OUT_OF_MEMORY if is_out_of_memory(error) else End.RAISED
            connection.send((end.value, None, error_text(error)))
        else:
            last = isinstance(result, Last)
            connection.send((End.DONE.value, result.result if last else result, ""))
            if last:
                return


def _depend_on_parent() -> None:
    """End with the parent, even where it is killed; and be killed before it when memory runs out."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def error_text(error: BaseException) -> str:
    """Return type, message and place of an exception, in one line."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {place[0].filename}:{place[0].lineno}" if place else ""
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return message[: LONGEST_TEXT - len(where)] + where
