"""The clock of a CUDA device: events around calls while the queue in front of them is held up.

What is measured is the device's time and not how fast Python enqueues. A cold sample empties the L2
cache before every call, outside of the events; a hot one does not. Work comes in short bursts with
rests as long, because a device under steady load lowers its frequency; a kernel of a fixed number
of cycles tells that frequency. No setting of the device is read back or changed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from harness import clock

BURST_NS = 5_000_000
"""How long a device works before it rests, unless a single call takes longer."""
MOST_IN_A_BURST = 50
"""Calls: a queue holds about a thousand launches, some per call, and a full one stops the host."""
LONGEST_REST_NS = 20_000_000
FIRST_HOLD_NS, LONGEST_HOLD_NS = 1_000_000, 20_000_000
SYNCHRONIZE_NS = 50_000
"""What waiting for an idle device may take."""
PROOF_CYCLES = 1_000_000
TOILED = 4096
FLUSHED = 2
"""How many times its cache a flush writes, so that nothing survives."""
TOLERANCE = 0.02
"""How far a block's frequency may be from the run's."""
MOST_OFF = 0.2
"""The share of blocks that may be off before nothing is concluded from a row."""


class Device(Protocol):
    """What the clock asks of a device; a test has one without hardware."""

    rated_hz: float

    def now_ns(self) -> int:
        """Return the host's time."""

    def rest(self, ns: int) -> None:
        """Leave the device alone for so long."""

    def flush(self) -> None:
        """Enqueue what empties the L2 cache."""

    def spin(self, cycles: int) -> None:
        """Enqueue a kernel of so many cycles."""

    def toil(self) -> None:
        """Enqueue work that all of the device takes part in."""

    def mark(self) -> Any:
        """Enqueue a mark of the device's time."""

    def between_ns(self, first: Any, last: Any) -> float:
        """Return the device's time from one mark to another, once the last one is reached."""

    def synchronize(self) -> None:
        """Wait until all streams have nothing left to do."""

    def power_w(self) -> float | None:
        """Return what the device draws of late; None where nothing tells."""


