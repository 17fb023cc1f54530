"""What is kept of a counterexample: the certificate that it is minimal, and a script of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.check import Trial
from harness.law import Law
from harness.neighbours import Neighbour
from harness.variant import Value

LARGEST_LITERAL = 64


def certificate(neighbours: Sequence[Neighbour]) -> list[str]:
    """Return what the neighbours of a failing case say, a line for each kind."""
    said = {
        "hold": [n.step for n in neighbours if n.fails is False],
        "do not matter": [n.step for n in neighbours if n.fails],
        "not in the domain": [n.step for n in neighbours if n.fails is None],
    }
    return [f"  {kind + ':':<18} {', '.join(steps)}" for kind, steps in said.items() if steps]


def script(law: Law, trial: Trial) -> str:
    """Return at most 12 lines of Python that show the failure, their values to be changed at will."""
    origin = trial.implementation.origin.removeprefix("plug-in ")
    plugins = repr([origin]) if origin and origin != trial.implementation.origin else ""
    cell = f"table.implementation(variant, {trial.implementation.name!r})"
    lines = [
        "import torch",
        "from torch import inf, nan, tensor",
        "from harness.table import load_table",
        "from harness.check import ConvCase, Trial",
        f"table = load_table({plugins})",
        f"variant, case = table.variant({trial.variant.name!r}), ConvCase.parse({str(trial.case)!r})",
        f"t = Trial(variant, {cell}, case, {trial.device!r}, table.variants)",
    ]
    small = all(_size(value) <= LARGEST_LITERAL for value in trial.tensors.values())
    if small and trial.case.layout == "contiguous":
        entries = [f"{name!r}: {_literal(value)}" for name, value in trial.tensors.items()]
        half = -(-len(entries) // 2)
        lines += [f"t.tensors |= {{{', '.join(entries[i : i + half])}}}" for i in (0, half)
                  if entries[i : i + half]]  # fmt: skip
    return "\n".join([*lines, f"table.law({law.id!r}).check(t)  # raises what is wrong"])


def _size(value: Value) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    return 0 if value is None else sum(map(_size, value))


def _literal(value: Value) -> str:
    if value is None:
        return "None"
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))},)"
    if value.numel() == 0:
        return f"torch.zeros({tuple(value.shape)}, dtype={value.dtype})"
    entries = value.detach().cpu()
    listed = entries.tolist() if entries.dtype != torch.bfloat16 else entries.double().tolist()
    return f"tensor({listed}, dtype={value.dtype}, device={str(value.device)!r})"
