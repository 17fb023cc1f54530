"""The table of kills: how many cases a law needs to refute a mutant that it meets."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness import clock
from harness.effort import COSTLY, Profile
from harness.evidence import EVIDENCE, Evidence, Made
from harness.isolation import End, Job, Pool
from harness.law import Law
from harness.mutant import Mutant
from harness.results import Outcome
from harness.search import search
from harness.table import Table, load_table

ROOT = Path(__file__).parents[1]
EFFORT = Profile(cases=60, shrink=False)
# One case of every dtype and rank: enough for most, a fifth of the price.
FIRST = Profile(cases=12, shrink=False)
AGREEMENT = ("G1", "G1b")
UNIT_TIMEOUT_S = 600.0


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


def kill(law: Law, mutant: Mutant, table: Table, effort: Profile = EFFORT) -> Kill | None:
    """Return the kill of `mutant` by `law`, or None where the mutant survives it.

    A law that says more than agreement does must find what agreement is blind to: it meets every
    fault in the oracle as well, whose bounds are then those of the operation that it makes.
    """
    planted = replace(mutant, in_oracle=mutant.in_oracle or law.about_oracle)
    variant, wrong = planted.plant(table.variant(mutant.variant))
    if law.of_layers and wrong.layer is None:
        return None
    others = {**table.variants, variant.name: variant}
    finding = search(law, variant, wrong, effort, variants=others)
    if finding.outcome not in {Outcome.REFUTED, Outcome.CRASHED}:
        return None
    return Kill(law=law.id, cases=finding.cases)


def kills_of(mutant: Mutant, table: Table) -> list[Kill]:
    """Return the kill by agreement, and the first by a law of meaning, particular laws first."""
    variant = table.variant(mutant.variant)
    found = (
        [] if mutant.in_oracle else [kill(table.laws[name], mutant, table) for name in AGREEMENT]
    )
    laws = [law for law in table.laws_of(variant) if law.id not in AGREEMENT]
    of_layer = mutant.spoil_layer is not None
    laws.sort(
        key=lambda law: (law.share < COSTLY, law.of_layers != of_layer, _claimants(law, table))
    )
    for effort in (FIRST, EFFORT):
        meant = next(filter(None, (kill(law, mutant, table, effort) for law in laws)), None)
        if meant:
            break
    return [k for k in (*found, meant) if k]


def victim_of(law: Law, table: Table) -> tuple[Mutant, Kill] | None:
    """Return the first mutant that `law` refutes, the general faults first."""
    own = [m for m in load_mutants() if law.requires <= table.variant(m.variant).traits]
    own.sort(key=lambda m: (law.of_layers != (m.spoil_layer is not None), m.variant != "plain"))
    for effort in (FIRST, EFFORT):
        for mutant in own:
            if found := kill(law, mutant, table, effort):
                return mutant, found
    return None


def _claimants(law: Law, table: Table) -> int:
    return sum(law.requires <= variant.traits for variant in table.variants.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mutants`."""
    parser.add_argument("--variant", action="append", default=[], help="only of this variant")
    parser.add_argument("--processes", type=int, default=2, metavar="P")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {EVIDENCE.name}/")


def run(options: argparse.Namespace, table: Table) -> int:
    """Print the tables; return 1 where a mutant survives or a law refutes none."""
    chosen = {table.variant(name).name for name in options.variant} or table.variants.keys()
    mutants = {(m.variant, m.name): m for m in load_mutants() if m.variant in chosen}
    found = dict(_asked("mutant_session", list(mutants), options.processes))
    by_mutant = _by_mutant([(mutants[key], kills) for key, kills in found.items()])
    print("\n".join(_lines(by_mutant)))
    survivors = ["/".join(key) for key, kills in found.items() if not kills]
    blind = sum(mutant.in_oracle for mutant in mutants.values())
    print(f"\n{len(mutants)} mutants, {blind} of them in the oracle as well, "
          f"{len(survivors)} survive: {', '.join(survivors) or 'none'}\n")  # fmt: skip
    if options.variant:
        return int(bool(survivors))
    victims = dict(_asked("law_session", list(table.laws), options.processes))
    by_law = _by_law(table, victims)
    print("\n".join(_lines(by_law)))
    idle = [law_id for law_id in table.laws if victims[law_id] is None]
    print(f"\n{len(table.laws)} laws, {len(idle)} refute nothing: {', '.join(idle) or 'none'}")
    if options.write:
        print(f"kept in {by_mutant.save(EVIDENCE)} and {by_law.save(EVIDENCE)}")
    return int(bool(survivors or idle))


