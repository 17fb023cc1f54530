"""What a benchmark run is going to measure: cells, grouped by what is timed side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from harness.case import DTYPES, CaseError, ConvCase
from harness.clock import COLD
from harness.results import Measurement, Status
from harness.selection import declines
from harness.table import Table, UnknownName, with_oracle
from harness.variant import Implementation, Need, Variant

if TYPE_CHECKING:  # what it imports takes a second, and a timing process needs none of it
    from harness.comparison import Comparison

DIRECTIONS = ("forward", "backward")
HOT, GRAPH = "l2=hot", "graph=1"
MODES = {"cpu": ("",), "cuda": (COLD, HOT, f"{GRAPH},{COLD}")}
"""Ways to call that are rows of their own, by device; a word of `Measurement.flags` each."""


class Cell(NamedTuple):
    """One thing to time: an implementation on a case in one direction, with so many threads.

    `mode` is one of `MODES`: on a device a call finds its cache cold or hot, or is a graph.
    """

    variant: str
    implementation: str
    case: str
    case_name: str
    direction: str
    placebo: bool = False
    threads: int = 1
    mode: str = ""

    @property
    def group(self) -> GroupKey:
        """What this cell is timed side by side with."""
        return GroupKey(
            self.variant, self.case, self.case_name, self.direction, self.threads, self.mode
        )

    @property
    def proved_as(self) -> Cell:
        """The cell whose proof holds for this one too."""
        return self._replace(placebo=False, mode="")


class GroupKey(NamedTuple):
    """What all implementations that are timed side by side have in common."""

    variant: str
    case: str
    case_name: str
    direction: str
    threads: int = 1
    mode: str = ""


class Skipped(NamedTuple):
    """A cell without a number, and why."""

    cell: Cell
    status: Status
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was asked for; empty means all.

    Args:
        variants, implementations, cases: Names; a case may be a descriptor.
        directions, dtypes: Words; no dtype leaves every case its own.
        baselines: Implementations to divide by: `name` or `variant=name`.
        full: All cases of every variant, and compiled forms.
        device: Where.
        threads: Numbers of threads; every cell is timed with each.
    """

    variants: tuple[str, ...] = ()
    implementations: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    directions: tuple[str, ...] = DIRECTIONS
    dtypes: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    full: bool = False
    device: str = "cpu"
    threads: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Cells to measure, cells left out, the baseline of every variant, and what to tell."""

    cells: tuple[Cell, ...]
    skipped: tuple[Skipped, ...]
    baselines: Mapping[str, str]
    notes: tuple[str, ...] = ()


def make_plan(table: Table, selection: Selection) -> Plan:
    """Return what `selection` comes to.

    Raises:
        UnknownName: a name that no selected variant has.
        CaseError: a case that no selected variant has, or a dtype that there is not.
    """
    for dtype in selection.dtypes:
        if dtype not in DTYPES:
            raise CaseError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    names = dict.fromkeys(selection.variants or table.variants)
    variants = [table.variant(name) for name in names]
    notes: list[str] = []
    cases = _cases(table, variants, selection, notes)
    chosen = _implementations(table, variants, selection, notes)
    baselines = _baselines(table, variants, selection)
    cells: list[Cell] = []
    skipped: list[Skipped] = []
    for variant in variants:
        if not chosen[variant.name] or not cases[variant.name]:
            continue
        baseline = baselines[variant.name]
        candidates = [table.implementation(variant, baseline), *chosen[variant.name]]
        distinct = {implementation.name: implementation for implementation in candidates}
        for implementation in distinct.values():
            _add(variant, implementation, cases[variant.name], selection, cells, skipped,
                 repeat=implementation.name == baseline)  # fmt: skip
    return Plan(cells=tuple(cells), skipped=tuple(skipped), baselines=baselines, notes=tuple(notes))


def _add(
    variant: Variant, implementation: Implementation, cases: Sequence[tuple[str, ConvCase]],
    selection: Selection, cells: list[Cell], skipped: list[Skipped], *, repeat: bool,
) -> None:  # fmt: skip
    late = Need.COMPILER in implementation.needs and not selection.full
    if late and implementation.name not in selection.implementations and not repeat:
        name, case = cases[0]
        cell = Cell(
            variant.name, implementation.name, str(case), name, selection.directions[0],
            threads=selection.threads[0],
        )  # fmt: skip
        skipped.append(Skipped(cell, Status.NOT_SELECTED, "compiled forms are timed with --full"))
        return
    modes = MODES[selection.device.partition(":")[0]]
    threads = dict.fromkeys(selection.threads)
    for (name, case), direction in itertools.product(cases, selection.directions):
        cell = Cell(variant.name, implementation.name, str(case), name, direction)
        reason = refusal(implementation, variant, case, direction, selection.device)
        for count, mode in itertools.product(threads, modes):
            way = cell._replace(threads=count, mode=mode)
            if reason:
                skipped.append(Skipped(way, Status.UNSUPPORTED, reason))
                continue
            cells.append(way)
            if repeat:
                cells.append(way._replace(placebo=True))


def refusal(
    implementation: Implementation, variant: Variant, case: ConvCase, direction: str, device: str
) -> str | None:
    """Return why an implementation is not timed on a case, or None."""
    if direction == "backward" and not implementation.differentiable:
        return "is not differentiable"
    if Need.CUDA in implementation.needs and not device.startswith("cuda"):
        return implementation.missing() or f"runs on CUDA, and the run is on {device}"
    return declines(implementation, variant, case)


def _cases(
    table: Table, variants: Sequence[Variant], selection: Selection, notes: list[str]
) -> dict[str, list[tuple[str, ConvCase]]]:
    found: dict[str, list[tuple[str, ConvCase]]] = {variant.name: [] for variant in variants}
    known: set[str] = set()
    for variant in variants:
        words = selection.cases or (variant.cases if selection.full else variant.quick)
        for word in dict.fromkeys(words):
            try:
                name, case = table.case(variant, word)
            except (UnknownName, CaseError) as error:
                if len(variants) == 1:
                    raise
                notes.append(f"{variant.name} is left out of case {word!r}: {error}")
                continue
            known.add(word)
            dtypes = selection.dtypes or (case.dtype,)
            found[variant.name] += [(name, replace(case, dtype=dtype)) for dtype in dtypes]
    for word in selection.cases:
        if word not in known and " " not in word.strip():
            names = dict.fromkeys(name for variant in variants for name in variant.cases)
            raise UnknownName("case", word, names)
        if word not in known:
            raise CaseError(notes[-1])
    return found


def _implementations(
    table: Table, variants: Sequence[Variant], selection: Selection, notes: list[str]
) -> dict[str, list[Implementation]]:
    wanted = tuple(dict.fromkeys(selection.implementations))
    if not wanted:
        return {variant.name: list(variant.implementations) for variant in variants}
    found = {
        variant.name: [i for i in with_oracle(variant) if i.name in wanted] for variant in variants
    }
    known = {i.name for implementations in found.values() for i in implementations}
    for name in wanted:
        if name not in known:
            if len(variants) == 1:
                table.implementation(variants[0], name)
            names = dict.fromkeys(i.name for variant in variants for i in with_oracle(variant))
            raise UnknownName("implementation", name, names)
    if selection.variants:
        notes += [f"{n} has no implementation of that name" for n, i in found.items() if not i]
    return found


def _baselines(table: Table, variants: Sequence[Variant], selection: Selection) -> dict[str, str]:
    baselines = {variant.name: variant.reference.name for variant in variants}
    for word in selection.baselines:
        first, _, second = word.rpartition("=")
        holders = [table.variant(first)] if first else variants
        able = [v for v in holders if second in {i.name for i in with_oracle(v)}]
        if not able:
            table.implementation(holders[0], second)
        baselines |= {variant.name: second for variant in able}
    return baselines


def grouped(cells: Iterable[Cell]) -> dict[GroupKey, list[Cell]]:
    """Return the cells by what they are timed side by side with, in order of appearance."""
    groups: dict[GroupKey, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group, []).append(cell)
    return groups


def cell_of(row: Measurement | Comparison) -> Cell:
    """Return the cell that a row is about."""
    modes = (word for word in row.flags.split(",") if word in {COLD, HOT, GRAPH})
    return Cell(
        row.variant, row.implementation, row.case, row.case_name, row.direction, row.placebo,
        row.threads, ",".join(modes),
    )  # fmt: skip
