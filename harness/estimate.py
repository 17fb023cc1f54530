"""How long a run without a limit will take, before anything of it is known, and after its proofs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from harness.budget import FILE, PAGE, SERVER, group_s
from harness.case import ConvCase
from harness.plan import Cell, GroupKey
from harness.table import Table
from harness.variant import Need

FLOP_PER_S = 2e10
"""What a core does in a convolution of a plain way; before the proofs nothing better is known."""
PROOF_S, ANSWER_S, COMPILE_S, LAW_S = 0.25, 0.5, 15.0, 0.08
"""A contender proved, a case put to the oracle, a form compiled for a first time, a law judged over
an implementation by the quick profile: medians on two cores at 2.6 GHz."""
BACKWARD = 3
"""Products of one size: forward, and the gradients of input and weight."""


def called_ns(cell: Cell) -> int:
    """Return how long a call of a cell may take, by its products alone."""
    products = BACKWARD if cell.direction == "backward" else 1
    return round(2 * products * ConvCase.parse(cell.case).macs / FLOP_PER_S * 1e9)


def sampling_s(
    turns: Iterable[Mapping[GroupKey, Sequence[int]]], blocks: int, start_s: float, device: str
) -> float:
    """Return the seconds of all processes that time, each the groups of its turn."""
    return sum(
        start_s + sum(group_s(calls, blocks, device) for calls in groups.values())
        for groups in turns if groups
    )  # fmt: skip


def before(
    table: Table, turns: Sequence[Mapping[GroupKey, Sequence[Cell]]], laws: int, blocks: int,
    start_s: float, device: str,
) -> str:  # fmt: skip
    """Return, in words, how long it takes to time these groups and to judge so many pairs of laws.

    It grows with what is multiplied: cells, processes, blocks, and the length of a sample.
    """
    calls = [{key: [called_ns(c) for c in some] for key, some in turn.items()} for turn in turns]
    samples = sampling_s(calls, blocks, start_s, device)
    timed = [cell for turn in turns for some in turn.values() for cell in some]
    proved = Counter(_compiles(table, cell) for cell in {cell.proved_as for cell in timed})
    questions = len({(cell.variant, cell.case) for cell in timed})
    proofs = ANSWER_S * questions + PROOF_S * proved[False] + COMPILE_S * proved[True]
    rest = LAW_S * laws + (SERVER + PAGE + FILE) * start_s
    parts = f"samples {_minutes(samples)}, proofs {_minutes(proofs)}, else {_minutes(rest)}"
    return (
        f"estimate: {len(set(timed))} cells, {len(timed)} times in all, {blocks} blocks each, take "
        f"about {_minutes(samples + proofs + rest)} ({parts}); --budget-s ends it earlier"
    )


def after(seconds: float) -> str:
    """Return the same of the samples when every call has been seen once."""
    return f"estimate: the samples of what is proved take about {_minutes(seconds)}"


def _compiles(table: Table, cell: Cell) -> bool:
    needs = table.implementation(table.variant(cell.variant), cell.implementation).needs
    return Need.COMPILER in needs


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
