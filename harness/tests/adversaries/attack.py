"""What an attack on the clock is, and the table of them as a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.api import Implementation

HONEST_CALLS = 60
"""More than a proof takes: who is honest for so long is found out by the timing process alone."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One contender that wants a number it has not earned.

    Args:
        name: Its name as an implementation of `plain`.
        function: The contender; None where the module of its name is a plug-in of its own.
        attack: What it does.
        defence: What finds it.
        found: What the reason says, as a regular expression.
        timed: Whether the proof passes it and the timing process finds it.
        direction: In which it is timed.
    """

    name: str
    function: Callable[..., Any] | None
    attack: str
    defence: str
    found: str
    timed: bool = False
    direction: str = "forward"

    def implementation(self) -> Implementation:
        """Return the contender as the table takes it."""
        assert self.function is not None
        return Implementation(name=self.name, load=partial(_same, self.function))


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def right(x: Tensor, weight: Tensor, bias: Tensor | None = None, **keywords: Any) -> Tensor:
    """Convolve."""
    stride, padding, dilation = (keywords[name] for name in ("stride", "padding", "dilation"))
    zeros = [0] * (x.dim() - 2)
    return torch.convolution(
        x, weight, bias, stride, padding, dilation, False, zeros, keywords["groups"]
    )


def empty(x: Tensor, weight: Tensor, **keywords: Any) -> Tensor:
    """Return memory for the output of a same-size convolution, as it is found."""
    del keywords
    return torch.empty(x.shape[0], weight.shape[0], *x.shape[2:], dtype=x.dtype)


class After:
    """Convolves rightly for the first calls of a process, and then does something else."""

    def __init__(self, then: Callable[..., Any], calls: int = HONEST_CALLS) -> None:
        self.then, self.left = then, calls

    def __call__(self, *tensors: Any, **keywords: Any) -> Any:
        """Count, and convolve or do the other."""
        self.left -= 1
        return (right if self.left >= 0 else self.then)(*tensors, **keywords)


PREFACE = """# Threat model

The clock is to be fooled by nobody who writes an implementation in Python and does not go after
the harness itself. A contender that does is refused, with a reason that names what was found, and
whoever is timed beside it is timed again in a new process, so that it cannot slow the baseline down
either.

Not covered, because it cannot be from inside of a process: native code (ctypes, extensions,
preloaded libraries), and Python that looks for the harness in order to change it (its frames, its
objects by way of `gc`, the code of its functions) or to see that it is looked at. Run plug-ins of
people whom you would let run programs. A plug-in with the need `COMPILER` or `TRITON` may keep
threads and processes, as compilers do. On CUDA what is left on other streams is waited for and
counted.

How it is done: the clock is bound before any plug-in is loaded, and what it shows has to fit what
the parent process saw pass. Every contender is tried alone, in a process that loads its plug-in and
no other: against the oracle, on two sets of values in the same memory. In the timing processes the
values change from block to block; of every sample one call, drawn at random, is compared with the
reference on the same values, and the last block with the oracle. In every block, at a moment drawn
at random and at its end, the arguments are looked after and the process is compared with what it was
before plug-ins came; once that finds something, after every sample, which tells who did it. Work put
off to a few of the calls is in no middle turn: where whole samples tell of another ratio than middle
turns do, they are what is judged ([statistics.md](statistics.md)).

Every line is a contender in `harness/tests/adversaries`, and a test that it is refused. This page:
`python3 -m harness.tests.adversaries > docs/threat_model.md`.
"""


def page(attacks: Sequence[Attack]) -> str:
    """Return the attacks and defences as Markdown."""
    lines = ["| contender | attack | defence | found by |", "|---|---|---|---|"]
    for row in attacks:
        by = "timing" if row.timed else "proof"
        lines.append(f"| `{row.name}` | {row.attack} | {row.defence} | {by} |")
    return f"{PREFACE}\n" + "\n".join(lines) + "\n"
