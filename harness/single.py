"""One sample without an axis for the batch, as `torch.nn.ConvNd` takes it: a batch of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from harness.tensors import each
from harness.variant import Role, Variant


def batch_of_one(variant: Variant, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """Return `tensors` with an axis for the batch wherever the arguments of a batch have one.

    These are the signal, noise, and masks over the signal, which come without it alike.
    """
    signal = variant.args[0].name
    return tuple(
        each(value, lambda tensor: tensor.unsqueeze(0))
        if arg.role in (Role.SIGNAL, Role.NOISE) or arg.covers == signal
        else value
        for arg, value in zip(variant.args, tensors, strict=True)
    )


def sample_of(result: Any) -> Any:
    """Return a batch of one, a tensor or a named tuple of them, without the batch's axis."""
    if result is None or isinstance(result, Tensor):
        return None if result is None else result.squeeze(0)
    return type(result)(*map(sample_of, result))
