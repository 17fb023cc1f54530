"""The end of a benchmark run: verdicts at the terminal, pytest-benchmark's file and the page."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import clock
from harness.comparison import compare, deciding_row, summarize, summarize_placebo
from harness.disturbances import flagged
from harness.evidence import read_evidence
from harness.judge import BAD
from harness.ledger import OF_BUDGET
from harness.plan import Cell, cell_of
from harness.results import FAILED, Measurement, ResultsError, load_run
from harness.terminal import print_verdicts, write_lines

ROOT = Path(__file__).resolve().parent.parent
PAGES = Path("reports/out")
HISTORY = "history"
"""The table of `bench --against`, kept with the run."""


def conclude(folder: Path, *, as_json: bool, deadline_s: float | None = None) -> int:
    """Print verdicts, write pytest-benchmark's file beside the page; return the exit code.

    The page is written always; what pytest-benchmark has not done by `deadline_s`, a moment of
    `clock.monotonic_s`, is left to the command that is named.
    """
    loaded = load_run(folder)
    baselines = {card.name: card.baseline for card in loaded.run.catalogue}
    comparisons = compare(loaded.measurements, baselines)
    means, placebo = summarize(comparisons), summarize_placebo(comparisons)
    if not as_json:
        refuted = {(v.variant, v.implementation) for v in loaded.verdicts if v.status in BAD}
        print_verdicts(comparisons, means, placebo, refuted)
    bad = [row for row in _deciding(loaded.measurements) if row.status in FAILED]
    laws = [row for row in loaded.verdicts if row.status in BAD]
    measured = any(row.samples_ns for row in loaded.measurements)
    with ThreadPoolExecutor(1) as aside:  # nothing is timed any more: two things at once
        replayed = aside.submit(_run_pytest_benchmark, folder, deadline_s) if measured else None
        page, remark = _write_page(folder, loaded.run.id)
        remarks = [replayed.result() if replayed else "nothing was timed", remark]
    counts = Counter(str(row.status) for row in bad) + Counter(str(r.status) for r in laws)
    remarks += [f"{number} {status}" for status, number in counts.items()]
    remarks += [f"a counterexample: {row.replay}" for row in laws if row.replay][:1]
    remarks += flagged(loaded.measurements)
    remarks += [n for n in loaded.run.notes if n.startswith((OF_BUDGET, "warning: "))]
    remarks.append(f"results: {folder}")
    remarks = [remark for remark in remarks if remark]
    if as_json:
        answer = {
            "run_id": loaded.run.id,
            "folder": str(folder),
            "report": str(page) if page else None,
            "notes": list(loaded.run.notes),
            "comparisons": [dataclasses.asdict(row) for row in comparisons],
            "means": [dataclasses.asdict(row) for row in means],
            "placebo": dataclasses.asdict(placebo),
            "history": _history(folder),
        }
        sys.stderr.write("\n".join(remarks) + "\n")
        write_lines([json.dumps(answer, indent=1)])
    else:
        write_lines(remarks)
        if page:
            write_lines([f"report: {page}"])
    return int(bool(bad or laws))


def _history(folder: Path) -> dict[str, Any] | None:
    """Return what `--against` found, row by row; None where nothing was asked."""
    path = folder / "evidence" / f"{HISTORY}.json"
    if not path.exists():
        return None
    table = read_evidence(path)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {"title": table.title, "about": table.about, "rows": rows}


def _deciding(rows: Sequence[Measurement]) -> Iterator[Measurement]:
    cells: dict[Cell, dict[int, Measurement]] = {}
    for row in rows:
        cells.setdefault(cell_of(row), {})[row.process] = row
    return (deciding_row(list(found.values())) for found in cells.values())


def _run_pytest_benchmark(folder: Path, deadline_s: float | None = None) -> str:
    """Hand the samples to pytest-benchmark in a process of its own; return what to say, if any."""
    if importlib.util.find_spec("pytest_benchmark") is None:
        return "pytest-benchmark is not installed: no pytest-benchmark.json"
    target = folder / "pytest-benchmark.json"
    command = [
        sys.executable, "-m", "pytest", str(ROOT / "harness" / "bench"), "-q", "-p", "no:cacheprovider",
        "--rootdir", str(ROOT), "--run", str(folder.resolve()),
        "--benchmark-json", str(target.resolve()), "--benchmark-quiet",
    ]  # fmt: skip
    left_s = None if deadline_s is None else max(deadline_s - clock.monotonic_s(), 0.0)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=left_s,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        target.unlink(missing_ok=True)  # half of it, or that of before
        return f"budget: no time for pytest-benchmark.json; {shlex.join(command)}"
    no_tests = 5
    if done.returncode in (0, no_tests):
        return ""
    last = " ".join((done.stdout + done.stderr).strip().splitlines()[-1:])
    return f"pytest-benchmark ended with {done.returncode}: {last}; {shlex.join(command)}"


def _write_page(folder: Path, run_id: str) -> tuple[Path | None, str]:
    """Write the page; return its path as seen from here, and what to say without one."""
    try:
        page = importlib.import_module("reports.page")
    except ImportError as error:
        return None, f"no page: {error}; later: python3 -m harness report {folder}"
    try:
        path = Path(page.write_page(folder, PAGES / f"{run_id}.html"))
        importlib.import_module("reports.index").write_index(path.parent)
    except OSError as error:
        raise ResultsError(
            f"{PAGES}: the page cannot be written: {error.strerror}; the results are in {folder}"
        ) from error
    with contextlib.suppress(ValueError):
        path = path.resolve().relative_to(Path.cwd())
    return path, ""
