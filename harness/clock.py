"""The only place that reads clocks and CUDA events.

A sample is the time of a whole batch of calls, long against the resolution of the timer. On CUDA
the events stand around the batch while the queue is still held up in front of it, so that what is
measured is the device's time and not how fast Python enqueues.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import torch

# Bound at import, before any plug-in is loaded: whoever replaces `time.perf_counter_ns` later
# changes neither the clock nor `is_tampered`, and is found by `harness.surroundings`.
_read_ns = time.perf_counter_ns
_original = time.perf_counter_ns

TARGET_NS = 2_000_000
"""Shortest sample: a thousand times what a timer resolves."""
HEADROOM = 1.15
"""Calibration aims this much higher, so that a quicker sample is still long enough."""
CONFIRMATIONS = 2
MOST_CALLS = 1_000_000
LONGEST_HOLD_NS = 20_000_000
SYNCHRONIZE_NS = 50_000
"""What waiting for an idle device may take."""
PATIENCE, LATENESS_S = 1.25, 1.0
"""How much later than a message is sent a busy machine may deliver it."""

Call = Callable[[Any], Any]


def monotonic_s() -> float:
    """Return seconds since some fixed moment, for budgets and deadlines."""
    return _read_ns() / 1e9


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
        _burn(torch.device("cpu"), seconds, self._read)


class CudaClock:
    """CUDA events around a batch, with the queue held up before and the L2 cache flushed."""

    def __init__(self, device: str = "cuda") -> None:
        self._device = torch.device(device)
        properties = torch.cuda.get_device_properties(self._device)
        # Read at run time: published figures disagree. Twice the cache, so that nothing survives.
        size = 2 * (getattr(properties, "L2_cache_size", 0) or 64 * 2**20)
        self._flush = torch.empty(size, dtype=torch.int8, device=self._device)
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)
        self._hold_ns = 1_000_000
        # Cycles per nanosecond; too high a rate only holds the queue a little longer.
        self._rate = getattr(properties, "clock_rate", 2_000_000) / 1e6

    def sample(self, call: Call, batch: Sequence[Any], keep: int = -1) -> tuple[int, Any]:
        """Return the device time of the batch in nanoseconds, and the result of call `keep`."""
        (before, after), kept, result = _parted(batch, keep), None, None
        self._flush.zero_()
        torch.cuda._sleep(int(self._hold_ns * self._rate))
        enqueue = _read_ns()
        self._start.record()
        for arguments in before:
            kept = call(arguments)
        for arguments in after:
            result = call(arguments)
        self._end.record()
        # Were the queue empty before all was enqueued, gaps would be counted: hold longer next time
        needed = round(1.25 * (_read_ns() - enqueue))
        self._hold_ns = min(max(self._hold_ns, needed), LONGEST_HOLD_NS)
        self._end.synchronize()
        # Work that a call has left on another stream is neither free nor the next sample's.
        left = _read_ns()
        torch.cuda.synchronize(self._device)
        beyond = max(0, _read_ns() - left - SYNCHRONIZE_NS)
        del result
        return round(self._start.elapsed_time(self._end) * 1e6) + beyond, kept

    def burn_in(self, seconds: float) -> None:
        """Multiply matrices for so long."""
        _burn(self._device, seconds, _read_ns)


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


def make_clock(device: str) -> Clock:
    """Return the clock of `device`."""
    return CudaClock(device) if device.startswith("cuda") else CpuClock()


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


def _burn(device: torch.device, seconds: float, read: Callable[[], int]) -> None:
    matrix = torch.rand(256, 256, device=device)
    end = read() + int(seconds * 1e9)
    while read() < end:
        matrix = (matrix @ matrix).clamp(0, 1)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
