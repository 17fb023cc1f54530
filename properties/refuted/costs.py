"""Faults that change no value, only what a call costs."""

from typing import Any

import torch

from harness.mutant import Mutant


def _convolves_twice(right: Any) -> Any:
    def wrong(*tensors: Any, **keywords: Any) -> Any:
        with torch.no_grad():
            right(*tensors, **keywords)
        return right(*tensors, **keywords)

    return wrong


def _keeps_a_copy(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x * torch.ones_like(x), *rest, **keywords)

    return wrong


def _holds_copies(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        held = [x.detach().clone() for _ in range(9)]
        y = right(x, *rest, **keywords)
        del held
        return y

    return wrong


def _makes_up_a_mask(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        if mask is None:
            ones = x.new_ones((1, 1, *x.shape[2:]))
            return type(right(x, weight, bias, None, **keywords))(
                right(x, weight, bias, ones, **keywords).output, None
            )
        return right(x, weight, bias, mask, **keywords)

    return wrong


def _masked_taps_are_multiplied(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, kernel_mask: Any, *rest: Any, **keywords: Any) -> Any:
        y = right(x, weight, bias, kernel_mask, *rest, **keywords)
        masked = torch.zeros_like(weight)
        return y + right(x, masked, None, torch.ones_like(kernel_mask), *rest, **keywords)

    return wrong


MUTANTS = [
    Mutant(name="convolves_twice", variant="plain", spoil=_convolves_twice),
    Mutant(name="a_copy_is_kept", variant="plain", spoil=_keeps_a_copy),
    Mutant(name="copies_are_held", variant="input_masked", spoil=_holds_copies),
    Mutant(name="absent_mask_is_made_up", variant="masked", spoil=_makes_up_a_mask),
    Mutant(
        name="masked_taps_are_multiplied", variant="kernel_masked", implementation="kept_taps",
        spoil=_masked_taps_are_multiplied,
    ),
]  # fmt: skip
