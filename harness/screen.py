"""A counterexample on one screen: the law, the case, small grids of both sides, the replay line."""

from __future__ import annotations

import shlex
import traceback
from math import prod

from torch import Tensor

from harness.check import Refuted, Trial
from harness.law import Law
from harness.tensors import leaves

LARGEST_GRID = 120
WIDEST_ROW = 16


def replay_line(trial: Trial, law: Law) -> str:
    """Return the shell line that repeats exactly this check."""
    origin = trial.implementation.origin.removeprefix("plug-in ")
    plugin = (
        f" --plugin {shlex.quote(origin)}"
        if origin and origin != trial.implementation.origin
        else ""
    )
    device = f" --device {trial.device}" if trial.device != "cpu" else ""
    cell = f"{trial.variant.name}/{trial.implementation.name}/{law.id}"
    return f"python3 -m harness check '{cell} {trial.case}'{plugin}{device}"


def render(law: Law, trial: Trial, error: Exception) -> str:
    """Return the screen for `error`, raised by `law` on `trial`."""
    lines = [
        f"{law.id} {law.name}: {law.statement}",
        f"domain:   {law.domain}",
        f"refutes:  {trial.variant.name}/{trial.implementation.name}",
        f"case:     {trial.case}",
        f"replay:   {replay_line(trial, law)}",
        "",
    ]
    if isinstance(error, Refuted):
        lines += _sides(error)
    else:
        place = traceback.extract_tb(error.__traceback__)[-1]
        lines += [f"raised {type(error).__name__}: {error}", f"at {place.filename}:{place.lineno}"]
    lines += ["", "inputs"]
    for name, tensor in leaves(trial.tensors).items():
        lines += _grid(name, tensor)
    return "\n".join(lines)


def _sides(error: Refuted) -> list[str]:
    lines = [error.message]
    if error.expected is None or error.got is None or not error.expected.numel():
        return lines
    difference = error.got - error.expected
    allowed = error.bound if error.bound is not None else difference.new_zeros(difference.shape)
    excess = (difference.abs() - allowed).nan_to_num(float("inf"), float("inf"))
    worst = int(excess.argmax())
    index = _unravel(worst, tuple(difference.shape))
    flat = [float(t.reshape(-1)[worst]) for t in (error.expected, error.got, difference, allowed)]
    lines.append(f"worst at {list(index)}: expected {flat[0]:.9g}, got {flat[1]:.9g}, "
                 f"difference {flat[2]:.3g}, allowed {flat[3]:.3g}")  # fmt: skip
    lines += [error.note] if error.note else []
    lines += _grid("expected", error.expected, index)
    lines += _grid("got", error.got, index)
    return lines + _grid("difference", difference, index)


def _unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        flat, rest = divmod(flat, size)
        index.append(rest)
    return tuple(reversed(index))


def _grid(name: str, tensor: Tensor, mark: tuple[int, ...] | None = None) -> list[str]:
    """Return `tensor` as planes of its last two axes, the entry `mark` in brackets."""
    shape = tuple(tensor.shape)
    head = f"{name} {shape}"
    if tensor.numel() == 0:
        return [f"{head}: empty"]
    values = tensor.detach().cpu().double()
    if tensor.numel() > LARGEST_GRID or shape[-1:] > (WIDEST_ROW,):
        return [f"{head}: {tensor.numel()} entries, {values.min():.4g} to {values.max():.4g}"]
    if tensor.dim() < 2:
        values, shape = values.reshape(1, -1), (1, tensor.numel())
        mark = (0,) * (2 - tensor.dim()) + mark if mark is not None else None
    planes = values.reshape(prod(shape[:-2]), *shape[-2:])
    words = [[[_number(v) for v in row] for row in plane] for plane in planes.tolist()]
    if mark is not None:
        *outer, row, column = mark
        plane = 0
        for size, position in zip(shape[:-2], outer, strict=True):
            plane = plane * size + position
        words[plane][row][column] = f"[{words[plane][row][column]}]"
    width = max(len(word) for plane in words for row in plane for word in row)
    lines = [head]
    for number, plane_words in enumerate(words):
        index = list(_unravel(number, shape[:-2]))
        label = f"{index} " if len(words) > 1 else ""
        for row_number, row_words in enumerate(plane_words):
            start = label if row_number == 0 else " " * len(label)
            lines.append("  " + start + " ".join(word.rjust(width) for word in row_words))
    return lines


def _number(value: float) -> str:
    if value.is_integer() and abs(value) < 1e9:
        return str(int(value))
    short = f"{value:.4g}"
    # 7.99999992 must not read as 8
    return f"{value:.9g}" if float(short).is_integer() else short
