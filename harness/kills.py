"""The table of kills: how many cases every law needs to refute every mutant that it meets."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness import clock
from harness.evidence import EVIDENCE, Evidence, Made
from harness.isolation import End, Job, Pool
from harness.law import Law, natural_order
from harness.mutant import Mutant
from harness.results import Outcome
from harness.search import COSTLY, Profile, search
from harness.table import Table, load_table

ROOT = Path(__file__).parents[1]
EFFORT = Profile(cases=60, shrink=False, least=60)
AGREEMENT = ("G1", "G1b")
MUTANT_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One law that refutes one mutant, and the number of cases until it did."""

    law: str
    cases: int


def load_mutants() -> tuple[Mutant, ...]:
    """Return the mutants of every module of `properties.refuted`.

    Raises:
        ValueError: two of one variant share a name.
    """
    package = importlib.import_module("properties.refuted")
    mutants: dict[tuple[str, str], Mutant] = {}
    for found in pkgutil.iter_modules(package.__path__):
        for mutant in importlib.import_module(f"properties.refuted.{found.name}").MUTANTS:
            if mutants.setdefault((mutant.variant, mutant.name), mutant) is not mutant:
                raise ValueError(f"two mutants of {mutant.variant} are called {mutant.name!r}")
    return tuple(mutants.values())


def kill(law: Law, mutant: Mutant, table: Table) -> Kill | None:
    """Return the kill of `mutant` by `law`, or None where the mutant survives it.

    A law that says more than agreement does must find what agreement is blind to: it meets every
    fault in the oracle as well, whose bounds are then those of the operation that it makes.
    """
    planted = replace(mutant, in_oracle=mutant.in_oracle or law.about_oracle)
    variant, wrong = planted.plant(table.variant(mutant.variant))
    if law.of_layers and wrong.layer is None:
        return None
    others = {**table.variants, variant.name: variant}
    finding = search(law, variant, wrong, EFFORT, variants=others)
    if finding.outcome not in {Outcome.REFUTED, Outcome.CRASHED}:
        return None
    return Kill(law=law.id, cases=finding.cases)


