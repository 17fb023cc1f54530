"""The law engine's own speed: cases a minute, by variant and by law, in one process.

Minutes are of processor time, which neighbours on a shared machine change less than the wall's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from harness import clock
from harness.effort import COSTLY, Profile
from harness.evidence import EVIDENCE, Evidence, Made
from harness.judge import meets
from harness.law import Law
from harness.search import search
from harness.table import Table, every_form
from harness.variant import Need, Variant

ROOT = Path(__file__).parents[1]
VALUES = 16
SHARE = 10
"""A law over all variants meets this share of the cases that agreement meets in each."""
Row = tuple[str, str, str, int, int, int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `rates`."""
    parser.add_argument("--variant", action="append", default=[], help="only this variant")
    parser.add_argument("--cases", type=int, default=960, metavar="N", help="per form and variant")
    parser.add_argument("--laws", action="store_true", help="every law as well")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {EVIDENCE.name}/")


def run(options: argparse.Namespace, table: Table) -> int:
    """Print the rates: agreement of every variant on two axes, then every law over all variants."""
    started = clock.utc_now()
    chosen = [table.variant(name) for name in options.variant or table.variants]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[Row] = []
    try:
        print(
            f"{'law':<6}{'variants':<16}{'axes':<8}{'forms':>6}{'cases':>8}{'cases a minute':>16}"
        )
        for row in _rows(chosen, table, options.cases, options.laws):
            print(f"{row[0]:<6}{row[1]:<16}{row[2]:<8}{row[3]:>6}{row[4]:>8}{row[5]:>16,}")
            rows.append(row)
    finally:
        torch.set_num_threads(threads)
    if options.write:
        words = [f"--variant {name}" for name in options.variant]
        words += [f"--cases {options.cases}", *["--laws"] * options.laws, "--write"]
        made = Made.here(" ".join(["python3 -m harness rates", *words]), started, ROOT)
        print(f"kept in {as_evidence(rows, made).save(EVIDENCE)}")
    return 0


def as_evidence(rows: Sequence[Row], made: Made) -> Evidence:
    """Return the table of the rates."""
    return Evidence(
        name="rates",
        title="Speed of the law engine",
        about=(
            "Cases per minute of processor time, one thread; drawing, oracle and bound are included "
            f"and shared by all implementations, every drawn geometry filled {VALUES} times. Laws of "
            "which a case takes seconds are left out."
        ),
        made=made,
        columns=("law", "variant", "axes", "implementations", "cases", "cases a minute"),
        rows=tuple(rows),
    )


def _rows(
    chosen: Sequence[Variant], table: Table, cases: int, laws: bool
) -> Iterator[Row]:  # fmt: skip
    for variant in chosen:
        flat = replace(variant, domain=replace(variant.domain, ranks=(2,)))
        if row := _row(table.law("G1"), [flat], "2", cases, table):
            yield row
    for law in table.laws.values() if laws else ():
        having = [variant for variant in chosen if law in table.laws_of(variant)]
        if law.share >= COSTLY and (row := _row(law, having, "1 to 3", cases // SHARE, table)):
            yield row


def _row(
    law: Law, variants: Sequence[Variant], axes: str, cases: int, table: Table
) -> Row | None:  # fmt: skip
    """Return the rate of a law over all forms of some variants."""
    forms = [
        (variant, form) for variant in variants for form in every_form(variant)
        if meets(law, form) and Need.COMPILER not in form.needs and form.missing() is None
    ]  # fmt: skip
    profile = Profile(cases=cases, values=VALUES, shrink=False)
    warm = Profile(cases=12, seed=1, shrink=False)
    for variant, form in forms:
        search(law, variant, form, warm, variants=table.variants)
    start = clock.processor_s()
    found = [search(law, *cell, profile, variants=table.variants) for cell in forms]
    seconds = clock.processor_s() - start
    executed = sum(finding.cases for finding in found)
    if not executed:
        return None
    names = variants[0].name if len(variants) == 1 else f"{len(variants)} variants"
    return (law.id, names, axes, len(forms), executed, round(60 * executed / seconds))
