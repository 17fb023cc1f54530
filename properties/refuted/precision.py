"""Faults of precision: right in exact arithmetic, wrong in some dtype."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.mutant import Mutant
from harness.taps import taps


def _lowered(to: dict[torch.dtype, torch.dtype]) -> Callable[[Any], Any]:
    """Return the fault that computes in a lower precision and stores in that of the signal."""

    def spoil(right: Any) -> Any:
        def wrong(x: Tensor, weight: Tensor, bias: Tensor | None, **keywords: Any) -> Tensor:
            below = to.get(x.dtype, x.dtype)
            tensors = (t if t is None else t.to(below) for t in (x, weight, bias))
            return right(*tensors, **keywords).to(x.dtype)

        return wrong

    return spoil


def _adds_up_in_memory(right: Any) -> Any:
    """Return the sum over channels and taps, each partial sum stored in the dtype of the signal."""
    del right

    def wrong(
        x: Tensor, weight: Tensor, bias: Tensor | None, *, groups: int, **geometry: Any
    ) -> Tensor:
        filters = weight.unflatten(0, (groups, -1))
        y = x.new_zeros(())
        for tap, window in taps(x, weight.shape[2:], **geometry):
            split = window.unflatten(1, (groups, 1, -1)).unbind(3)
            columns = filters[(..., *tap)].unbind(2)
            for part, column in zip(split, columns, strict=True):
                shape = (1, *column.shape, *(1 for _ in part.shape[3:]))
                y = y + part * column.view(shape)
        y = y.flatten(1, 2)
        return y if bias is None else y + bias.view(-1, *(1 for _ in y.shape[2:]))

    return wrong


def _last_column_is_off_by(share: float) -> Callable[[Any], Any]:
    def spoil(right: Any) -> Any:
        def wrong(*arguments: Any, **keywords: Any) -> Tensor:
            y = right(*arguments, **keywords)
            return torch.cat([y[..., :-1], y[..., -1:] * (1 + share)], dim=-1)

        return wrong

    return spoil


def _counts_in_the_dtype_of_the_signal(right: Any) -> Any:
    """Add up the shares of a window that are present, each rounded, instead of counting them."""

    def wrong(
        x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, *, groups: int,
        **geometry: Any,
    ) -> Any:  # fmt: skip
        fresh = right(x, weight, None, mask, groups=groups, **geometry)
        held = x.new_ones((1, 1, *x.shape[2:])) if mask is None else mask.to(x.dtype)
        several = groups if held.shape[1] > 1 else 1
        held = held.unflatten(1, (several, -1))
        present, count = x.new_zeros(()), torch.zeros((), dtype=torch.float64)
        size = weight.shape[2:]
        share = torch.tensor(1 / (size.numel() * held.shape[2]), dtype=torch.float64).to(x)
        for _, window in taps(held.flatten(1, 2), size, **geometry):
            split = window.unflatten(1, (several, -1))
            for part in split.unbind(2):
                present, count = present + part * share, count + part.double()
        expected = count / (size.numel() * held.shape[2])
        factor = torch.where(expected > 0, expected / present.double(), 1.0)
        factor = factor.repeat_interleave(weight.shape[0] // several if several > 1 else 1, 1)
        output = fresh.output.double() * factor
        if bias is not None:
            output = output + bias.view(-1, *(1 for _ in size)).double() * fresh.mask.double()
        return fresh._replace(output=output.to(x.dtype))

    return wrong


_STEP_DOWN = {
    torch.float64: torch.float32,
    torch.float32: torch.bfloat16,
    torch.float16: torch.bfloat16,
}
_PLAIN = {
    "computes_in_the_precision_below": _lowered(_STEP_DOWN),
    "adds_up_in_memory": _adds_up_in_memory,
    "last_column_is_off_by_a_millionth": _last_column_is_off_by(1e-6),
    "last_column_is_off_by_a_hundredth": _last_column_is_off_by(1e-2),
}

MUTANTS = [
    *(Mutant(name=name, variant="plain", spoil=spoil) for name, spoil in _PLAIN.items()),
    Mutant(
        name="counts_in_the_dtype_of_the_signal", variant="partial",
        spoil=_counts_in_the_dtype_of_the_signal,
    ),
]  # fmt: skip
