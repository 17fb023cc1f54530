"""How many threads a process has, and on which processors it runs."""

from __future__ import annotations

import os


def processors_for(threads: int) -> tuple[int, ...]:
    """Return the processors to pin a timing process to; empty where pinning would not help."""
    if not hasattr(os, "sched_setaffinity"):
        return ()
    available = sorted(os.sched_getaffinity(0))
    # The last ones: interrupts and the parent tend to sit on the first.
    return tuple(available[-threads:]) if len(available) > threads else ()


def environment_for(threads: int) -> dict[str, str]:
    """Return the variables that hold every library to `threads` threads from its start."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: str(threads) for name in names}
