"""How long a run without a limit will take, before anything of it is known, and after its proofs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.budget import FILE, PAGE, SERVER, group_s
from harness.case import ConvCase
from harness.plan import Cell, GroupKey, Plan, grouped
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
    calls_ns: Mapping[GroupKey, Sequence[int]], processes: int, blocks: int, start_s: float,
    device: str,
) -> float:  # fmt: skip
    """Return the seconds of all processes that time, in which every group is timed by each."""
    settings = len({key.threads for key in calls_ns})
    each = sum(group_s(calls, blocks, device) for calls in calls_ns.values())
    return processes * (settings * start_s + each)


def before(
    table: Table, plan: Plan, laws: int, processes: int, blocks: int, start_s: float, device: str
) -> str:
    """Return, in words, how long a run of `plan` takes that judges so many pairs of laws.

    It grows with what is multiplied: cells, processes, blocks, and the length of a sample.
    """
    calls = {key: [called_ns(c) for c in cells] for key, cells in grouped(plan.cells).items()}
    samples = sampling_s(calls, processes, blocks, start_s, device)
    proved = Counter(_compiles(table, cell) for cell in {c.proved_as for c in plan.cells})
    questions = len({(cell.variant, cell.case) for cell in plan.cells})
    proofs = ANSWER_S * questions + PROOF_S * proved[False] + COMPILE_S * proved[True]
    rest = LAW_S * laws + (SERVER + PAGE + FILE) * start_s
    parts = f"samples {_minutes(samples)}, proofs {_minutes(proofs)}, else {_minutes(rest)}"
    return (
        f"estimate: {len(plan.cells)} cells x {processes} processes x {blocks} blocks take about "
        f"{_minutes(samples + proofs + rest)} ({parts}); --budget-s ends it earlier"
    )


def after(calls_ns: Mapping[GroupKey, Sequence[int]], seconds: float) -> str:
    """Return the same of what is left when every call has been seen once."""
    cells = sum(map(len, calls_ns.values()))
    return f"estimate: the samples of {cells} cells that are proved take about {_minutes(seconds)}"


def _compiles(table: Table, cell: Cell) -> bool:
    needs = table.implementation(table.variant(cell.variant), cell.implementation).needs
    return Need.COMPILER in needs


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
