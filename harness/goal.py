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

from harness.bound_call import copied
from harness.case import ConvCase
from harness.check import Refuted, Trial
from harness.comparison import CONFIDENCE, Comparison, GeometricMean, summarize
from harness.contest import Entry, Rules, compete, runner
from harness.gate import answered, in_children
from harness.isolation import End
from harness.memory import measure_memory
from harness.proof import Call, Common, Question, compare, load_answer, refutation_text
from harness.selection import fastest
from harness.table import load_table
from harness.tensors import make_tensors
from harness.variant import Implementation, Value, Variant

MODULE = "properties.goals"
RIVAL, BARE, CALLED, FLOOR = "rival", "implementation", "functional form", "floor"
MEMORY = "memory"


class Reach(StrEnum):
    """Whether a goal is met."""

    MET = "MET"
    MISSED = "MISSED"
    UNRESOLVED = "UNRESOLVED"
    UNPROVED = "UNPROVED"


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
        floor: `floor(case, direction, device)` makes a call of those bare tensor operations that
            no form of the operation avoids; it is timed beside it.
    """

    operation: str
    variant: str
    cases: Mapping[str, str]
    against: Callable[[ConvCase], Rival]
    limits: Mapping[str, float]
    share: Callable[[ConvCase], float] = field(default=lambda _: 1.0)
    every: bool = False
    floor: Callable[[ConvCase, str, str], Callable[[], Any]] | None = None

    def limit(self, direction: str) -> float:
        """Return the largest ratio, shares counted in."""
        shares = [math.log(self.share(ConvCase.parse(line))) for line in self.cases.values()]
        return self.limits[direction] * math.exp(statistics.fmean(shares))


class Layer(NamedTuple):
    """What one case of a goal came to: the ratio and its interval, as in `Result`."""

    name: str
    ratio: float | None
    low: float | None
    high: float | None
    called: float | None = None
    floor: float | None = None


class Result(NamedTuple):
    """What one goal came to in one direction; no ratio where a contender is not proved.

    `called` is the ratio of the functional form, `placebo` how far the rival is from itself at most,
    `floor` and `floor_low` the ratio of the floor and where its interval begins, `layers` what the
    cases came to one by one.
    """

    goal: Goal
    direction: str
    limit: float
    ratio: float | None
    low: float | None
    high: float | None
    reach: Reach
    slowest: str
    called: float | None = None
    placebo: float | None = None
    floor: float | None = None
    floor_low: float | None = None
    reason: str = ""
    layers: tuple[Layer, ...] = ()

    @property
    def is_barred(self) -> bool:
        """Whether already the bare operations are dearer than the limit."""
        return self.floor_low is not None and self.floor_low > self.limit


def load_goals() -> tuple[Goal, ...]:
    """Return the goals of this project."""
    goals: tuple[Goal, ...] = importlib.import_module(MODULE).GOALS
    return goals


def judge_goals(goals: Sequence[Goal], rules: Rules, device: str = "cpu") -> Iterator[Result]:
    """Measure goals, every direction that they limit, what is proved of them alone."""
    known = load_goals()
    for goal in goals:
        number = known.index(goal)
        trials = [Trying(number, d, name) for d in goal.limits for name in goal.cases]
        tried = prove(goal, trials, device, rules.threads)
        for direction in goal.limits:
            found = {one.name: tried[one] for one in trials if one.direction == direction}
            if reasons := [f"{name}: {one.reason}" for name, one in found.items() if one.reason]:
                yield unproved(goal, direction, reasons)
            elif direction == MEMORY:
                yield _of_memory(goal, found)
            else:
                entries = [
                    Entry(f"{__name__}:contest", f"{number} {direction} {name}", device)
                    for name in goal.cases
                ]
                try:
                    result = _of_time(goal, direction, compete(entries, rules))
                except RuntimeError as error:  # a process was lost: a row, not the end
                    result = unproved(goal, direction, [str(error)])
                yield result


class Trying(NamedTuple):
    """A case of a goal: the goal's number, the direction, the case's name."""

    number: int
    direction: str
    name: str


class Tried(NamedTuple):
    """What became of a case before it is timed; `reason` is empty where all is proved.

    `least_bytes` are those of the outputs and gradients: they are all there when a step ends.
    """

    reason: str = ""
    own_bytes: int = 0
    rival_bytes: int = 0
    least_bytes: int = 0


def prove(
    goal: Goal, trials: Sequence[Trying], device: str = "cpu", threads: int = 1
) -> dict[Trying, Tried]:
    """Compare every contender of every case with the oracle, in a child; return what was found."""
    rivals = (goal.against(ConvCase.parse(goal.cases[one.name])) for one in trials)
    asked = [Question(goal.variant, goal.cases[one.name]) for one in trials]
    asked += [Question(rival.variant, _canonical(rival.case)) for rival in rivals]
    found = {}
    with answered(list(dict.fromkeys(asked)), device, threads) as common:
        for unit, report in in_children(f"{__name__}:proof_session", common, trials):
            failed = Tried(f"{report.end.value}: {report.text}")
            found[unit] = report.result if report.end is End.DONE else failed
    return found


def proof_session(common: Common, cursor: Any) -> Callable[[Trying], Tried]:
    """Return what proves the contenders of one case, and measures their memory if asked to."""
    del cursor
    torch.set_num_threads(common.threads)

    def examine(one: Trying) -> Tried:
        backward = one.direction != "forward"
        peaks: dict[str, int] = {}
        least = 0
        with torch.set_grad_enabled(backward):
            for label, contender in contenders(*one, common.device).items():
                variant, implementation, line, tensors = contender
                case = ConvCase.parse(line)
                call = Call(variant, implementation, case, "backward" if backward else "forward")
                trial = Trial(variant, implementation, case, common.device)
                try:
                    got = copied(call.read(call(call.bind(tensors)), tensors))
                    compare(trial, call, got, load_answer(common.answers, variant.name, line))
                except Refuted as error:
                    return Tried(f"{label}: {refutation_text(error)}")
                if one.direction == MEMORY and label != CALLED:
                    peaks[label], _ = measure_memory(call, tensors, common.device)
                if label == BARE:
                    least = sum(tensor.nbytes for part in got for tensor in part.values())
        return Tried("", peaks.get(BARE, 0), peaks.get(RIVAL, 0), least)

    return examine


class Contender(NamedTuple):
    """What takes part: an implementation of a variant, on a case and its tensors."""

    variant: Variant
    implementation: Implementation
    case: str
    tensors: dict[str, Value]


def contenders(number: int, direction: str, name: str, device: str) -> dict[str, Contender]:
    """Return what one case of a goal compares, the rival first."""
    del direction
    goal, table = load_goals()[number], load_table()
    variant, case = table.variant(goal.variant), ConvCase.parse(goal.cases[name])
    rival = goal.against(case)
    theirs, other = table.variant(rival.variant), ConvCase.parse(rival.case)
    own = make_tensors(variant, case, device)
    form = Implementation(name=CALLED, load=lambda: _functional(variant))
    return {
        RIVAL: Contender(
            theirs, table.implementation(theirs, rival.implementation), str(other),
            make_tensors(theirs, other, device),
        ),
        BARE: Contender(variant, fastest(variant, case, device), str(case), own),
        CALLED: Contender(variant, form, str(case), own),
    }  # fmt: skip


def contest(words: str, device: str) -> dict[str, Callable[[], Any]]:
    """Make what one case of a goal compares; `words` are `number direction case`."""
    number, direction, name = words.split(" ")
    torch.set_grad_enabled(direction == "backward")
    runs = {
        label: runner(
            Call(one.variant, one.implementation, ConvCase.parse(one.case), direction), one.tensors
        )
        for label, one in contenders(int(number), direction, name, device).items()
    }
    goal = load_goals()[int(number)]
    if goal.floor is not None:
        runs[FLOOR] = goal.floor(ConvCase.parse(goal.cases[name]), direction, device)
    return runs


def _canonical(line: str) -> str:
    return str(ConvCase.parse(line))


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
        low = max(_low_end(row, len(bare)) for row in bare)
        high = max(row.ratio_high or math.inf for row in bare)
    if ratio is None or low is None or high is None:
        low, high = 0.0, math.inf
    limit = goal.limit(direction)
    words = f"{_name_of(slowest)} {slowest.ratio or math.nan:.2f}"
    null = [abs((row.ratio or 1.0) - 1) for row in rows if row.placebo]
    # the clock of a device leaves out what a call does before it is enqueued
    on_cpu = slowest.device == "cpu"
    called = means[CALLED].ratio if on_cpu else None
    beside = {(row.implementation, row.case): row.ratio for row in rows if not row.placebo}
    layers = tuple(
        Layer(
            _name_of(row), row.ratio, row.ratio_low, row.ratio_high,
            beside[CALLED, row.case] if on_cpu else None, beside.get((FLOOR, row.case)),
        )
        for row in bare
    )  # fmt: skip
    return Result(
        goal, direction, limit, ratio, low, high, _reach(low, high, limit), words,
        called, max(null, default=None), *_of_floor(goal, slowest.case, rows, means), layers=layers,
    )  # fmt: skip


def _name_of(row: Comparison) -> str:
    """Return the name of a case, of which a contest's are `number direction name`."""
    return row.case.split(" ")[2]


