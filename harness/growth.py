"""How the time of an implementation grows with a size, against what it declares that it costs.

A ladder of cases grows in one size and in nothing else. All of its rungs are timed in the same
blocks; the exponent is the slope of log time over log size, fitted in every process, its interval
is over processes. Where time is a sum of parts each of which grows as the declared operations or
the declared bytes do, or not at all, it grows by at most the larger growth of the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from math import prod
from typing import Any, NamedTuple

import torch
from scipy import stats

from harness.case import CaseError, ConvCase
from harness.comparison import CONFIDENCE, Comparison
from harness.contest import Entry, Rules, compete, runner
from harness.gate import cell_for
from harness.plan import Cell
from harness.proof import Call
from harness.selection import declines
from harness.table import Table, load_table
from harness.tensors import leaves, make_tensors
from harness.variant import Implementation, Variant

AXES = ("image", "channels", "kernel", "batch")
STEPS = {
    "image": (1, 2, 3, 4, 6), "channels": (1, 2, 4, 8), "kernel": (0, 2, 4, 6, 8),
    "batch": (1, 2, 4, 8, 16),
}  # fmt: skip
"""What a size is multiplied by; what is added to a kernel's sides, of which some must be odd."""
TOLERATED = 0.25
"""What an exponent may exceed the declared one by: caches end, and libraries change their way."""
LEAST_RUNGS = 3


class Verdict(StrEnum):
    """Whether time grows as declared."""

    WITHIN = "WITHIN"
    BEYOND = "BEYOND"
    UNRESOLVED = "UNRESOLVED"
    UNDECLARED = "UNDECLARED"


class Ladder(NamedTuple):
    """An implementation over the cases that grow from `case` along one axis by `steps`."""

    variant: str
    implementation: str
    direction: str
    axis: str
    steps: tuple[int, ...]
    case: str

    @property
    def entry(self) -> Entry:
        """The contest of its rungs."""
        words = (self.variant, self.implementation, self.direction, self.axis)
        steps = ",".join(map(str, self.steps))
        return Entry(f"{__name__}:contest", " ".join((*words, steps, self.case)))

    def rungs(self, variant: Variant, implementation: Implementation) -> list[ConvCase]:
        """Return the cases that the implementation computes, smallest first."""
        found = [enlarged(ConvCase.parse(self.case), self.axis, step) for step in self.steps]
        return [case for case in found if _is_computed(case, variant, implementation)]

    def cells(self, table: Table) -> list[Cell]:
        """Return what is timed, to be proved before."""
        variant = table.variant(self.variant)
        implementation = table.implementation(variant, self.implementation)
        return [
            cell_for(table, variant.name, implementation.name, str(case), self.direction)
            for case in self.rungs(variant, implementation)
        ]


