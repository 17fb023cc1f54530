"""The search of a performance law: draw, screen, confirm in fresh processes, make small.

Who is found slow once may have been disturbed. What counts is what a second, independent run finds
again with its whole interval; then it walks down to the smallest case that still shows it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness import clock
from harness.case import ConvCase
from harness.contest import Rules
from harness.evidence import Evidence, Made
from harness.gate import unproved
from harness.neighbours import descend
from harness.plan import Cell
from harness.terminal import write_lines
from harness.variant import Variant

SCREEN, CONFIRM, SHRINK = Rules(1, 5), Rules(5, 20), Rules(3, 8)
AT_ONCE = 12
SEEDS = 10
"""A round uses several."""

UNPROVED = "UNPROVED"
"""Said of whoever is not what the oracle says: neither slow nor quick."""

Row = TypeVar("Row")
Suspect = TypeVar("Suspect")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt(Generic[Suspect, Found]):
    """What one performance law looks for.

    Args:
        command: The words of its command.
        draw: Gives suspects of a variant from a seed.
        kept: Suspects that were found before.
        cells: What is timed of a suspect, and proved before.
        doubtful: Which of some suspects a short run finds slow, in their order.
        confirm: Judges one again, from a seed until a moment, and makes it small.
        line: Shows what was found at a terminal.
        named: Names a suspect in a line.
        table: Makes the table of what was found, who is not proved (with reasons), how many were
            looked at, the seed, and how it came about.
    """

    command: str
    draw: Callable[[Variant, int], list[Suspect]]
    kept: list[Suspect]
    cells: Callable[[Suspect], Sequence[Cell]]
    doubtful: Callable[[Sequence[Suspect], int], Sequence[bool]]
    confirm: Callable[[Suspect, int, float, dict[Suspect, str]], Found | None]
    line: Callable[[Found], str]
    named: Callable[[Suspect], str]
    table: Callable[[Sequence[Found], Mapping[Suspect, str], int, int, Made], Evidence]


def search(
    hunt: Hunt[Suspect, Any], options: argparse.Namespace, variants: Sequence[Variant], folder: Path
) -> int:
    """Search until the budget is spent; return 1 where something was found or is not proved.

    Args:
        hunt: What for.
        options: `variant`, `budget_s`, `seed`, `write` as the command line gave them.
        variants: Where.
        folder: Where the table is kept.
    """
    started, deadline = clock.utc_now(), clock.monotonic_s() + options.budget_s
    seed = random.SystemRandom().randrange(2**20) if options.seed is None else options.seed
    looked, found, wrong = 0, [], dict[Suspect, str]()
    for number, drawn in rounds(hunt.draw, hunt.kept, variants, seed, deadline):
        looked += len(drawn)
        bad = unproved({one: hunt.cells(one) for one in drawn})
        write_lines([f"{UNPROVED} {hunt.named(one)}: {reason}" for one, reason in bad.items()])
        wrong |= bad
        some = [one for one in drawn if one not in bad]
        slow = hunt.doubtful(some, number) if some else []
        doubtful = [one for one, is_slow in zip(some, slow, strict=True) if is_slow]
        write_lines([f"{len(drawn)} looked at, {len(doubtful)} doubtful, {len(bad)} not proved"])
        for one in doubtful:
            if clock.monotonic_s() > deadline:
                break
            found_wrong: dict[Suspect, str] = {}
            worst = hunt.confirm(one, number, deadline, found_wrong)
            write_lines([f"{UNPROVED} {hunt.named(s)}: {why}" for s, why in found_wrong.items()])
            wrong |= found_wrong
            if worst is not None:
                found.append(worst)
                write_lines([hunt.line(worst)])
    words = [f"--variant {name}" for name in options.variant]
    words += [f"--budget-s {options.budget_s:g}", f"--seed {seed}", "--write"]
    made = Made.here(" ".join([f"python3 -m harness {hunt.command}", *words]), started)
    evidence = hunt.table(found, wrong, looked, seed, made)
    write_lines([evidence.about])
    if options.write:
        write_lines([f"kept in {evidence.save(folder)}"])
    return int(bool(found or wrong))


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
