"""The soak: what a long run of the laws over right implementations came to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from harness.evidence import EVIDENCE, Evidence, Made
from harness.law import natural_order
from harness.results import Outcome, ResultsError, Verdict, load_run
from harness.search import COSTLY
from harness.table import Table

ROOT = Path(__file__).parents[1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `soak`."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="of results/, with the verdicts")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {EVIDENCE.name}/")


def run(options: argparse.Namespace, table: Table) -> int:
    """Print cases and refutations by law; return 1 where there is a refutation."""
    loaded = load_run(options.folder)
    rows = [row for row in loaded.verdicts if row.status is not Outcome.UNSUPPORTED]
    if not rows:
        raise ResultsError(f"{options.folder}: holds no verdicts")
    refuted = [row for row in rows if row.status is not Outcome.HOLDS]
    total = sum(row.cases for row in rows)
    about = (
        f"{total:,} cases over {len(rows):,} pairs of law and implementation, seed "
        f"{loaded.run.seed}: {len(refuted)} refuted. A pair gets fewer than the others where the "
        "law's domain holds no more that differ, or where one case of it takes seconds (costly)."
    )
    entries = [_row(name, rows, table) for name in sorted({r.law for r in rows}, key=natural_order)]
    for entry in entries:
        print("  ".join(str(cell).ljust(10) for cell in entry))
    print(about)
    if options.write:
        made = Made.here("nox -s soak", datetime.fromisoformat(loaded.run.started), ROOT)
        evidence = Evidence(
            name="soak", title="Soak: no false alarm", about=about, made=made,
            columns=("law", "name", "pairs", "cases", "fewest of a pair", "refuted"),
            rows=tuple(entries),
        )  # fmt: skip
        print(f"kept in {evidence.save(EVIDENCE)}")
    return int(bool(refuted))


def _row(law_id: str, rows: Sequence[Verdict], table: Table) -> tuple[str | float, ...]:
    own = [row for row in rows if row.law == law_id]
    law = table.laws.get(law_id)
    costly = " (costly)" if law is not None and law.share < COSTLY else ""
    return (
        law_id, own[0].law_name + costly, len(own), sum(row.cases for row in own),
        min(row.cases for row in own), sum(row.status is not Outcome.HOLDS for row in own),
    )  # fmt: skip
