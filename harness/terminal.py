"""What a benchmark run shows at a terminal: progress on standard error, verdicts on output."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from harness import clock
from harness.comparison import Comparison, GeometricMean, PlaceboSummary, Speed
from harness.plan import cell_of
from harness.results import Status

PLAIN_EVERY_S = 10.0
MOST_DETAILED_VARIANTS = 2


class Progress:
    """A bar with the time left: rich where it is installed and somebody watches, else lines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._task: Any = None
        self._next = 0.0

    def __enter__(self) -> Self:
        if self._stream.isatty():
            with contextlib.suppress(ImportError):
                from rich.console import Console
                from rich.progress import BarColumn, TextColumn
                from rich.progress import Progress as Bar

                self._bar = Bar(
                    TextColumn("{task.percentage:>3.0f}%"), BarColumn(),
                    TextColumn("{task.fields[left]} {task.description}"),
                    console=Console(file=self._stream), transient=True,
                )  # fmt: skip
                self._task = self._bar.add_task("", total=1.0, left="")
                self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Print one line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def show(self, share: float, what: str, left_s: float | None = None) -> None:
        """Show that `share` of all is done, what is being done, and the seconds left."""
        left = "" if left_s is None else f"{max(left_s, 0):.0f} s left,"
        if self._bar is not None:
            self._bar.update(self._task, completed=share, description=what, left=left)
        elif clock.monotonic_s() >= self._next:
            self._next = clock.monotonic_s() + PLAIN_EVERY_S
            self.say(f"{share:4.0%} {left} {what}")


def print_verdicts(
    comparisons: Sequence[Comparison], means: Sequence[GeometricMean], placebo: PlaceboSummary,
    refuted: Collection[tuple[str, str]] = (),
) -> None:  # fmt: skip
    """Print the geometric means, cells one by one where there are few variants, and the placebo.

    `refuted` are the pairs of variant and implementation that a law found wrong: they are marked.
    """
    variants = dict.fromkeys(row.variant for row in comparisons)
    several = len({row.threads for row in comparisons}) > 1
    if len(variants) <= MOST_DETAILED_VARIANTS:
        for variant in variants:
            _print_table(
                f"{variant}: time over that of its baseline",
                ("case", "direction", "implementation", "median", "ratio [95 %]", "verdict"),
                [_cell_line(r, refuted, several) for r in comparisons if r.variant == variant],
            )
    _print_table(
        "geometric means over cases: time and memory over those of the baseline",
        ("variant", "implementation", "direction", "cells", "ratio [95 %]", "verdict", "memory"),
        [_mean_line(row, refuted, several) for row in means],
    )
    if placebo.worst is not None and placebo.worst.ratio is not None:
        text = f"placebo: the baseline against itself differs by at most {placebo.worst.ratio - 1:+.1%}"
        if placebo.detectable_median is not None:
            text += f"; effects of {placebo.detectable_median:.1%} show in the median cell"
        text += f"; {placebo.alarms} of {placebo.rows} placebo rows would be a false alarm"
        _write(text)


def write_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output."""
    for line in lines:
        _write(line)


def _name(row: Comparison | GeometricMean, refuted: Collection[tuple[str, str]]) -> str:
    wrong = (row.variant, row.implementation) in refuted
    return row.implementation + (" (fails a law)" if wrong else "")


def _cell_line(
    row: Comparison, refuted: Collection[tuple[str, str]], several: bool
) -> tuple[str, ...]:
    name = _name(row, refuted) + (" (placebo)" if row.placebo else "")
    median = "" if row.median_ns is None else _time(row.median_ns)
    where = [row.case_name or row.case, *_threads(row, several), cell_of(row).mode]
    return (
        " ".join(filter(None, where)), row.direction, name, median,
        _interval(row.ratio, row.ratio_low, row.ratio_high),
        _verdict(row.verdict, row.ratio) if row.status is Status.MEASURED else str(row.status),
    )  # fmt: skip


def _threads(row: Comparison | GeometricMean, several: bool) -> list[str]:
    return [f"{row.threads} thread{'s' * (row.threads > 1)}"] if several else []


def _mean_line(
    row: GeometricMean, refuted: Collection[tuple[str, str]], several: bool
) -> tuple[str, ...]:
    memory = "" if row.memory_ratio is None else f"{row.memory_ratio:.2f}"
    return (
        row.variant, _name(row, refuted), " ".join([row.direction, *_threads(row, several)]),
        f"{row.counted}/{row.cells}",
        _interval(row.ratio, row.ratio_low, row.ratio_high), _verdict(row.verdict, row.ratio), memory,
    )  # fmt: skip


def _interval(ratio: float | None, low: float | None, high: float | None) -> str:
    if ratio is None:
        return "-"
    ends = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{ratio:.3f}{ends}"


def _verdict(verdict: Speed, ratio: float | None) -> str:
    if ratio is not None and verdict is Speed.FASTER:
        return f"{verdict} {1 / ratio:.2f}x"
    if ratio is not None and verdict is Speed.SLOWER:
        return f"{verdict} {ratio:.2f}x"
    return str(verdict)


def _time(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _print_plain(title, columns, rows)
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width: cutting names there would make the table useless.
    width = None if sys.stdout.isatty() else 320
    Console(file=sys.stdout, width=width, markup=False, highlight=False).print(table)


def _print_plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    _write(title)
    for row in (columns, *rows):
        _write("  ".join(w.ljust(n) for w, n in zip(row, widths, strict=True)).rstrip())
    _write("")


def _write(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is the terminal
