"""Judge laws over implementations and write the verdicts down."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch

from harness.case import ConvCase
from harness.law import Law
from harness.results import Outcome, Recorder, Verdict
from harness.search import PROFILES, Finding, search
from harness.table import Table, every_form
from harness.variant import Implementation, Kind, Need, Variant

BAD = (Outcome.REFUTED, Outcome.CRASHED, Outcome.MISTRUSTED)


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
                if (not wanted or law.id in wanted) and _meets(law, implementation):
                    yield law, variant, implementation


def _meets(law: Law, implementation: Implementation) -> bool:
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
    )


def judge(
    table: Table, *, run_id: str, recorder: Recorder, variants: Sequence[str] = (),
    implementations: Sequence[str] = (), profile_name: str = "dev", device: str = "cpu",
    report: Callable[[Verdict], None] = lambda _: None,
    corpus: Sequence[tuple[str, str, ConvCase]] = (),
) -> int:  # fmt: skip
    """Search every selected pair, record each verdict as it comes; return how many are bad."""
    profile = PROFILES[profile_name]
    bad = 0
    with _one_thread():
        for law, variant, implementation in pairs(table, variants, implementations):
            first = [c for name, law_id, c in corpus if (name, law_id) == (variant.name, law.id)]
            finding = search(
                law, variant, implementation, profile, device=device, variants=table.variants,
                first=first,
            )  # fmt: skip
            row = as_verdict(run_id, law, variant, implementation, finding)
            recorder.add(row)
            report(row)
            bad += row.status in BAD
    return bad


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On tensors as small as the drawn ones a second thread costs three times what it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