class Cuda:
    """A CUDA device."""

    def __init__(self, name: str = "cuda") -> None:
        self._device = torch.device(name)
        properties = torch.cuda.get_device_properties(self._device)
        # Read at run time: published figures disagree.
        cache = getattr(properties, "L2_cache_size", 0) or 64 * 2**20
        self._flushed = torch.empty(FLUSHED * cache, dtype=torch.int8, device=self._device)
        # In kilohertz; too high a rate only holds the queue up a little longer.
        self.rated_hz = 1e3 * (getattr(properties, "clock_rate", 0) or 2_000_000)
        self.now_ns = clock.read_ns

    def rest(self, ns: int) -> None:
        """Sleep."""
        time.sleep(ns / 1e9)

    def flush(self) -> None:
        """Write more than the cache holds."""
        self._flushed.zero_()

    def spin(self, cycles: int) -> None:
        """Enqueue torch's own kernel that waits."""
        torch.cuda._sleep(cycles)

    def toil(self) -> None:
        """Multiply matrices: of chance, since zeros take less power."""
        matrix = torch.rand(TOILED, TOILED, device=self._device)
        torch.mm(matrix, matrix)

    def mark(self) -> torch.cuda.Event:
        """Enqueue an event."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between_ns(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        """Wait for the last event; events count milliseconds."""
        last.synchronize()
        return float(first.elapsed_time(last)) * 1e6

    def synchronize(self) -> None:
        """Wait for all streams."""
        torch.cuda.synchronize(self._device)

    def power_w(self) -> float | None:
        """Ask the driver, through a library that need not be there; it counts milliwatts."""
        try:
            return torch.cuda.power_draw(self._device) / 1e3
        except (ImportError, RuntimeError):
            return None


class DeviceClock:
    """Samples a device.

    Args:
        device: What to sample.
        cold: Whether every call finds an empty cache.
    """

    def __init__(self, device: Device, *, cold: bool = True) -> None:
        self._device, self._cold = device, cold
        self._hold_ns: dict[int, int] = {}
        self._busy_ns: dict[int, float] = {}
        self._last_ns = 0

    def sample(
        self, call: clock.Call, batch: Sequence[Any], keep: int = -1
    ) -> tuple[int, Any]:  # fmt: skip
        """Return the device's nanoseconds of a batch, and the result of call `keep`."""
        keep, total, kept, done = keep % len(batch), 0.0, None, 0
        for burst in _parted(batch, self._calls_in_a_burst(call)):
            self._rest()
            elapsed, result = self._burst(call, burst, keep - done)
            total += elapsed
            if 0 <= keep - done < len(burst):
                kept = result
            done += len(burst)
            del result
        return round(total), kept

    def host(self, call: clock.Call, batch: Sequence[Any]) -> tuple[int, int]:
        """Return the host's nanoseconds until a batch is done, and until it is enqueued."""
        self._rest()
        device = self._device
        device.synchronize()
        start = device.now_ns()
        for arguments in batch:
            call(arguments)
        enqueued = device.now_ns() - start
        device.synchronize()
        self._last_ns = device.now_ns() - start
        return self._last_ns, enqueued

    def frequency_hz(self) -> float:
        """Return the frequency at which the device runs just now."""
        self._device.spin(PROOF_CYCLES // 4)  # or the first mark is reached before all is enqueued
        first = self._device.mark()
        self._device.spin(PROOF_CYCLES)
        last = self._device.mark()
        return PROOF_CYCLES * 1e9 / max(self._device.between_ns(first, last), 1.0)

    def power_w(self) -> float | None:
        """Return what the device draws of late; None where nothing tells."""
        return self._device.power_w()

    def burn_in(self, seconds: float) -> None:
        """Keep the device at work for so long, until it has settled."""
        end = self._device.now_ns() + int(seconds * 1e9)
        while self._device.now_ns() < end:
            self._device.toil()
            self._device.synchronize()

    def _burst(
        self, call: clock.Call, batch: Sequence[Any], keep: int
    ) -> tuple[float, Any]:  # fmt: skip
        """Return the device's time of a burst, and the result of call `keep` if there is one."""
        device, kept, result = self._device, None, None
        hold_ns = self._hold_ns.get(id(call), FIRST_HOLD_NS)
        device.spin(int(hold_ns * device.rated_hz / 1e9))
        enqueue = device.now_ns()
        begun, spans = device.mark(), list[tuple[Any, Any]]()
        for number, arguments in enumerate(batch):
            if self._cold:
                device.flush()
                first = device.mark()
            result = call(arguments)
            if self._cold:
                spans.append((first, device.mark()))
            if number == keep:
                kept = result
        ended = device.mark()
        spans = spans or [(begun, ended)]
        # Were the queue empty before all was enqueued, gaps would be counted: hold longer next time
        needed = round(1.25 * (device.now_ns() - enqueue))
        self._hold_ns[id(call)] = min(max(FIRST_HOLD_NS, needed), LONGEST_HOLD_NS)
        busy = device.between_ns(begun, ended)
        self._busy_ns[id(call)], self._last_ns = busy / len(batch), round(busy)
        # Work that a call has left on another stream is neither free nor the next sample's.
        left = device.now_ns()
        device.synchronize()
        beyond = max(0, device.now_ns() - left - SYNCHRONIZE_NS)
        del result
        return sum(device.between_ns(*span) for span in spans) + beyond, kept

    def _calls_in_a_burst(self, call: clock.Call) -> int:
        busy = self._busy_ns.get(id(call), 0.0)
        return max(1, min(MOST_IN_A_BURST, int(BURST_NS / busy) if busy else MOST_IN_A_BURST))

    def _rest(self) -> None:
        if self._last_ns:
            self._device.rest(min(self._last_ns, LONGEST_REST_NS))


def make_cuda_clock(device: str, mode: str = clock.COLD) -> DeviceClock:
    """Return the clock of a CUDA device for rows of a mode: cold, unless it says hot."""
    return DeviceClock(Cuda(device), cold=not mode or clock.COLD in mode)


def _parted(batch: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def throttled(block: Sequence[int], rates_hz: Sequence[float], usual_hz: float) -> dict[str, Any]:
    """Return the fields of a row for blocks at another frequency than is usual in the run.

    They are counted, and stay; where they are too many, the status is THROTTLED.
    """
    from harness.results import Status  # an older checkout that loads this clock has another one

    pairs = list(zip(block, rates_hz, strict=True))
    off = tuple(number for number, rate in pairs if abs(rate / usual_hz - 1) > TOLERANCE)
    found: dict[str, Any] = {"off_clock_blocks": off}
    if len(off) > MOST_OFF * len(pairs):
        found["status"] = Status.THROTTLED
        found["reason"] = (
            f"{len(off)} of {len(pairs)} blocks ran more than {TOLERANCE:.0%} off the run's "
            f"{usual_hz / 1e6:.0f} MHz: {min(rates_hz) / 1e6:.0f} to {max(rates_hz) / 1e6:.0f}"
        )
    return found
