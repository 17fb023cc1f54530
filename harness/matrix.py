"""The law x implementation matrix in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from harness.law import natural_order
from harness.results import Outcome, Verdict

# a mark and never colour alone; a number alone is the executed cases of a law that holds
MARK = {
    Outcome.HOLDS: "",
    Outcome.REFUTED: "REFUTED ",
    Outcome.CRASHED: "CRASHED ",
    Outcome.MISTRUSTED: "MISTRUSTED ",
    Outcome.UNSUPPORTED: "-",
}


def render_matrix(rows: Sequence[Verdict]) -> Iterator[str]:
    """Yield one block per variant: laws down, implementations across, executed cases in cells."""
    for variant in dict.fromkeys(row.variant for row in rows):
        mine = [row for row in rows if row.variant == variant]
        columns = list(dict.fromkeys(row.implementation for row in mine))
        cells = {(row.law, row.implementation): _cell(row) for row in mine}
        names = {row.law: f"{row.law:<4} {row.law_name}" for row in mine}
        width = max(map(len, [*names.values(), variant]))
        widths = {
            column: max(len(column), *(len(cells.get((law, column), "")) for law in names))
            for column in columns
        }
        yield "  ".join([variant.ljust(width), *(c.rjust(widths[c]) for c in columns)])
        for law, name in sorted(names.items(), key=lambda item: natural_order(item[0])):
            entries = (cells.get((law, c), "").rjust(widths[c]) for c in columns)
            yield "  ".join([name.ljust(width), *entries])
        yield ""
    counts = {o: sum(row.status is o for row in rows) for o in Outcome}
    total = sum(row.cases for row in rows)
    words = ", ".join(f"{count} {outcome.lower()}" for outcome, count in counts.items() if count)
    yield f"{len(rows)} pairs of law and implementation: {words}; {total} cases"


def render_coverage(rows: Sequence[Verdict]) -> Iterator[str]:
    """Yield how many cells of law x implementation x dtype x rank ran, and why the others did not."""
    executed = sum(len(row.counts) for row in rows)
    gaps = Counter(reason for row in rows for reason in row.gaps.values())
    empty = gaps.pop("", 0)
    total = executed + gaps.total() + empty
    yield (
        f"{total} cells of law x implementation x dtype x rank: {executed} executed, "
        f"{gaps.total()} left out for a declared reason, {empty} empty"
    )
    yield from (f"  {count:>6}  {reason}" for reason, count in gaps.most_common())


def _cell(row: Verdict) -> str:
    return MARK[row.status] + (str(row.cases) if row.status is not Outcome.UNSUPPORTED else "")