def _low_end(row: Comparison, rows: int) -> float:
    """Return where an interval begins, at a confidence at which those of all rows hold."""
    from scipy import stats

    logs = [math.log(ratio) for ratio in row.process_ratios]
    if len(logs) < 2:
        return 0.0
    if len(set(logs)) == 1:
        return math.exp(logs[0])
    level = 1 - (1 - CONFIDENCE) / rows
    return math.exp(float(stats.ttest_1samp(logs, 0.0).confidence_interval(level).low))


def _of_floor(
    goal: Goal, slowest: str, rows: Sequence[Comparison], means: Mapping[str, GeometricMean]
) -> tuple[float | None, float | None]:
    """Return the floor's ratio and where its interval begins: of the case that decides, or all."""
    if goal.floor is None:
        return None, None
    if goal.every:
        one = next(row for row in rows if row.implementation == FLOOR and row.case == slowest)
        return one.ratio, one.ratio_low
    return means[FLOOR].ratio, means[FLOOR].ratio_low


def _of_memory(goal: Goal, found: Mapping[str, Tried]) -> Result:
    ratios = {name: tried.own_bytes / tried.rival_bytes for name, tried in found.items()}
    slowest = max(ratios, key=lambda name: ratios[name])
    floors = {name: tried.least_bytes / tried.rival_bytes for name, tried in found.items()}
    limit = goal.limit(MEMORY)
    ratio, floor = (
        part[slowest] if goal.every else math.exp(statistics.fmean(map(math.log, part.values())))
        for part in (ratios, floors)
    )
    words = f"{slowest} {ratios[slowest]:.2f}"
    layers = tuple(Layer(name, one, one, one, floor=floors[name]) for name, one in ratios.items())
    return Result(
        goal, MEMORY, limit, ratio, ratio, ratio, _reach(ratio, ratio, limit), words,
        floor=floor, floor_low=floor, layers=layers,
    )  # fmt: skip


def unproved(goal: Goal, direction: str, reasons: Sequence[str]) -> Result:
    """Return the row of a goal of which a contender is not what the oracle says: no ratio."""
    limit = goal.limit(direction)
    return Result(
        goal, direction, limit, None, None, None, Reach.UNPROVED, "", reason="; ".join(reasons)
    )


def _reach(low: float, high: float, limit: float) -> Reach:
    if high <= limit:
        return Reach.MET
    return Reach.MISSED if low > limit else Reach.UNRESOLVED