class Growth(NamedTuple):
    """The exponent of time with its interval, and the declared one; None where it is not known."""

    ladder: Ladder
    exponent: float
    low: float | None
    high: float | None
    declared: float | None
    times_ns: tuple[float, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Whether the whole interval is beyond what is declared, or within it."""
        if self.declared is None:
            return Verdict.UNDECLARED
        limit = self.declared + TOLERATED
        if self.low is not None and self.low > limit:
            return Verdict.BEYOND
        within = self.high is not None and self.high <= limit
        return Verdict.WITHIN if within else Verdict.UNRESOLVED


def enlarged(case: ConvCase, axis: str, step: int) -> ConvCase:
    """Return `case` with one size `step` times as large; kernels grow by `step`, padded alike."""
    if axis == "image":
        return replace(case, in_size=tuple(step * size for size in case.in_size))
    if axis == "batch":
        return replace(case, n=step * case.n)
    if axis == "channels":
        return replace(
            case, c_in=step * case.c_in, c_out=step * case.c_out,
            sources=tuple(step * count for count in case.sources),
        )  # fmt: skip
    if axis == "kernel":
        padding = (p + d * step // 2 for p, d in zip(case.padding, case.dilation, strict=True))
        sides = tuple(side + step for side in case.kernel_size)
        return replace(case, kernel_size=sides, padding=tuple(padding))
    raise CaseError(f"axis={axis!r} must be one of {', '.join(AXES)}")


def size_of(case: ConvCase, axis: str) -> float:
    """Return the size of `case` along an axis: a side, channels, or samples."""
    if axis in ("image", "kernel"):
        sides = case.in_size if axis == "image" else case.kernel_size
        return float(prod(sides) ** (1 / len(sides)))
    return float(case.n if axis == "batch" else case.c_in)


def _is_computed(case: ConvCase, variant: Variant, implementation: Implementation) -> bool:
    try:
        variant.check_case(case)
    except CaseError:
        return False
    return declines(implementation, variant, case) is None


def contest(words: str, device: str) -> dict[str, Callable[[], Any]]:
    """Make the call of every rung; `words` are those of a ladder."""
    name, wanted, direction, axis, steps, line = words.split(" ", 5)
    table = load_table()
    variant = table.variant(name)
    implementation = table.implementation(variant, wanted)
    ladder = Ladder(name, wanted, direction, axis, tuple(map(int, steps.split(","))), line)
    torch.set_grad_enabled(direction == "backward")
    return {
        str(case): runner(
            Call(variant, implementation, case, direction), make_tensors(variant, case, device)
        )
        for case in ladder.rungs(variant, implementation)
    }


# -- what is declared --------------------------------------------------------------------------


def declared(
    variant: Variant, implementation: Implementation, rungs: Sequence[ConvCase], axis: str
) -> float | None:
    """Return the exponent of the larger growth of operations and bytes; None if undeclared."""
    if implementation.cost is None:
        return None
    flops, bytes_ = [], []
    for case in rungs:
        tensors = make_tensors(variant, case)
        cost = implementation.cost(case, tensors)
        given = sum(t.numel() * t.element_size() for t in leaves(tensors).values())
        own = max(cost.extra_bytes or 0, cost.saved_bytes or 0)
        item = next(iter(leaves(tensors).values())).element_size()
        bytes_.append(given + prod(case.out_shape) * item + own)
        flops.append(cost.flops)
    if any(count is None for count in flops):
        return None
    logs = [
        max(math.log(value / first) if first else 0.0 for value, first in pairs)
        for pairs in zip(_against_first(flops), _against_first(bytes_), strict=True)
    ]
    return _slope(rungs, axis, logs)


def _against_first(values: Sequence[int | None]) -> list[tuple[int, int]]:
    """Return every value with the first; 0 and 0 where nothing is counted at first."""
    first = values[0] or 0
    return [(max(value or 0, first), first) for value in values]


def _slope(rungs: Sequence[ConvCase], axis: str, logs: Sequence[float]) -> float:
    sizes = [math.log(size_of(case, axis)) for case in rungs]
    return float(stats.linregress(sizes, logs).slope)


# -- what is measured --------------------------------------------------------------------------


def judge(
    some: Sequence[Ladder], rules: Rules, seed: int, device: str = "cpu"
) -> tuple[list[Growth | None], list[Comparison]]:
    """Measure ladders; None for one of too few rungs; beside them the placebos."""
    table = load_table()
    held = [table.variant(ladder.variant) for ladder in some]
    forms = [table.implementation(v, one.implementation) for v, one in zip(held, some, strict=True)]
    rungs = [one.rungs(v, i) for one, v, i in zip(some, held, forms, strict=True)]
    usable = [number for number, cases in enumerate(rungs) if len(cases) >= LEAST_RUNGS]
    entries = [some[number].entry._replace(device=device) for number in usable]
    rows = compete(entries, rules, seed) if entries else ()
    found: list[Growth | None] = [None] * len(some)
    for number, entry in zip(usable, entries, strict=True):
        own = {r.implementation: r for r in rows if r.case == entry.case and not r.placebo}
        known = declared(held[number], forms[number], rungs[number], some[number].axis)
        found[number] = _growth(some[number], rungs[number], own, known)
    return found, [row for row in rows if row.placebo]


def _growth(
    ladder: Ladder, rungs: Sequence[ConvCase], rows: dict[str, Comparison], known: float | None
) -> Growth:
    others = [str(case) for case in rungs[1:]]
    ratios = [rows[name].process_ratios for name in others]
    slopes = [
        _slope(rungs, ladder.axis, [0.0, *map(math.log, process)])
        for process in zip(*ratios, strict=True)
    ]
    if not slopes:
        raise RuntimeError(f"{ladder.entry.case}: no process has timed every rung")
    low = high = None
    if len(slopes) > 1:
        interval = stats.ttest_1samp(slopes, 0.0).confidence_interval(CONFIDENCE)
        low, high = float(interval.low), float(interval.high)
    times = (rows[others[0]].baseline_median_ns, *(rows[name].median_ns for name in others))
    return Growth(
        ladder, sum(slopes) / len(slopes), low, high, known, tuple(t or math.nan for t in times)
    )


# -- what is shown ------------------------------------------------------------------------------

COLUMNS = (
    "variant", "implementation", "direction", "size", "exponent", "from", "to", "declared",
    "verdict",
)  # fmt: skip


def line_of(row: Growth) -> str:
    """Return the line of a terminal that shows one ladder."""
    one = row.ladder
    interval = "" if row.low is None else f" [{row.low:.2f}, {row.high:.2f}]"
    known = "declares no cost" if row.declared is None else f"declared {row.declared:.2f}"
    times = ", ".join(f"{time / 1e3:.3g}" for time in row.times_ns)
    return (
        f"{row.verdict:<10} {one.variant}/{one.implementation} {one.direction} {one.axis}: "
        f"exponent {row.exponent:.2f}{interval}, {known}; {times} µs"
    )


def cells_of(row: Growth) -> tuple[str | float, ...]:
    """Return the entries of a row of evidence, under `COLUMNS`."""
    one = row.ladder
    return (
        one.variant, one.implementation, one.direction, one.axis, round(row.exponent, 3),
        "" if row.low is None else f"{row.low:.3f}", "" if row.high is None else f"{row.high:.3f}",
        "" if row.declared is None else f"{row.declared:.3f}", row.verdict.value,
    )  # fmt: skip
