"""What the right answer is on values for which there is no proof: those of timed calls."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeVar

import torch

from harness.case import ConvCase
from harness.check import Outputs, Refuted, expected_dtype
from harness.plan import GroupKey, refusal
from harness.pool import TensorPool
from harness.proof import Answer, Call, Common, copied, load_answer, spoil_free_memory
from harness.table import Table

SLACK = 16.0
T = TypeVar("T")


class Arbiter:
    """Says in every block what the right answer on one set of the pool is: the reference's.

    A coarse net for other answers, not for roundings: those are the proof's. An error may be
    `SLACK` times the largest that the proof allows anywhere, as the values were moved about.

    Args:
        table: Where the reference is.
        common: Where the oracle's answers are.
        key: The case and the direction.
        instead: Who is asked where the reference declines the case.
    """

    def __init__(self, table: Table, common: Common, key: GroupKey, *, instead: str) -> None:
        variant, case = table.variant(key.variant), ConvCase.parse(key.case)
        direction, chosen = key.direction, variant.reference
        if refusal(chosen, variant, case, direction, common.device):
            chosen = table.implementation(variant, instead)
        self.call = Call(variant, chosen, case, direction)
        self.number = 0
        self._common, self._key = common, (variant.name, str(case))
        self._answer: Answer | None = None
        self._expected: Outputs = {}

    @property
    def answer(self) -> Answer:
        """What the oracle says of the proved values."""
        self._answer = self._answer or load_answer(self._common.answers, *self._key)
        return self._answer

    @functools.cached_property
    def allowed(self) -> dict[str, float]:
        """How far every output and gradient of a timed call may be off."""
        answer = self.answer
        return {
            name: SLACK * float(bound.error[bound.error.isfinite()].max())
            if bound.error.numel() else 0.0
            for name, bound in _labelled(answer.bound, answer.gradient_bound).items()
        }  # fmt: skip

    def attend(self, pool: TensorPool, number: int) -> None:
        """Compute what set `number` gives."""
        self.number = number
        outputs, gradients = copied(self.call.read(self.call(pool.bound[number]), pool.first))
        self._expected = _labelled(outputs, gradients)

    def spoil_free_memory(self) -> None:
        """Fill what is handed out next with NaN."""
        dtype, device = expected_dtype(self.call.case), self._common.device
        spoil_free_memory(self._expected.values(), dtype, device)

    def judge(self, found: tuple[Outputs, Outputs]) -> None:
        """Raise Refuted where a timed call gave another answer."""
        for name, got in _labelled(*found).items():
            expected, allowed = self._expected[name].double(), self.allowed[name]
            if got.shape != expected.shape:
                raise Refuted(f"{name} has the shape {tuple(got.shape)} in a timed call")
            wide = got.double()
            difference = (wide - expected).abs_()
            if not got.numel() or float(difference.max()) <= allowed:
                continue  # the usual end; a NaN does not get here
            limit = torch.full_like(expected, allowed)
            same = (wide == expected) | (wide.isnan() & expected.isnan())
            if not bool((same | (difference <= limit)).all()):
                raise Refuted(
                    f"{name} of a timed call differs", expected=expected, got=wide, bound=limit
                )


def _labelled(outputs: Mapping[str, T], gradients: Mapping[str, T]) -> dict[str, T]:
    return {**outputs, **{f"gradient of {name}": value for name, value in gradients.items()}}
