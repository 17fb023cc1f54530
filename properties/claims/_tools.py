"""What claims are judged with: the variants, seeded tensors, laws as experiments, a counter."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from harness.effort import Profile
from harness.meter import Count, Meter
from harness.results import Outcome
from harness.search import Finding, search
from harness.table import Table, load_table, with_oracle

MASKED_TORCH = "000 masked_torch"
FORUM = "001 masked kernel locations"
QUESTION = "002 masked kernel per step"
MULTI_SOURCE = "003 multi-source-convolution"
DIFF_CONV = "004 DiffConv2d"


def variant(name: str) -> Any:
    """Return the package of a variant: its functional form and its layers."""
    return importlib.import_module(f"impls.{name}")


@cache
def table() -> Table:
    """Return the variants and laws."""
    return load_table()


def whole(*shape: int, seed: int = 0, most: int = 4) -> Tensor:
    """Return whole numbers from `-most` to `most` in float64, whose sums are exact."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, shape, generator=draw).double()


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return normally distributed values in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coins(*shape: int, seed: int = 0) -> Tensor:
    """Return a mask whose entries are present with probability 1/2."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=draw).double()


def largest_difference(got: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference."""
    return float((got - expected).detach().abs().max())


def experiment(law: str, name: str, *, cases: int = 30, beyond: bool = False) -> Finding:
    """Search for a counterexample to a law in a variant's oracle, inside the law's domain.

    Args:
        law: Its id.
        name: The variant's name.
        cases: How many.
        beyond: Look just outside the domain instead.
    """
    chosen, found = table().laws[law], table().variant(name)
    if beyond:
        chosen = replace(chosen, within=chosen.outside)
    effort = Profile(cases=cases, dtypes=("float64",))
    return search(chosen, found, with_oracle(found)[0], effort, variants=table().variants)


def held(*findings: Finding) -> bool:
    """Return whether no experiment found a counterexample."""
    return all(finding.outcome is Outcome.HOLDS for finding in findings)


def cases_of(*findings: Finding) -> int:
    """Return how many cases the experiments tried."""
    return sum(finding.cases for finding in findings)


def counted(call: Callable[[], Any], *given: Tensor) -> Count:
    """Return what `call` costs, its second run; memory beyond that of `given` tensors."""
    call()  # whatever is prepared once is prepared now
    with Meter(given) as meter:
        call()
    return meter.count
