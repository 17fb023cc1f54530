"""Goals: what an operation may cost at most against another, and whether the table gets there.

A goal is met where the whole interval of the ratio is below the limit, missed where it is above,
and UNRESOLVED between: a figure alone decides nothing.
"""

from __future__ import annotations

import importlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import torch

from harness.case import ConvCase
from harness.comparison import Comparison, summarize
from harness.contest import Entry, Rules, compete, runner
from harness.proof import Call, measure_memory
from harness.selection import fastest
from harness.table import Table, load_table
from harness.tensors import make_tensors
from harness.variant import Implementation, Variant

MODULE = "properties.goals"
RIVAL, BARE, CALLED = "rival", "implementation", "functional form"
MEMORY = "memory"


class Reach(StrEnum):
    """Whether a goal is met."""

    MET = "MET"
    MISSED = "MISSED"
    UNRESOLVED = "UNRESOLVED"


class Rival(NamedTuple):
    """What a goal is measured against: an implementation of some variant on a case."""

    variant: str
    implementation: str
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What an operation may cost at most.

    Args:
        operation: What is measured, in words.
        variant: The variant; its fastest implementation runs.
        cases: `name -> descriptor`.
        against: What every case is measured against.
        limits: The largest ratio, by `forward`, `backward` (forward and backward) or `memory`
            (the peak of a training step).
        share: What share of the rival's work a case needs; limits are times its geometric mean.
        every: Whether each case must keep the limit, not only the geometric mean.
    """

    operation: str
    variant: str
    cases: Mapping[str, str]
    against: Callable[[ConvCase], Rival]
    limits: Mapping[str, float]
    share: Callable[[ConvCase], float] = field(default=lambda _: 1.0)
    every: bool = False

    def limit(self, direction: str) -> float:
        """Return the largest ratio, shares counted in."""
        shares = [math.log(self.share(ConvCase.parse(line))) for line in self.cases.values()]
        return self.limits[direction] * math.exp(statistics.fmean(shares))


class Result(NamedTuple):
    """What one goal came to in one direction; `called` is the ratio of the functional form."""

    goal: Goal
    direction: str
    limit: float
    ratio: float
    low: float
    high: float
    reach: Reach
    slowest: str
    called: float | None = None


def load_goals() -> tuple[Goal, ...]:
    """Return the goals of this project."""
    goals: tuple[Goal, ...] = importlib.import_module(MODULE).GOALS
    return goals


def judge_goals(goals: Sequence[Goal], rules: Rules, device: str = "cpu") -> Iterator[Result]:
    """Measure goals, every direction that they limit."""
    table, known = load_table(), load_goals()
    for goal in goals:
        for direction in goal.limits:
            if direction == MEMORY:
                with torch.enable_grad():
                    result = _of_memory(table, goal, device)
                yield result
                continue
            number = known.index(goal)
            entries = [
                Entry(f"{__name__}:contest", f"{number} {direction} {name}", device)
                for name in goal.cases
            ]
            yield _of_time(goal, direction, compete(entries, rules))


def contest(words: str, device: str) -> dict[str, Callable[[], Any]]:
    """Make what one case of a goal compares; `words` are `number direction case`."""
    number, direction, name = words.split(" ")
    goal, table = load_goals()[int(number)], load_table()
    variant, case = table.variant(goal.variant), ConvCase.parse(goal.cases[name])
    torch.set_grad_enabled(direction == "backward")
    own = make_tensors(variant, case, device)
    form = Implementation(name=CALLED, load=lambda: _functional(variant))
    contenders = {
        RIVAL: _rival(table, goal, case, direction, device),
        BARE: (Call(variant, fastest(variant, case, device), case, direction), own),
        CALLED: (Call(variant, form, case, direction), own),
    }
    return {label: runner(*contender) for label, contender in contenders.items()}


def _rival(
    table: Table, goal: Goal, case: ConvCase, direction: str, device: str
) -> tuple[Call, Mapping[str, Any]]:
    name, implementation, line = goal.against(case)
    variant, other = table.variant(name), ConvCase.parse(line)
    contender = Call(variant, table.implementation(variant, implementation), other, direction)
    return contender, make_tensors(variant, other, device)


def _functional(variant: Variant) -> Callable[..., Any]:
    form: Callable[..., Any] = importlib.import_module(f"impls.{variant.name}").functional
    return form


# -- judging -----------------------------------------------------------------------------------


def _of_time(goal: Goal, direction: str, rows: Sequence[Comparison]) -> Result:
    bare = [row for row in rows if row.implementation == BARE]
    means = {mean.implementation: mean for mean in summarize(rows)}
    mean, slowest = means[BARE], max(bare, key=lambda row: row.ratio or 0.0)
    ratio, low, high = mean.ratio, mean.ratio_low, mean.ratio_high
    if goal.every:
        ratio = slowest.ratio
        low = max(row.ratio_low or 0.0 for row in bare)
        high = max(row.ratio_high or math.inf for row in bare)
    if ratio is None or low is None or high is None:
        ratio, low, high = ratio or math.nan, 0.0, math.inf
    limit = goal.limit(direction)
    words = f"{slowest.case.split(' ')[2]} {slowest.ratio or math.nan:.2f}"
    return Result(
        goal, direction, limit, ratio, low, high, _reach(low, high, limit), words,
        means[CALLED].ratio,
    )  # fmt: skip


def _of_memory(table: Table, goal: Goal, device: str) -> Result:
    ratios = {}
    variant = table.variant(goal.variant)
    for name, line in goal.cases.items():
        case = ConvCase.parse(line)
        bare = Call(variant, fastest(variant, case, device), case, "backward")
        own, _ = measure_memory(bare, make_tensors(variant, case, device), device)
        other, _ = measure_memory(*_rival(table, goal, case, "backward", device), device)
        ratios[name] = own / other
    slowest = max(ratios, key=lambda name: ratios[name])
    mean = math.exp(statistics.fmean(map(math.log, ratios.values())))
    ratio, limit = ratios[slowest] if goal.every else mean, goal.limit(MEMORY)
    words = f"{slowest} {ratios[slowest]:.2f}"
    return Result(goal, MEMORY, limit, ratio, ratio, ratio, _reach(ratio, ratio, limit), words)


def _reach(low: float, high: float, limit: float) -> Reach:
    if high <= limit:
        return Reach.MET
    return Reach.MISSED if low > limit else Reach.UNRESOLVED
