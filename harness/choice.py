"""Which implementation was measured to be the fastest near a case, on this kind of machine.

`python3 -m harness choose RUN --write` turns a benchmark run into a table; calls that pin nothing
then take what won the nearest measured case. Where none is near, the order of the variant decides.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NamedTuple

from harness.case import CaseError, ConvCase
from harness.machine import describe_machine
from harness.results import ResultsError
from harness.variant import Variant

FOLDER = Path(__file__).parents[1] / "choices"
NEAR = 3.0
"""So many doublings away, summed over sizes, a measurement still says something about a case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What won a measured case.

    Args:
        variant, case, device: What was measured.
        implementation: The winner.
        ratio: Its time over the baseline's, geometric mean over the directions.
        baseline: What that is.
        run: The run that measured it.
    """

    variant: str
    case: str
    device: str
    implementation: str
    ratio: float
    baseline: str
    run: str


class Near(NamedTuple):
    """A choice, and how many doublings away its case is."""

    choice: Choice
    distance: float

    def __str__(self) -> str:
        words = f"won a measured case {self.distance:.1f} doublings away: {self.choice.case}"
        return f"{words}, {self.choice.ratio:.2f} times the time of {self.choice.baseline}"


def nearest(variant: Variant, case: ConvCase, device: str) -> Near | None:
    """Return the nearest choice measured on this kind of machine; None where none is near."""
    found = [
        Near(choice, distance)
        for choice, measured in loaded(machine_key(device)).get(variant.name, ())
        if (distance := distance_between(variant, case, measured)) <= NEAR
    ]
    return min(found, key=lambda near: near.distance, default=None)


def distance_between(variant: Variant, one: ConvCase, other: ConvCase) -> float:
    """Return the doublings between two cases' sizes; infinite where they are of different kinds."""
    if _kind(variant, one) != _kind(variant, other):
        return math.inf
    return sum(abs(math.log2(a / b)) for a, b in zip(_sizes(one), _sizes(other), strict=True))


def _kind(variant: Variant, case: ConvCase) -> tuple[object, ...]:
    # the words that a call tells: how a mask is filled is not among them
    told = {*variant.keywords, *(name for arg in variant.args for name in arg.choices)}
    words = tuple((name, word) for name, word in case.options if name in told)
    depthwise = case.groups > 1 and case.groups == case.c_in
    return (
        case.spatial_dims, case.dtype, case.groups > 1, depthwise, max(case.stride) > 1,
        max(case.dilation) > 1, any(case.padding), tuple(map(bool, case.sources)), words,
    )  # fmt: skip


def _sizes(case: ConvCase) -> tuple[int, ...]:
    sizes = (case.n, case.c_in, case.c_out, prod(case.in_size), case.taps)
    return tuple(max(1, size) for size in sizes)


@lru_cache(maxsize=8)
def machine_key(device: str) -> str:
    """Return the name of this kind of machine, as a file is called."""
    machine = describe_machine()
    words = machine.gpu if device.startswith("cuda") and machine.gpu else machine.processor
    kind = device.partition(":")[0]
    return re.sub(r"[^a-z0-9]+", "-", f"{kind} {words}".lower()).strip("-")


@lru_cache(maxsize=8)
def loaded(key: str) -> Mapping[str, tuple[tuple[Choice, ConvCase], ...]]:
    """Return the choices of a machine with their cases, by variant."""
    found: dict[str, tuple[tuple[Choice, ConvCase], ...]] = {}
    for choice in read(FOLDER / f"{key}.json"):
        entry = (choice, ConvCase.parse(choice.case))
        found[choice.variant] = (*found.get(choice.variant, ()), entry)
    return found


def read(path: Path) -> tuple[Choice, ...]:
    """Read the choices of a file, none where there is none.

    Raises:
        ResultsError: it holds something else.
    """
    if not path.exists():
        return ()
    try:
        choices = tuple(Choice(**row) for row in json.loads(path.read_text(encoding="utf-8")))
        for choice in choices:
            ConvCase.parse(choice.case)
    except (OSError, ValueError, TypeError, CaseError) as error:
        raise ResultsError(f"{path}: holds no choices: {error}") from error
    return choices
