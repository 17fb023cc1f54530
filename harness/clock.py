"""The only place that reads clocks, beside `harness.cuda_clock`, which reads CUDA events.

A sample is the time of a whole batch of calls, long against the resolution of the timer. Samples that
are compared are taken in turns, a part of each batch at a time.
"""

from __future__ import annotations

import time

_began_ns = time.perf_counter_ns()  # before what takes long to load

import math
import operator
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

# Bound at import, before any plug-in is loaded: whoever replaces `time.perf_counter_ns` later
# changes neither the clock nor `is_tampered`, and is found by `harness.surroundings`.
_read_ns = time.perf_counter_ns
_original = time.perf_counter_ns
read_ns = _original

TARGET_NS = 2_000_000
"""Shortest sample: a thousand times what a timer resolves."""
TURN_NS = 50_000
"""Shortest turn: some hundred times what reading the timer takes."""
HEADROOM = 1.15
"""Calibration aims this much higher, so that a quicker sample is still long enough."""
CONFIRMATIONS = 2
MOST_CALLS = 1_000_000
PATIENCE, LATENESS_S = 1.25, 1.0
"""How much later than a message is sent a busy machine may deliver it."""

Call = Callable[[Any], Any]
Key = TypeVar("Key")


def monotonic_s() -> float:
    """Return seconds since some fixed moment, for budgets and deadlines."""
    return _read_ns() / 1e9


def age_s() -> float:
    """Return how many seconds ago this process began to load what it needs."""
    return (_read_ns() - _began_ns) / 1e9


def processor_s() -> float:
    """Return the seconds that processors have spent on this process."""
    return time.process_time()


def utc_now() -> datetime:
    """Return the date and time."""
    return datetime.now(UTC)


def is_tampered() -> bool:
    """Return whether somebody has replaced the timer since this module was imported."""
    return _read_ns is not _original or time.perf_counter_ns is not _original


class Clock(Protocol):
    """What takes a sample."""

    def sample(self, call: Call, batch: Sequence[Any], keep: int = -1) -> tuple[int, Any]:
        """Return the nanoseconds of `call(arguments)` for all of `batch`, and one result.

        That is the result of call number `keep`, so that no call knows whether it is looked at.
        """

    def burn_in(self, seconds: float) -> None:
        """Keep the device busy until its frequency has settled."""


class CpuClock:
    """The processor's clock; `read` is replaced in tests."""

    def __init__(self, read: Callable[[], int] = _read_ns) -> None:
        self._read = read

    def sample(self, call: Call, batch: Sequence[Any], keep: int = -1) -> tuple[int, Any]:
        """Return the wall time of the batch in nanoseconds, and the result of call `keep`."""
        read, (before, after) = self._read, _parted(batch, keep)
        kept = result = None
        start = read()
        for arguments in before:
            kept = call(arguments)
        for arguments in after:
            result = call(arguments)
        elapsed = read() - start
        del result
        return elapsed, kept

    def burn_in(self, seconds: float) -> None:
        """Multiply matrices for so long."""
        matrix, end = torch.rand(256, 256), self._read() + int(seconds * 1e9)
        while self._read() < end:
            matrix = (matrix @ matrix).clamp(0, 1)


def _parted(batch: Sequence[Any], keep: int) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the calls up to number `keep`, and those after it."""
    end = keep % len(batch) + 1
    return batch[:end], batch[end:]


def disagreement(shown_s: float, waited_s: float, alive_s: float) -> str:
    """Return why what a process's clock has shown cannot be, by its parent's; empty where it can.

    Args:
        shown_s: What the process's clock showed for a piece of work.
        waited_s: How long the parent slept while the work was under way: it took that at least.
        alive_s: How long the process had existed: the work took that at most.
    """
    if PATIENCE * shown_s + LATENESS_S >= waited_s and shown_s <= alive_s:
        return ""
    return (
        f"the clock of the process shows {shown_s:.3g} s for what took between {waited_s:.3g} s and "
        f"{alive_s:.3g} s by its parent's"
    )


COLD = "l2=cold"
"""The mode of rows whose calls find an empty cache; `harness.plan` has the others."""


def make_clock(device: str, mode: str = "") -> Clock:
    """Return the clock of `device` for rows of a mode, as `harness.plan` names them."""
    if device.startswith("cuda"):
        from harness.cuda_clock import make_cuda_clock

        return make_cuda_clock(device, mode)
    return CpuClock()


def calibrate(
    clock: Clock, call: Call, batch: Callable[[int], Sequence[Any]], target_ns: int = TARGET_NS
) -> int:
    """Return how many calls make a sample of at least `target_ns`.

    Args:
        clock: What measures.
        call: What is measured.
        batch: Gives the arguments of so many calls.
        target_ns: Shortest sample; two in a row must be as long.
    """
    count, quickest, confirmed = 1, math.inf, 0
    while confirmed < CONFIRMATIONS and count < MOST_CALLS:
        elapsed, _ = clock.sample(call, batch(count))
        # The quickest call counts: what disturbs one sample would make all others too short.
        quickest = min(quickest, max(elapsed, 1) / count)
        if count * quickest >= target_ns:
            confirmed += 1
            continue
        # At most tenfold at once: a first sample may say almost nothing.
        needed = math.ceil(HEADROOM * target_ns / quickest)
        count, confirmed = max(count + 1, min(10 * count, needed)), 0
    return count


def turns_of(counts: Iterable[int], target_ns: int = TARGET_NS) -> int:
    """Return in how many turns samples of so many calls can be taken, all in as many.

    A turn is whole calls, of `TURN_NS` at least; of calls as long as a sample it is the sample.
    """
    return min(count // math.ceil(count * TURN_NS / target_ns) or 1 for count in counts)


def in_turns(
    keys: Sequence[Key], turns: int, order: random.Random
) -> Iterator[tuple[int, Key]]:  # fmt: skip
    """Yield `(turn, key)`: every key once a turn, in an order of its own."""
    for turn in range(turns):
        for key in order.sample(keys, len(keys)):
            yield turn, key


class Sample(NamedTuple):
    """Nanoseconds per call: of the middle turn at the usual pace, and over all turns."""

    middle_ns: int
    mean_ns: int


def samples_of(elapsed_ns: Sequence[Sequence[int]], calls: Sequence[int]) -> list[Sample]:
    """Return what the turns of several come to that took turns with each other.

    How slow a turn was for all, its pace, is divided out before the middle is taken:

        log middle_k = median_t (log e_kt - log pace_t) + median_t log pace_t,
        log pace_t   = mean_k log e_kt

    Of two that is the median of the ratios of their turns.

    Args:
        elapsed_ns: `[k][t]`, what turn t of k took.
        calls: `[k]`, how many calls a turn of k is.
    """
    logs = [[math.log(max(ns, 1)) for ns in turns] for turns in elapsed_ns]
    paces = [statistics.fmean(turn) for turn in zip(*logs, strict=True)]
    usual = statistics.median(paces) if paces else 0.0
    samples = []
    for own, turns, count in zip(logs, elapsed_ns, calls, strict=True):
        middle = statistics.median(map(operator.sub, own, paces)) + usual
        samples.append(
            Sample(round(math.exp(middle) / count), round(statistics.fmean(turns) / count))
        )
    return samples
