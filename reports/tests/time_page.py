"""`python3 -m reports.tests.time_page [ROUNDS]`: processor seconds for the page of 1,000 rows."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from harness.evidence import EVIDENCE, load_evidence
from harness.results import load_run
from harness.terminal import write_lines
from reports import frame
from reports.page import write_page
from reports.tests.sample_run import make_run

VARIANTS, PROCESSES, BLOCKS = 20, 5, 20
BUDGET_S = 5.0


def main(rounds: int) -> None:
    """Build the same page some times, with all evidence, and print what each build took."""
    with tempfile.TemporaryDirectory() as name:
        run = make_run(Path(name) / "run", variants=VARIANTS, processes=PROCESSES, blocks=BLOCKS)
        for table in load_evidence(EVIDENCE):
            table.save(run / "evidence")
        rows = len(frame.cells_frame(load_run(run), ()))
        for _ in range(rounds):
            start = time.process_time()
            page = write_page(run, Path(name) / "page.html")
            took = time.process_time() - start
            size = page.stat().st_size / 1e6
            write_lines([f"{rows} rows: {took:.2f} s of {BUDGET_S:g} s, {size:.2f} MB"])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
