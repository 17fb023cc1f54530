"""Proofs before the clock: the oracle is asked, then every contender is tried alone.

Each of them in a process of its own, so that a crash or a hang costs only itself, and no stranger
meets another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from harness.isolation import Job, Pool, Report
from harness.plan import Cell
from harness.processors import environment_for
from harness.proof import Common, Question
from harness.table import PLUGIN, Table
from harness.variant import Need

MOST_AT_ONCE = 4
PROBE_TIMEOUT_S = 30.0
ORACLE_TIMEOUT_S = 300.0
COMPILE_TIMEOUT_S = 240.0
PRELOADED = ("harness.__main__", "harness.proof", "harness.ceilings")


def prove(
    table: Table,
    common: Common,
    cells: Iterable[Cell],
    threads: Sequence[int],
    cores: int,
    deadline_s: float | None = None,
) -> Iterator[tuple[Question | Cell, Report]]:
    """Yield what becomes of every question to the oracle, then of every cell.

    Args:
        table: Where the implementations are.
        common: What all processes know.
        cells: What is to be proved; those that share a proof are tried once.
        threads: Numbers of threads, one after the other.
        cores: How many processors there are.
        deadline_s: Moment of `clock.monotonic_s` when what is left is OUT_OF_TIME.
    """
    questions: dict[str, dict[Question, None]] = {}
    contenders: dict[tuple[str, str], dict[Cell, None]] = {}
    for cell in cells:
        questions.setdefault(cell.variant, {})[Question(cell.variant, cell.case)] = None
        contenders.setdefault((cell.variant, cell.implementation), {})[cell.proved_as] = None

    def patience_s(cell: Cell) -> float:
        variant = table.variant(cell.variant)
        needs = table.implementation(variant, cell.implementation).needs
        return COMPILE_TIMEOUT_S if {Need.COMPILER, Need.TRITON} & needs else PROBE_TIMEOUT_S

    asked = [list(units) for units in questions.values()]
    workers = pool(common, cores, deadline_s)
    yield from _ask("answer_session", asked, lambda _: ORACLE_TIMEOUT_S, table, common, workers)
    for count in threads:
        own = [[c for c in units if c.threads == count] for units in contenders.values()]
        here = replace(common, threads=count)
        workers = pool(here, cores, deadline_s)
        yield from _ask("probe_session", own, patience_s, table, here, workers)


def _ask(
    session: str, work: Sequence[Sequence[Any]], timeout_s: Callable[[Any], float], table: Table,
    common: Common, workers: Pool,
) -> Iterator[tuple[Any, Report]]:  # fmt: skip
    work = [units for units in work if units]
    jobs = [
        Job(session=f"harness.proof:{session}", units=units, timeout_s=timeout_s,
            common=replace(common, plugins=plugins_of(table, common.plugins, units[0])))
        for units in work
    ]  # fmt: skip
    for report in workers.run(jobs):
        yield work[report.job][report.unit], report


def plugins_of(table: Table, words: Iterable[str], unit: Cell | Question) -> tuple[str, ...]:
    """Return those of the plug-ins `words` that a process needs for `unit`."""
    variant = table.variant(unit.variant)
    origins = {variant.reference.origin}
    if isinstance(unit, Cell):
        origins.add(table.implementation(variant, unit.implementation).origin)
    return tuple(word for word in words if f"{PLUGIN}{word}" in origins)


def pool(common: Common, cores: int, deadline_s: float | None = None) -> Pool:
    """Return a pool of processes that start quickly, until a moment of `clock.monotonic_s`."""
    loaded = [m for m in sys.modules if m.startswith(("impls.", "properties.laws."))]
    return Pool(
        method="forkserver",  # it has imported torch, and never touched a device
        # on a device one at a time: its memory and its time are measured
        parallel=max(1, min(MOST_AT_ONCE, cores)) if common.device == "cpu" else 1,
        scratch=common.answers,
        preload=PRELOADED + tuple(loaded),  # or each child imports them
        environment=environment_for(common.threads),
        deadline_s=deadline_s,
    )
