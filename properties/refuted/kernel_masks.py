"""Faults of convolutions with masked taps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.mutant import Function, Mutant


def _on_kernel_mask(change: Callable[[Tensor], Tensor]) -> Callable[[Function], Function]:
    """Return a fault that convolves with `change(k)`."""

    def spoil(right: Function) -> Function:
        def wrong(
            x: Any, weight: Any, bias: Any, kernel_mask: Any, *rest: Any, **keywords: Any
        ) -> Any:
            return right(x, weight, bias, change(kernel_mask), *rest, **keywords)

        return wrong

    return spoil


def _rolled(kernel_mask: Tensor) -> Tensor:
    return kernel_mask.roll(1, -1)


def _inverted(kernel_mask: Tensor) -> Tensor:
    return ~kernel_mask if kernel_mask.dtype == torch.bool else 1 - kernel_mask


def _last_tap_kept(kernel_mask: Tensor) -> Tensor:
    leaky = kernel_mask.clone()
    leaky[..., -1] = 1
    return leaky


def _multiplies(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, kernel_mask: Any, *rest: Any, **keywords: Any) -> Any:
        masked = weight * kernel_mask
        return right(x, masked, bias, kernel_mask, *rest, **keywords) + 0 * masked.sum()

    return wrong


def _gradient_passes_the_mask(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, kernel_mask: Any, *rest: Any, **keywords: Any) -> Any:
        dense = right(x, weight, None, torch.ones_like(kernel_mask), *rest, **keywords)
        y = right(x, weight, bias, kernel_mask, *rest, **keywords)
        return y + (dense - dense.detach())

    return wrong


def _rescales(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, kernel_mask: Any, *rest: Any, **keywords: Any) -> Any:
        share = max(float(kernel_mask.double().mean()), 2.0**-10)
        return right(x, weight / share, bias, kernel_mask, *rest, **keywords)

    return wrong


def _first_filter_for_all(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, kernel_mask: Any, *rest: Any, **keywords: Any) -> Any:
        shared = kernel_mask[:1] if kernel_mask.dim() == weight.dim() else kernel_mask
        return right(x, weight, bias, shared, *rest, **keywords)

    return wrong


def _bias_is_masked_with_the_taps(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, kernel_mask: Any, *rest: Any, **keywords: Any) -> Any:
        kept = bias if bias is None or bool((kernel_mask > 0).any()) else 0 * bias
        return right(x, weight, kept, kernel_mask, *rest, **keywords)

    return wrong


def _support_of_every_tap(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, kernel_mask: Any, *rest: Any, **keywords: Any) -> Any:
        if keywords.get("bias_where") != "support" or bias is None:
            return right(x, weight, bias, kernel_mask, *rest, **keywords)
        term = right(x, 0 * weight, bias, torch.ones_like(kernel_mask), *rest, **keywords)
        return right(x, weight, None, kernel_mask, *rest, **keywords) + term

    return wrong


def _planted(name: str, spoil: Callable[[Function], Function], in_oracle: bool = True) -> Mutant:
    return Mutant(name=name, variant="kernel_masked", spoil=spoil, in_oracle=in_oracle)


MUTANTS = [
    _planted("kernel_mask_is_ignored", _on_kernel_mask(torch.ones_like)),
    _planted("kernel_mask_is_inverted", _on_kernel_mask(_inverted)),
    _planted("kernel_mask_is_off_by_one_tap", _on_kernel_mask(_rolled)),
    _planted("last_tap_is_always_kept", _on_kernel_mask(_last_tap_kept)),
    _planted("masked_taps_are_multiplied_by_zero", _multiplies),
    _planted("gradient_passes_the_mask", _gradient_passes_the_mask),
    _planted("kept_taps_are_rescaled", _rescales),
    _planted("mask_of_the_first_filter_serves_all", _first_filter_for_all),
    _planted("bias_vanishes_with_the_last_tap", _bias_is_masked_with_the_taps),
    _planted("support_counts_masked_taps", _support_of_every_tap),
    _planted("kernel_mask_is_flipped", _on_kernel_mask(lambda k: k.flip(-1)), in_oracle=False),
]
