"""Judge laws over implementations and write the verdicts down."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness import flight
from harness.case import ConvCase
from harness.corpus import load_corpus
from harness.effort import PROFILES
from harness.isolation import End, Job, Pool
from harness.law import Law
from harness.results import Outcome, Verdict
from harness.search import Finding, search
from harness.table import Table, every_form, load_table
from harness.variant import Implementation, Kind, Need, Variant

BAD = (Outcome.REFUTED, Outcome.CRASHED, Outcome.MISTRUSTED)
PROPERTIES = Path(__file__).parents[1] / "properties"
PACKAGES = ("impls.", "properties.laws.")
UNIT_TIMEOUT_S = 120.0


def pairs(
    table: Table, variants: Sequence[str] = (), implementations: Sequence[str] = (),
    laws: Sequence[str] = (),
) -> Iterator[tuple[Law, Variant, Implementation]]:  # fmt: skip
    """Yield what applies to what: every selected law, variant and implementation.

    The oracle is judged by the laws that say more than agreement with it. Compiled forms are left
    to whoever names them: compiling a new geometry takes seconds.

    Raises:
        UnknownName: a selected name that the table does not hold.
    """
    chosen = [table.variant(name) for name in variants or table.variants]
    wanted = {table.law(name).id for name in laws}
    for variant in chosen:
        judged = _chosen(table, variant, implementations, bool(variants))
        for law in table.laws_of(variant):  # law by law: what the oracle says of a case is shared
            for implementation in judged:
                if (not wanted or law.id in wanted) and meets(law, implementation):
                    yield law, variant, implementation


def meets(law: Law, implementation: Implementation) -> bool:
    """Return whether `law` has anything to say about `implementation`."""
    if law.of_layers:
        return implementation.layer is not None
    if implementation.kind is Kind.LAYER:
        return False
    return law.about_oracle or implementation.kind is not Kind.ORACLE


def _chosen(
    table: Table, variant: Variant, names: Sequence[str], strict: bool
) -> list[Implementation]:
    known = every_form(variant)
    if not names:
        return [i for i in known if Need.COMPILER not in i.needs]
    if strict:
        return [table.implementation(variant, name) for name in names]
    return [i for i in known if i.name in names]


def as_verdict(
    run_id: str, law: Law, variant: Variant, implementation: Implementation, finding: Finding,
    replay: str = "",
) -> Verdict:  # fmt: skip
    """Return the row that records `finding`."""
    return Verdict(
        run_id=run_id,
        law=law.id,
        law_name=law.name,
        variant=variant.name,
        implementation=implementation.name,
        status=finding.outcome,
        cases=finding.cases,
        case=str(finding.case or ""),
        detail=finding.screen,
        replay=replay or finding.replay,
        error_over_bound=finding.error_over_bound if finding.outcome is Outcome.HOLDS else None,
        counts=finding.counts,
        gaps=finding.gaps,
        script=finding.script,
        tightness=finding.tightness,
        vacuous=finding.vacuous,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Court:
    """What a child needs to know to judge: the table, how hard, on which device.

    `flights` is the folder where it notes what it tries; `seed` takes the place of the profile's.
    """

    plugins: tuple[str, ...]
    profile: str
    device: str
    flights: str = ""
    seed: int | None = None


Unit = tuple[str, str, str]
"""Variant, implementation, id of the law."""


def judge(
    table: Table, court: Court, units: Sequence[Unit], *, run_id: str, parallel: int = 1,
    deadline_s: float | None = None,
) -> Iterator[Verdict]:  # fmt: skip
    """Yield the verdict of every unit, found in processes of their own, as it becomes known.

    A unit that ends its process, or gives no answer in `UNIT_TIMEOUT_S`, is CRASHED, and the case
    that did it is named; the units after it go on in a new process. What `deadline_s` cuts off
    yields nothing.
    """
    by_variant: dict[str, list[Unit]] = {}
    for unit in units:
        by_variant.setdefault(unit[0], []).append(unit)
    work = list(by_variant.values())
    with tempfile.TemporaryDirectory(prefix="convharness-") as scratch:
        common = replace(court, flights=scratch)
        jobs = [
            Job(session="harness.judge:judge_session", common=common, units=some,
                timeout_s=lambda _: UNIT_TIMEOUT_S) for some in work
        ]  # fmt: skip
        pool = Pool(
            method="forkserver",
            parallel=parallel,
            scratch=Path(scratch),
            preload=("harness.judge", *(m for m in sys.modules if m.startswith(PACKAGES))),
            environment={"OMP_NUM_THREADS": "1"},
            deadline_s=deadline_s,
        )
        for report in pool.run(jobs):
            name, implementation, law_id = work[report.job][report.unit]
            if report.end is End.OUT_OF_TIME:
                continue
            finding = report.result
            if report.end is not End.DONE:
                finding = lost(report.text, flight.last(scratch, name))
            variant = table.variant(name)
            yield as_verdict(
                run_id, table.law(law_id), variant, table.implementation(variant, implementation),
                finding,
            )  # fmt: skip


def lost(reason: str, tried: str) -> Finding:
    """Return the finding about a pair whose process is gone, with what it tried last."""
    cell, _, line = tried.partition(" ")
    if not line:
        return Finding(outcome=Outcome.CRASHED, cases=0, screen=reason)
    replay = f"python3 -m harness check '{cell} {line}'"
    screen = f"{reason}\ncase:     {line}\nreplay:   {replay}"
    return Finding(
        outcome=Outcome.CRASHED, cases=0, case=ConvCase.parse(line), screen=screen, replay=replay
    )


def judge_session(court: Court, cursor: Any) -> Callable[[Unit], Finding]:
    """Load the table in a child; return what judges a unit."""
    del cursor
    torch.set_num_threads(1)  # on tensors this small a second thread costs three times its worth
    table = load_table(court.plugins)
    corpus = load_corpus(PROPERTIES / "corpus")
    profile = PROFILES[court.profile]
    if court.seed is not None:
        profile = replace(profile, seed=court.seed)

    def find(unit: Unit) -> Finding:
        flight.fly_as(unit[0], court.flights)
        variant, law = table.variant(unit[0]), table.law(unit[2])
        return search(
            law, variant, table.implementation(variant, unit[1]), profile,
            device=court.device, variants=table.variants,
            first=[case for name, law_id, case in corpus if (name, law_id) == (unit[0], law.id)],
        )  # fmt: skip

    return find
