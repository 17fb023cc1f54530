"""How many threads a process has, and on which processors it runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LOCKS = Path(tempfile.gettempdir())
_held: dict[int, int] = {}
"""What this process has claimed until it ends: the descriptor of a lock, by processor."""


def processors_for(threads: int) -> tuple[int, ...]:
    """Return the processors to pin timing processes to; empty where pinning would not help.

    They are claimed: two runs at once on one machine are pinned to the same ones only where there
    are no others.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    available = sorted(os.sched_getaffinity(0))
    if len(available) <= threads:
        return ()
    # The last ones: interrupts and the parent tend to sit on the first.
    chosen: list[int] = []
    for number in reversed(available):
        if len(chosen) < threads and _is_claimed(number):
            chosen.append(number)
    others = [number for number in reversed(available) if number not in chosen]
    return tuple(sorted([*chosen, *others][:threads]))


def _is_claimed(number: int) -> bool:
    """Return whether a processor is ours: a lock that ends with the process that holds it."""
    if number in _held:
        return True
    import fcntl  # where processes can be pinned there are such locks

    try:
        lock = os.open(LOCKS / f"convharness-processor-{number}", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # somebody else's file: nothing is known
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    _held[number] = lock
    return True


def environment_for(threads: int) -> dict[str, str]:
    """Return the variables that hold every library to `threads` threads from its start."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: str(threads) for name in names}
