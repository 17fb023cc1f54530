"""Every measured cell of a run as one benchmark of pytest-benchmark."""

from __future__ import annotations

from typing import Any

import pytest

from harness.bench.replay import Recorded, ReplayTimer, recorded_cells
from harness.results import load_run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = metafunc.config.getoption("--run")
    cells = [] if folder is None else list(recorded_cells(load_run(folder).measurements))
    parameters = [
        pytest.param(
            cell,
            id=cell.name,
            marks=pytest.mark.benchmark(
                group=cell.group, timer=ReplayTimer(cell.seconds), disable_gc=False
            ),
        )
        for cell in cells
    ]
    metafunc.parametrize("cell", parameters)


def test_cell(cell: Recorded, benchmark: Any) -> None:
    row = cell.rows[0]
    benchmark.extra_info.update(
        case=row.case,
        device=row.device,
        threads=row.threads,
        flags=row.flags,
        placebo=row.placebo,
        calls_per_sample=[r.calls_per_sample for r in cell.rows],
        process=[r.process for r in cell.rows for _ in r.block],
        block=[block for r in cell.rows for block in r.block],
        peak_bytes=row.peak_bytes,
        saved_bytes=row.saved_bytes,
        proof=row.proof,
    )
    benchmark.pedantic(_replayed, rounds=len(cell.seconds), iterations=1)


def _replayed() -> None:
    """Do nothing: the time was taken before."""
