"""One cell of a group while it is sampled: its call, its samples, and how it failed if it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from harness import clock
from harness.bound_call import Call
from harness.case import ConvCase
from harness.check import Refuted
from harness.disturbances import Disturbance
from harness.exhaustion import is_out_of_memory
from harness.graphs import Captured
from harness.isolation import error_text
from harness.plan import Cell
from harness.proof import refutation_text
from harness.results import Status
from harness.table import Table


class Sampled(NamedTuple):
    """What one process measured of one cell; the fields are those of a row."""

    cell: Cell
    process: int
    status: Status
    block: tuple[int, ...] = ()
    samples_ns: tuple[int, ...] = ()
    calls_per_sample: int = 0
    reason: str = ""
    processors: tuple[int, ...] = ()
    block_steal_share: tuple[float, ...] = ()
    block_load: tuple[float, ...] = ()
    block_involuntary_switches: tuple[int, ...] = ()
    block_clock_hz: tuple[int, ...] = ()
    block_power_w: tuple[float, ...] = ()
    wall_ns: tuple[int, ...] = ()
    enqueue_ns: tuple[int, ...] = ()
    instructions: int | None = None
    mean_ns: tuple[int, ...] = ()


class Contender:
    """One cell of a group while it is sampled."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.batch: Sequence[Any] = ()
        self.blocks: list[int] = []
        self.parts: Sequence[Sequence[Any]] = ()
        self.keep = 0
        self.elapsed_ns: list[int] = []
        self.samples: list[clock.Sample] = []
        self.wall_ns: list[int] = []
        self.enqueue_ns: list[int] = []
        self.instructions: int | None = None
        self.found: Any = None
        self.last: Any = None
        self.failure: tuple[Status, str] | None = None
        self.has_spoiled = False

    def load(self, table: Table) -> None:
        """Load the implementation: a stranger's code."""
        variant = table.variant(self.cell.variant)
        self.case = ConvCase.parse(self.cell.case)
        self.implementation = table.implementation(variant, self.cell.implementation)
        self.call = Call(variant, self.implementation, self.case, self.cell.direction)
        self.run: Call | Captured = self.call

    def capture(self, bound: Sequence[Any]) -> None:
        """From now on replay a graph of the call, one for each set of arguments.

        What fails may leave its stream and its memory behind: the process is of no use after it.
        """
        self.has_spoiled = True
        try:
            self.run = Captured(self.call, bound)
            self.has_spoiled = False
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = f"cannot be captured as a CUDA graph: {error_text(error)}"
            self.failure = (Status.UNSUPPORTED, reason)

    def attempt(self, work: Callable[[], None]) -> None:
        """Do `work`; an exception ends this contender alone."""
        try:
            work()
        except Refuted as error:
            self.failure = (Status.REFUTED, refutation_text(error))
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything at all
            status = Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.CRASHED
            self.failure = (status, error_text(error))

    def row(
        self, process: int, processors: tuple[int, ...], seen: Sequence[Disturbance]
    ) -> Sampled:
        """Return what this came to; `seen` is what went on in every block."""
        if self.failure:
            status, reason = self.failure
            return Sampled(self.cell, process, status, reason=reason, processors=processors)
        own = [seen[block] for block in self.blocks]
        rates = [one.clock_hz for one in own if one.clock_hz is not None]
        powers = [one.power_w for one in own if one.power_w is not None]
        return Sampled(
            self.cell, process, Status.MEASURED, tuple(self.blocks),
            tuple(sample.middle_ns for sample in self.samples), len(self.batch),
            processors=processors,
            block_steal_share=tuple(one.steal_share for one in own),
            block_load=tuple(one.load for one in own),
            block_involuntary_switches=tuple(one.involuntary_switches for one in own),
            block_clock_hz=tuple(rates) if len(rates) == len(own) else (),
            block_power_w=tuple(powers) if len(powers) == len(own) else (),
            wall_ns=tuple(self.wall_ns), enqueue_ns=tuple(self.enqueue_ns),
            instructions=self.instructions,
            mean_ns=tuple(s.mean_ns for s in self.samples) if len(self.parts) > 1 else (),
        )  # fmt: skip
