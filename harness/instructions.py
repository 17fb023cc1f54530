"""Instructions that a call executes, where the machine counts them: they need no quiet machine.

Linux counts per thread, and so do threads that are started later by one that is counted. Most
virtual machines pass no hardware counter on; then there is no count.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

CALL_NUMBERS = {"x86_64": 298, "aarch64": 241}
"""The number of perf_event_open, by the machine's name."""
SIZE = 112
"""Bytes of the attributes, in the version of Linux 4.1."""
INHERIT, EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6


class Event(NamedTuple):
    """What is counted: kind and number, as linux/perf_event.h has them."""

    kind: int
    number: int


INSTRUCTIONS = Event(kind=0, number=1)
PROCESSOR_NS = Event(kind=1, number=1)
"""Counted by the system itself, so that it is there where the hardware counts nothing."""


class Counter:
    """Counts an event of this thread, and of those that it starts from now on.

    Raises:
        OSError: the machine, the system or its settings do not count it.
    """

    def __init__(self, event: Event = INSTRUCTIONS) -> None:
        number = CALL_NUMBERS.get(platform.machine())
        if number is None or platform.system() != "Linux":
            raise OSError(f"no counters on {platform.system()} {platform.machine()}")
        flags = INHERIT | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR
        # kind, size, number, period, fields of a sample, format of a reading, flags
        words = struct.pack("=IIQQQQQ", event.kind, SIZE, event.number, 0, 0, 0, flags)
        attributes = ctypes.create_string_buffer(words.ljust(SIZE, b"\0"), SIZE)
        system = ctypes.CDLL(None, use_errno=True)
        self._file = system.syscall(number, attributes, 0, -1, -1, 0)
        if self._file < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"perf_event_open: {os.strerror(code)}")

    def read(self) -> int:
        """Return the count since the beginning."""
        return int.from_bytes(os.read(self._file, 8), "little")

    def close(self) -> None:
        """Count no longer."""
        os.close(self._file)

    def per_call(self, call: Callable[[Any], Any], batch: list[Any]) -> int:
        """Return the count of one call, on average over a batch."""
        start = self.read()
        for arguments in batch:
            call(arguments)
        return round((self.read() - start) / len(batch))


def open_counter() -> Counter | None:
    """Return a counter of instructions, None where there is none."""
    try:
        return Counter()
    except OSError:
        return None
