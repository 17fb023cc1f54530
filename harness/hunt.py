"""The search of a performance law: draw, screen, confirm in fresh processes, make small.

Who is found slow once may have been disturbed. What counts is what a second, independent run finds
again with its whole interval; then it walks down to the smallest case that still shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from harness import clock
from harness.case import ConvCase
from harness.contest import Rules
from harness.neighbours import descend
from harness.variant import Variant

SCREEN, CONFIRM, SHRINK = Rules(1, 5), Rules(5, 20), Rules(3, 8)
AT_ONCE = 12
SEEDS = 10
"""A round uses several."""

Row = TypeVar("Row")
Suspect = TypeVar("Suspect")


def confirmed(
    case: ConvCase, variant: Variant, judge: Callable[[ConvCase, Rules, int], Row | None],
    fails: Callable[[Row], bool], seed: int, deadline_s: float,
) -> tuple[ConvCase, Row] | None:  # fmt: skip
    """Judge a doubtful case again; shrink what fails there, and judge that, too.

    Args:
        case: What was doubtful in a first run.
        variant: Whose case it is.
        judge: Measures a case in fresh processes; None where there is nothing to measure.
        fails: Whether the law is violated, by the whole interval.
        seed: Of the orders; the next four are used.
        deadline_s: Moment of `clock.monotonic_s` when the walk ends.
    """

    def failing(candidate: ConvCase, rules: Rules, number: int) -> Row | None:
        row = judge(candidate, rules, number)
        return row if row is not None and fails(row) else None

    def shows(candidate: ConvCase) -> bool | None:
        if clock.monotonic_s() > deadline_s:
            return None
        return failing(candidate, SHRINK, seed + 2) is not None

    if failing(case, CONFIRM, seed + 1) is None:
        return None
    smallest, _ = descend(case, variant, shows)
    if row := failing(smallest, CONFIRM, seed + 3):
        return smallest, row
    # the walk went one step too far: what was confirmed stands
    row = failing(case, CONFIRM, seed + 4)
    return None if row is None else (case, row)


def rounds(
    draw: Callable[[Variant, int], list[Suspect]], kept: list[Suspect],
    variants: Sequence[Variant], seed: int, deadline_s: float,
) -> Iterator[tuple[int, list[Suspect]]]:  # fmt: skip
    """Yield suspects with a seed, one variant after another: first those that were found before."""
    if kept:
        yield seed, kept
    number = seed
    while clock.monotonic_s() < deadline_s:
        before = number
        for variant in variants:
            some = draw(variant, number)
            if some and clock.monotonic_s() < deadline_s:
                number += SEEDS
                yield number, some
        if number == before:
            return  # nothing to look at in any variant
