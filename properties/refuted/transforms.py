"""Faults under torch's transforms: values and gradients are right until they are transformed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.mutant import Mutant
from harness.tensors import each
from harness.variant import Function
from properties.spoiled_gradients import argument, output


class _Mapped(torch.autograd.Function):
    """A copy, which a map over a new axis gets wrong: it rolls that axis."""

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient

    @staticmethod
    def jvp(_: Any, tangent: Tensor) -> Tensor:
        return tangent.clone()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], value: Tensor) -> tuple[Tensor, int]:
        del info
        return _Mapped.apply(value.roll(1, in_dims[0])), in_dims[0]


def _rolled_when_mapped(place: int) -> Callable[[Function], Function]:
    """Return the fault of mixing up the entries of a mapped argument."""

    def spoil(right: Function) -> Function:
        def wrong(*tensors: Any, **keywords: Any) -> Any:
            rolled = each(tensors[place], _Mapped.apply)
            return right(*tensors[:place], rolled, *tensors[place + 1 :], **keywords)

        return wrong

    return spoil


def _detached(gradient: Tensor) -> Tensor:
    return gradient.detach()


def _frozen_twice(gradient: Tensor) -> Tensor:
    """Return the gradient itself, and twice its own derivative."""
    return 2 * gradient - gradient.detach()


def _doubled(tangent: Tensor) -> Tensor:
    return 2 * tangent


def _lost(tangent: Tensor) -> Tensor:
    return torch.zeros_like(tangent)


def _shifted(tangent: Tensor) -> Tensor:
    return tangent.roll(1, -1)


def _squared(right: Function) -> Function:
    """Add a term that is 0, with a gradient of 0, and a second derivative that is not."""

    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x + (x - x.detach()) ** 2, *rest, **keywords)

    return wrong


_FAULTS = {
    "plain": {
        "second_derivative_of_the_signal_is_dropped": argument("x", _detached),
        "second_derivative_of_the_weight_is_dropped": argument("weight", _detached),
        "second_derivative_along_dy_is_dropped": output(_detached),
        "second_derivative_is_doubled": argument("x", _frozen_twice),
        "signal_has_a_second_derivative": _squared,
        "tangents_of_the_signal_are_doubled": argument("x", push=_doubled),
        "tangents_of_the_weight_are_lost": argument("weight", push=_lost),
        "tangents_of_the_bias_are_doubled": argument("bias", push=_doubled),
        "mapped_signals_are_mixed_up": _rolled_when_mapped(0),
        "mapped_weights_are_mixed_up": _rolled_when_mapped(1),
    },
    "input_masked": {
        "second_derivative_is_dropped": argument("x", _detached),
        "mapped_signals_are_mixed_up": _rolled_when_mapped(0),
    },
    "window_masked": {
        "tangents_of_the_signal_are_shifted": argument("x", push=_shifted),
    },
    "kernel_masked": {
        "second_derivative_of_the_weight_is_dropped": argument("weight", _detached),
        "mapped_weights_are_mixed_up": _rolled_when_mapped(1),
    },
    "partial": {
        "second_derivative_is_doubled": argument("x", _frozen_twice),
        "tangents_of_the_weight_are_lost": argument("weight", push=_lost),
    },
    "masked": {
        "tangents_of_the_bias_are_doubled": argument("bias", push=_doubled),
        "mapped_signals_are_mixed_up": _rolled_when_mapped(0),
    },
    "multi_source": {
        "tangents_of_the_sources_are_doubled": argument("x", push=_doubled),
    },
    "tile_concat": {
        "second_derivative_is_dropped": argument("x", _detached),
    },
    "diff": {
        "second_derivative_of_the_signal_is_dropped": argument("x", _detached),
        "tangents_of_the_signal_are_doubled": argument("x", push=_doubled),
    },
    "boundary": {
        "second_derivative_along_dy_is_dropped": output(_detached),
        "mapped_weights_are_mixed_up": _rolled_when_mapped(1),
    },
}

MUTANTS = [
    Mutant(name=name, variant=variant, spoil=spoil, in_oracle=True)
    for variant, spoils in _FAULTS.items()
    for name, spoil in spoils.items()
]
