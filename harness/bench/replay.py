"""Recorded samples for pytest-benchmark: one benchmark per measured cell, no clock involved.

pytest-benchmark runs its tests strictly one after another, so samples that are to be compared are
taken beforehand, interleaved, and replayed here through its public `timer`: its table, JSON, saved
runs and comparisons then show exactly what was taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.comparison import deciding_row
from harness.plan import cell_of
from harness.results import Measurement, Status


@dataclass(frozen=True, slots=True)
class Recorded:
    """All samples of one cell in the order of processes and blocks; `seconds` is what is shown."""

    rows: tuple[Measurement, ...]

    @property
    def seconds(self) -> list[float]:
        """Every sample in seconds."""
        return [sample / 1e9 for row in self.rows for sample in row.samples_ns]

    @property
    def group(self) -> str:
        """What this cell is compared with."""
        row = self.rows[0]
        words = (row.variant, row.case_name or row.case, row.direction, row.dtype, *_way(row))
        return " ".join(words)

    @property
    def name(self) -> str:
        """What tells this cell from the others of its group; the same in every run."""
        row = self.rows[0]
        placebo = "-placebo" if row.placebo else ""
        case = row.case_name or row.case
        name = f"{row.variant}-{row.implementation}{placebo}-{case}-{row.direction}-{row.dtype}"
        return "-".join([name, *_way(row)])


def _way(row: Measurement) -> list[str]:
    """Return what is not as usual: more threads than one, a mode of a device."""
    threads = [f"{row.threads} threads"] if row.threads > 1 else []
    return threads + list(filter(None, [cell_of(row).mode]))


class ReplayTimer:
    """A timer whose differences are recorded samples: it reads 0 and the sample by turns."""

    def __init__(self, seconds: Iterable[float]) -> None:
        self._readings = (reading for second in seconds for reading in (0.0, second))

    def __call__(self) -> float:
        """Return the next reading."""
        return next(self._readings)


def recorded_cells(measurements: Iterable[Measurement]) -> Iterator[Recorded]:
    """Yield every cell that was measured and nowhere failed."""
    cells: dict[tuple[object, ...], dict[int, Measurement]] = {}
    for row in measurements:
        key = (row.variant, row.implementation, row.case, row.case_name, row.direction,
               row.dtype, row.device, row.threads, row.flags, row.placebo)  # fmt: skip
        cells.setdefault(key, {})[row.process] = row
    for rows in cells.values():
        if deciding_row(list(rows.values())).status is Status.MEASURED:
            measured = {p: row for p, row in rows.items() if row.status is Status.MEASURED}
            yield Recorded(tuple(measured[process] for process in sorted(measured)))
