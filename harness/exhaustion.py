"""Running out of memory, told from other failures: by the exception, by what killed the process."""

from __future__ import annotations

import re
import signal
from pathlib import Path

KINDS = frozenset({"MemoryError", "OutOfMemoryError"})
"""Classes of exceptions: Python's own and torch's, by name, so that torch need not be loaded."""
SAID = re.compile(
    r"can't allocate memory|not enough memory|out of memory|bad_alloc|_ALLOC_FAILED", re.IGNORECASE
)
"""What allocators say in exceptions of other classes, and libraries as they end a process."""
STATISTICS = Path("/proc/vmstat")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out."""
    if KINDS & {kind.__name__ for kind in type(error).__mro__}:
        return True
    return isinstance(error, RuntimeError) and bool(SAID.search(str(error)))


def system_kills() -> int | None:
    """Return how many processes this system has ended for want of memory; None if it keeps mum."""
    try:
        return kills_in(STATISTICS.read_text(encoding="ascii"))
    except OSError:
        return None


def kills_in(text: str) -> int | None:
    """Return the count of kills in the text of /proc/vmstat."""
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


def ended_by_memory(code: int | None, before: int | None, now: int | None, last: str) -> bool:
    """Return whether a process ended because memory ran out.

    Args:
        code: Its exit code; negative is a signal.
        before, now: `system_kills` when it began and after it ended.
        last: The last line that it wrote.
    """
    if code == -signal.SIGKILL:
        return before is not None and now is not None and now > before
    return code is not None and code != 0 and bool(SAID.search(last))