def _asked(session: str, units: Sequence[Any], processes: int) -> Iterator[tuple[Any, Any]]:
    """Yield every unit with what `session` answers, in the order of the units."""
    shares = [list(units)[i::processes] for i in range(processes)]
    jobs = [
        Job(session=f"harness.kills:{session}", common=None, units=share,
            timeout_s=lambda _: UNIT_TIMEOUT_S) for share in shares
    ]  # fmt: skip
    answers = {}
    with tempfile.TemporaryDirectory(prefix="convharness-") as scratch:
        pool = Pool(method="spawn", parallel=processes, scratch=Path(scratch))
        for report in pool.run(jobs):
            unit = shares[report.job][report.unit]
            if report.end is not End.DONE:
                raise RuntimeError(f"{unit}: {report.text}")
            answers[unit] = report.result
            print(f"\r{len(answers)}/{len(units)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    yield from ((unit, answers[unit]) for unit in units)


def mutant_session(common: Any, cursor: Any) -> Callable[[tuple[str, str]], list[Kill]]:
    """Load the table in a child; return what hunts a mutant."""
    del common, cursor
    torch.set_num_threads(1)
    table = load_table()
    mutants = {(mutant.variant, mutant.name): mutant for mutant in load_mutants()}
    return lambda key: kills_of(mutants[key], table)


def law_session(common: Any, cursor: Any) -> Callable[[str], tuple[str, str, int] | None]:
    """Load the table in a child; return what finds a law's mutant: variant, name, cases."""
    del common, cursor
    torch.set_num_threads(1)
    table = load_table()

    def find(law_id: str) -> tuple[str, str, int] | None:
        found = victim_of(table.laws[law_id], table)
        return found and (found[0].variant, found[0].name, found[1].cases)

    return find


def _by_mutant(found: Sequence[tuple[Mutant, Sequence[Kill]]]) -> Evidence:
    rows = []
    for mutant, kills in found:
        agreement = [k.cases for k in kills if k.law in AGREEMENT]
        meaning = [k for k in kills if k.law not in AGREEMENT]
        blind = "blind" if mutant.in_oracle else "survives"
        rows.append((
            mutant.variant,
            mutant.name,
            "oracle too" if mutant.in_oracle else "implementation",
            str(min(agreement)) if agreement else blind,
            meaning[0].law if meaning else "none",
            meaning[0].cases if meaning else 0,
        ))  # fmt: skip
    return Evidence(
        name="mutants",
        title="Mutants and the laws that refute them",
        about=(
            "Every mutant is a wrong implementation. Cases until agreement with the oracle refutes "
            "it (blind where the fault is in the oracle as well), and the first law of meaning that "
            "does, particular laws tried first, with its cases."
        ),
        made=_made(),
        columns=("variant", "mutant", "planted in", "agreement", "law of meaning", "cases"),
        rows=tuple(rows),
    )


def _by_law(table: Table, victims: Mapping[str, tuple[str, str, int] | None]) -> Evidence:
    rows = [
        (law_id, table.laws[law_id].name, f"{found[0]}/{found[1]}", found[2])
        for law_id, found in victims.items() if found
    ]  # fmt: skip
    return Evidence(
        name="kills",
        title="Laws and mutants that they refute",
        about="For every law the first mutant that it refutes, general faults tried first.",
        made=_made(),
        columns=("law", "name", "mutant", "cases"),
        rows=tuple(rows),
    )


def _made() -> Made:
    return Made.here("python3 -m harness mutants --write", clock.utc_now(), ROOT)


def _lines(evidence: Evidence) -> Iterator[str]:
    widths = [max(len(str(c)) for c in (name, *evidence.column(name))) for name in evidence.columns]
    for row in (evidence.columns, *evidence.rows):
        yield "  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
