"""The performance law: the cost grows no faster than declared.

Hypothesis draws layers and the size that grows, the clock judges, a violation is repeated in fresh
processes and made small.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from harness import growth, hunt
from harness.case import ConvCase
from harness.contest import Rules
from harness.evidence import EVIDENCE, Evidence, Made, load_evidence
from harness.gate import unproved
from harness.growth import AXES, COLUMNS, TOLERATED, Growth, Ladder, Verdict, cells_of, line_of
from harness.losses import MOST_MACS, layers
from harness.table import Table
from harness.variant import Need, Variant

SEARCHED = {"image": (1, 2, 4), "channels": (1, 2, 4), "kernel": (0, 2, 4), "batch": (1, 2, 4)}
"""The ladders of the search: short, so that many are looked at."""
FOUND = "overgrowth"


class Violation(NamedTuple):
    """A confirmed violation, shrunk."""

    found: Growth
    case: str


def suspects(variant: Variant, seed: int, count: int = hunt.AT_ONCE) -> list[Ladder]:
    """Draw so many ladders of implementations that declare a cost."""
    able = [
        i for i in variant.implementations
        if i.cost is not None and i.missing() is None
        and not i.needs & {Need.COMPILER, Need.CUDA, Need.TRITON}
    ]  # fmt: skip
    found: list[Ladder] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=4 * count, database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @hypothesis.given(
        layers(variant), st.sampled_from(able), st.sampled_from(AXES),
        st.sampled_from(("forward", "backward")),
    )  # fmt: skip
    def look(case: ConvCase, implementation: object, axis: str, direction: str) -> None:
        name = implementation.name  # type: ignore[attr-defined]
        one = Ladder(variant.name, name, direction, axis, SEARCHED[axis], str(case))
        if len(found) < count and _is_usable(one, variant, implementation):
            found.append(one)

    if able:
        look()
    return found


def _is_usable(ladder: Ladder, variant: Variant, implementation: object) -> bool:
    rungs = ladder.rungs(variant, implementation)  # type: ignore[arg-type]
    return len(rungs) >= growth.LEAST_RUNGS and rungs[-1].macs <= MOST_MACS


def confirmed(
    table: Table, ladder: Ladder, seed: int, deadline_s: float, wrong: dict[Ladder, str]
) -> Violation | None:  # fmt: skip
    """Judge a doubtful ladder again in fresh processes, and make its first rung small.

    What is not proved on the way is added to `wrong`.
    """

    def judge(case: ConvCase, rules: Rules, number: int) -> Growth | None:
        candidate = ladder._replace(case=str(case))
        if bad := unproved({candidate: candidate.cells(table)}):
            wrong.update(bad)
            return None
        return growth.judge([candidate], rules, number)[0][0]

    case, variant = ConvCase.parse(ladder.case), table.variant(ladder.variant)
    found = hunt.confirmed(case, variant, judge, _is_beyond, seed, deadline_s)
    return None if found is None else Violation(found[1], str(found[0]))


def _is_beyond(row: Growth) -> bool:
    return row.verdict is Verdict.BEYOND


def _is_doubtful(row: Growth | None) -> bool:
    return row is not None and row.declared is not None and row.exponent > row.declared + TOLERATED


def run(options: argparse.Namespace, table: Table, variants: Sequence[Variant]) -> int:
    """Search until the budget is spent; return 1 where a violation was found."""
    names = {variant.name for variant in variants}

    def doubtful(some: Sequence[Ladder], seed: int) -> list[bool]:
        return [_is_doubtful(row) for row in growth.judge(some, hunt.SCREEN, seed)[0]]

    return hunt.search(
        hunt.Hunt(
            command="growth --search", draw=suspects,
            kept=[one for one in _kept() if one.variant in names],
            cells=lambda one: one.cells(table), doubtful=doubtful,
            confirm=partial(confirmed, table),
            line=lambda one: f"{line_of(one.found)} from {one.case} on",
            named=lambda one: one.entry.case, table=violations,
        ),
        options, variants, EVIDENCE,
    )  # fmt: skip


def _kept() -> list[Ladder]:
    for evidence in load_evidence(EVIDENCE):
        if evidence.name == FOUND:
            names = ("variant", "implementation", "direction", "size", "smallest case")
            rows = zip(*(map(str, evidence.column(name)) for name in names), strict=True)
            return [Ladder(v, i, d, a, SEARCHED[a], c) for v, i, d, a, c in rows]
    return []


def replay_of(violation: Violation) -> str:
    """Return the command that sweeps a violation again."""
    one = violation.found.ladder
    return (
        f"python3 -m harness growth --variant {one.variant} --implementation {one.implementation} "
        f"--direction {one.direction} --axis {one.axis} --case '{violation.case}'"
    )


def violations(
    found: Sequence[Violation], wrong: Mapping[Ladder, str], looked: int, seed: int, made: Made
) -> Evidence:
    """Return the table of what a search found; who is not proved has a row without an exponent."""
    return Evidence(
        name=FOUND,
        title="Where the time grows faster than declared",
        about=(
            f"{looked} ladders of three sizes drawn from seed {seed} on; in {len(found)} the time "
            f"grew with an exponent of more than {TOLERATED} above the declared one, and again "
            f"in a second run of {hunt.CONFIRM.processes} fresh processes, one thread; every one was made "
            "smaller as long as it stayed one and time was left. Everything was compared with the "
            f"oracle before it was timed; in {len(wrong)} a size was not what the oracle says."
        ),
        made=made,
        columns=(*COLUMNS, "smallest case", "replay"),
        rows=tuple(
            (
                one.variant,
                one.implementation,
                one.direction,
                one.axis,
                *[""] * 4,
                hunt.UNPROVED,
                one.case,
                reason,
            )
            for one, reason in wrong.items()
        )
        + tuple((*cells_of(one.found), one.case, replay_of(one)) for one in found),
    )
