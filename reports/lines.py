"""The lines that repeat a row of a run at a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from harness.results import Measurement

BUDGET_S = 90
"""What one row is timed again in: enough for a number on a quiet machine, short enough to wait for."""


def plugin_options(argv: Sequence[str]) -> str:
    """Return the `--plugin` options of a command line, without which no line of it replays."""
    words = []
    for position, word in enumerate(argv):
        if word == "--plugin" and position + 1 < len(argv):
            words += [word, argv[position + 1]]
        elif word.startswith("--plugin="):
            words.append(word)
    return "".join(f" {shlex.quote(word)}" for word in words)


def replay_line(row: Measurement) -> str:
    """Return the line that checks what a row measured."""
    return (
        f"python3 -m harness check {shlex.quote(f'{row.variant}/{row.implementation} {row.case}')}"
    )


def timing_line(row: Measurement) -> str:
    """Return the line that times it again."""
    options = {
        "--variant": row.variant,
        "--implementation": row.implementation,
        "--case": row.case,
        "--direction": row.direction,
        "--device": row.device.partition(":")[0],
        "--threads": str(row.threads),
        "--budget-s": str(BUDGET_S),
    }
    words = [f"{name} {shlex.quote(value)}" for name, value in options.items()]
    return " ".join(["python3 -m harness bench", *words])
