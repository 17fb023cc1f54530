"""What else the machine did while a block was timed: stolen time, load, context switches, clock.

Nothing of it is subtracted and no block is dropped for it: rows say it, so that a reader can tell.
The system counts processor time in ticks of some 10 ms, so that a single block says little, and all
blocks of a process together say much.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.results import MOST_STEAL, Measurement

STOLEN = 7
"""Which column of a line of /proc/stat holds the ticks that a hypervisor gave to others."""
COUNTED = 8
"""Columns of a line of /proc/stat; those after them are counted in earlier ones too."""
STATISTICS = Path("/proc/stat")
FREQUENCY = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq"


class Disturbance(NamedTuple):
    """What went on for a while; `clock_hz` and `power_w` are None where nothing tells them."""

    steal_share: float
    load: float
    involuntary_switches: int
    clock_hz: int | None
    power_w: float | None = None


class Watch:
    """Says what has gone on since it was last asked.

    Args:
        processors: The processors that matter; none means all.
    """

    def __init__(self, processors: Sequence[int] = ()) -> None:
        self._processors = tuple(processors)
        self._before = self._counts()

    def since(self) -> Disturbance:
        """Return what went on since the last call, or since the beginning."""
        now = self._counts()
        stolen, total, switches = (b - a for a, b in zip(self._before, now, strict=True))
        self._before = now
        share = round(stolen / total, 6) if total > 0 else 0.0
        load = round(os.getloadavg()[0], 2)
        return Disturbance(share, load, switches, frequency_hz(self._processors))

    def _counts(self) -> tuple[int, int, int]:
        try:
            text = STATISTICS.read_text(encoding="ascii")
        except OSError:
            text = ""
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        return *ticks(text, self._processors), switches


def ticks(text: str, processors: Sequence[int] = ()) -> tuple[int, int]:
    """Return the stolen and all ticks of some processors, none meaning all, from /proc/stat."""
    wanted = {f"cpu{number}" for number in processors} or {"cpu"}
    stolen = total = 0
    for line in text.splitlines():
        name, *words = line.split() or [""]
        if name in wanted:
            counts = [int(word) for word in words[:COUNTED] if word.isdecimal()]
            stolen += counts[STOLEN] if len(counts) > STOLEN else 0
            total += sum(counts)
    return stolen, total


def frequency_hz(processors: Sequence[int], path: str = FREQUENCY) -> int | None:
    """Return the lowest frequency of some processors, the first one if none is named.

    None where it cannot be read, as in most virtual machines.
    """
    try:
        found = [int(Path(path.format(number)).read_text("ascii")) for number in processors or (0,)]
    except (OSError, ValueError):
        return None
    return 1000 * min(found)


def flagged(rows: Sequence[Measurement]) -> list[str]:
    """Return in words how many blocks were disturbed; they are kept."""
    blocks = [len(row.block) for row in rows]
    found = [
        (sum(len(row.stolen_blocks) for row in rows), f"saw more than {MOST_STEAL:.1%} of steal"),
        (sum(len(row.off_clock_blocks) for row in rows), "ran at another frequency than the run"),
    ]
    return [f"{n} of {sum(blocks)} sampled blocks {what}" for n, what in found if n]
