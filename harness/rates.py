"""The law engine's own speed: cases a minute, by variant and by law, in one process.

Minutes are of processor time, which neighbours on a shared machine change less than the wall's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from harness import clock
from harness.evidence import EVIDENCE, Evidence, Made
from harness.judge import meets
from harness.law import Law
from harness.search import COSTLY, Profile, search
from harness.table import Table, every_form
from harness.variant import Need, Variant

ROOT = Path(__file__).parents[1]
VALUES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `rates`."""
    parser.add_argument("--variant", action="append", default=[], help="only this variant")
    parser.add_argument("--cases", type=int, default=960, metavar="N", help="per law and form")
    parser.add_argument("--laws", action="store_true", help="every law, not agreement alone")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {EVIDENCE.name}/")


def run(options: argparse.Namespace, table: Table) -> int:
    """Print the rates, 2 spatial axes first: values against the oracle within the bound."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = list(_rows(options, table))
    finally:
        torch.set_num_threads(threads)
    if options.write:
        evidence = Evidence(
            name="rates",
            title="Speed of the law engine",
            about=(
                "Cases per minute of processor time, one thread; drawing, oracle and bound are included "
                f"and shared by all implementations, every drawn geometry filled {VALUES} times."
            ),
            made=Made.here("python3 -m harness rates --laws --write", clock.utc_now(), ROOT),
            columns=("law", "variant", "axes", "implementations", "cases", "cases a minute"),
            rows=tuple(rows),
        )
        print(f"kept in {evidence.save(EVIDENCE)}")
    return 0


def _rows(options: argparse.Namespace, table: Table) -> Iterator[tuple[str | float, ...]]:
    chosen = [table.variant(name) for name in options.variant or table.variants]
    print(f"{'law':<6}{'variant':<16}{'axes':<6}{'forms':>6}{'cases':>8}{'cases a minute':>16}")
    flat = [(v, replace(v, domain=replace(v.domain, ranks=(2,))), "2") for v in chosen]
    every = [(v, v, "1 to 3") for v in chosen] if options.laws else []
    for variant, judged, axes in (*flat, *every):
        for law in table.laws_of(variant):
            wanted = law.id == "G1" if axes == "2" else law.share >= COSTLY
            if wanted and (row := _row(law, judged, axes, options.cases, table)):
                print(f"{row[0]:<6}{row[1]:<16}{row[2]:<6}{row[3]:>6}{row[4]:>8}{row[5]:>16,}")
                yield row


def _row(
    law: Law, variant: Variant, axes: str, cases: int, table: Table
) -> tuple[str | float, ...] | None:
    forms = [
        form for form in every_form(variant)
        if meets(law, form) and Need.COMPILER not in form.needs and form.missing() is None
    ]  # fmt: skip
    profile = Profile(cases=cases, values=VALUES, shrink=False)
    warm = Profile(cases=12, seed=1, shrink=False)
    for form in forms:
        search(law, variant, form, warm, variants=table.variants)
    start = clock.processor_s()
    found = [search(law, variant, form, profile, variants=table.variants) for form in forms]
    seconds = clock.processor_s() - start
    executed = sum(finding.cases for finding in found)
    if not executed:
        return None
    return (law.id, variant.name, axes, len(forms), executed, round(60 * executed / seconds))