def kills_of(mutant: Mutant, table: Table) -> list[Kill]:
    """Return every kill of `mutant` by the laws that cost little, the quickest first."""
    laws = [law for law in table.laws_of(table.variant(mutant.variant)) if law.share >= COSTLY]
    found = [kill(law, mutant, table) for law in laws]
    return sorted(filter(None, found), key=lambda k: (k.cases, natural_order(k.law)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mutants`."""
    parser.add_argument("--variant", action="append", default=[], help="only of this variant")
    parser.add_argument("--processes", type=int, default=2, metavar="P")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {EVIDENCE.name}/")


def run(options: argparse.Namespace, table: Table) -> int:
    """Print the table; return 1 where a mutant survives."""
    chosen = {table.variant(name).name for name in options.variant} or table.variants.keys()
    mutants = [mutant for mutant in load_mutants() if mutant.variant in chosen]
    known = dict(_hunted(mutants, options.processes))
    by_mutant, by_law = _by_mutant(mutants, known), _by_law(table, mutants, known)
    print("\n".join((*_lines(by_mutant), "", *_lines(by_law))))
    laws = Counter(k.law for kills in known.values() for k in kills)
    idle = [law.id for law in table.laws.values() if law.id not in laws and law.share >= COSTLY]
    survivors = [m.name for m in mutants if not known[m]]
    blind = sum(m.in_oracle for m in mutants)
    print(f"\n{len(mutants)} mutants, {blind} of them in the oracle as well, "
          f"{len(survivors)} survive; {len(laws)} laws refute one")  # fmt: skip
    if survivors:
        print(f"not refuted: {', '.join(survivors)}")
    if idle and not options.variant:
        print(f"refute none of these: {', '.join(idle)}")
    if options.write:
        print(f"kept in {by_mutant.save(EVIDENCE)} and {by_law.save(EVIDENCE)}")
    return int(bool(survivors))


def _hunted(mutants: Sequence[Mutant], processes: int) -> Iterator[tuple[Mutant, list[Kill]]]:
    work = [list(range(len(mutants)))[i::processes] for i in range(processes)]
    names = [[(mutants[i].variant, mutants[i].name) for i in share] for share in work]
    jobs = [
        Job(session="harness.kills:kill_session", common=None, units=units,
            timeout_s=lambda _: MUTANT_TIMEOUT_S) for units in names
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="convharness-") as scratch:
        pool = Pool(method="spawn", parallel=processes, scratch=Path(scratch))
        for done, report in enumerate(pool.run(jobs), start=1):
            mutant = mutants[work[report.job][report.unit]]
            if report.end is not End.DONE:
                raise RuntimeError(f"{mutant.variant}/{mutant.name}: {report.text}")
            print(f"\r{done}/{len(mutants)} mutants", end="", file=sys.stderr, flush=True)
            yield mutant, report.result
    print(file=sys.stderr)


def kill_session(common: Any, cursor: Any) -> Callable[[tuple[str, str]], list[Kill]]:
    """Load the table in a child; return what hunts a mutant."""
    del common, cursor
    torch.set_num_threads(1)
    table = load_table()
    mutants = {(mutant.variant, mutant.name): mutant for mutant in load_mutants()}
    return lambda key: kills_of(mutants[key], table)


def _by_mutant(mutants: Sequence[Mutant], known: Mapping[Mutant, Sequence[Kill]]) -> Evidence:
    rows = []
    for mutant in mutants:
        kills = known[mutant]
        meaning = [k for k in kills if k.law not in AGREEMENT]
        agreement = [k.cases for k in kills if k.law in AGREEMENT]
        rows.append((
            mutant.variant,
            mutant.name,
            "oracle too" if mutant.in_oracle else "implementation",
            min(agreement) if agreement else "blind" if mutant.in_oracle else "survives",
            ", ".join(f"{k.law} ({k.cases})" for k in meaning[:3]) or "none",
            len(kills),
            statistics.median(k.cases for k in kills) if kills else "-",
        ))  # fmt: skip
    return Evidence(
        name="mutants",
        title="Mutants and the laws that refute them",
        about=(
            "Every mutant is a wrong implementation. Cases until agreement with the oracle refutes "
            "it (blind where the fault is in the oracle as well), the three quickest laws of "
            "meaning with their cases, how many laws refute it, and the median of their cases."
        ),
        made=Made.here("python3 -m harness mutants --write", clock.utc_now(), ROOT),
        columns=("variant", "mutant", "planted in", "agreement", "quickest laws of meaning",
                 "laws", "median cases"),
        rows=tuple(rows),
    )  # fmt: skip


def _by_law(
    table: Table, mutants: Sequence[Mutant], known: Mapping[Mutant, Sequence[Kill]]
) -> Evidence:
    rows = []
    for law in table.laws.values():
        found = sorted(
            (k.cases, m.variant, m.name) for m in mutants for k in known[m] if k.law == law.id
        )
        if found:
            cases, variant, name = found[0]
            rows.append((law.id, law.name, len(found), f"{variant}/{name}", cases))
    return Evidence(
        name="kills",
        title="Laws and the mutants that they refute",
        about=(
            "How many mutants every law refutes, and the one that it refutes after the fewest "
            "cases. Laws of which one case takes seconds are tried on their own mutants in the "
            "tests alone."
        ),
        made=Made.here("python3 -m harness mutants --write", clock.utc_now(), ROOT),
        columns=("law", "name", "mutants", "quickest", "cases"),
        rows=tuple(rows),
    )


def _lines(evidence: Evidence) -> Iterator[str]:
    widths = [max(len(str(c)) for c in (name, *evidence.column(name))) for name in evidence.columns]
    for row in (evidence.columns, *evidence.rows):
        yield "  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
