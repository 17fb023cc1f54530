"""Faults of first derivatives alone: the values are right, a gradient is not."""

from typing import Any

import torch
from torch import Tensor

from harness.mutant import Mutant
from harness.variant import Function
from properties.spoiled_gradients import argument, output

# -- gradients that are wrong ----------------------------------------------------------------------


def _doubled(gradient: Tensor) -> Tensor:
    return 2 * gradient


def _lost(gradient: Tensor) -> Tensor:
    return torch.zeros_like(gradient)


def _shifted(gradient: Tensor) -> Tensor:
    return gradient.roll(1, -1)


def _flipped(gradient: Tensor) -> Tensor:
    return gradient.flip(-1)


def _border_twice(gradient: Tensor) -> Tensor:
    return torch.cat([2 * gradient[..., :1], gradient[..., 1:]], -1)


def _last_channel_lost(gradient: Tensor) -> Tensor:
    return torch.cat([gradient[:, :-1], 0 * gradient[:, -1:]], 1)


def _last_filter_lost(gradient: Tensor) -> Tensor:
    return torch.cat([gradient[:-1], 0 * gradient[-1:]])


def _clipped(gradient: Tensor) -> Tensor:
    return gradient.clamp(-3, 3)


def _decayed(gradient: Tensor) -> Tensor:
    return gradient + 0.25


def _rounded(gradient: Tensor) -> Tensor:
    return gradient.to(torch.bfloat16).to(gradient.dtype)


def _read_in_order(gradient: Tensor) -> Tensor:
    """Read memory as if it were contiguous."""
    if gradient.is_contiguous():
        return gradient
    held = gradient.untyped_storage().nbytes() // gradient.element_size()
    flat = gradient.as_strided((held - gradient.storage_offset(),), (1,))
    filled = torch.zeros(gradient.numel(), dtype=gradient.dtype)
    count = min(len(flat), len(filled))
    filled[:count] = flat[:count]
    return filled.view(gradient.shape)


def _first_of_shared(gradient: Tensor) -> Tensor:
    """Take a gradient that is shared along the batch for that of the first sample."""
    shared = gradient.numel() > 1 and gradient.stride(0) == 0
    return torch.cat([gradient[:1], 0 * gradient[1:]]) if shared else gradient


def _leaves_a_remainder(x: Any, weight: Any, *_: Any, **keywords: Any) -> bool:
    padding = keywords["padding"]
    axes = zip(x.shape[2:], weight.shape[2:], padding, keywords["dilation"], keywords["stride"],
               strict=True)  # fmt: skip
    return any((size + 2 * p - d * (k - 1) - 1) % s for size, k, p, d, s in axes)


def _several_groups(*_: Any, groups: int, **__: Any) -> bool:
    return groups > 1


def _padded(*_: Any, padding: Any, **__: Any) -> bool:
    return any(padding)


def _signal_is_constant(x: Any, *_: Any, **__: Any) -> bool:
    return not (x[0] if isinstance(x, tuple) and x[0] is not None else x).requires_grad


def _mask_is_shared(x: Any, *rest: Any, **_: Any) -> bool:
    mask = rest[-1]
    return isinstance(mask, Tensor) and mask.shape[0] == 1 < len(x)


def _weight_of_first_sample(right: Function) -> Function:
    """Teach the weight by the first sample alone."""

    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        if len(x) < 2:
            return right(x, weight, *rest, **keywords)
        learned = right(x, weight, *rest, **keywords)
        frozen = right(x, weight.detach(), *rest, **keywords)
        return torch.cat([learned[:1], frozen[1:]])

    return wrong


def _mask_of_first_sample(right: Function) -> Function:
    """Teach a shared mask by the first sample alone."""

    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        if mask.shape[0] != 1 or len(x) < 2:
            return right(x, weight, bias, mask, **keywords)
        copies = [mask, mask.detach().expand(len(x) - 1, *mask.shape[1:])]
        return right(x, weight, bias, torch.cat(copies), **keywords)

    return wrong


def _takes_no_gradient_twice(right: Function) -> Function:
    """Drop the gradient of leaves that hold one already."""

    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        stale = weight.is_leaf and weight.grad is not None
        return right(x, weight.detach() if stale else weight, *rest, **keywords)

    return wrong


PLAIN = {
    "signal_gradient_is_doubled": argument("x", _doubled),
    "signal_gradient_is_shifted": argument("x", _shifted),
    "signal_gradient_misses_a_channel": argument("x", _last_channel_lost, only=_several_groups),
    "signal_gradient_counts_the_border_twice": argument("x", _border_twice, only=_padded),
    "signal_gradient_is_lost_behind_the_stride": argument("x", _shifted, only=_leaves_a_remainder),
    "weight_gradient_is_flipped": argument("weight", _flipped),
    "weight_gradient_misses_a_filter": argument("weight", _last_filter_lost, only=_several_groups),
    "weight_gradient_needs_the_signal's": argument("weight", _doubled, only=_signal_is_constant),
    "weight_gradient_is_of_the_first_sample": _weight_of_first_sample,
    "bias_gradient_is_doubled": argument("bias", _doubled),
    "bias_gradient_is_lost": argument("bias", _lost),
    "gradients_are_clipped": output(_clipped),
    "gradients_decay": argument("weight", _decayed),
    "gradients_read_memory_in_order": output(_read_in_order),
    "gradients_take_the_first_of_what_is_shared": output(_first_of_shared),
    "gradients_are_not_accumulated": _takes_no_gradient_twice,
}
OTHERS = {
    "input_masked": {
        "signal_gradient_is_doubled": argument("x", _doubled),
        "mask_gradient_is_of_the_first_sample": _mask_of_first_sample,
        "weight_gradient_is_doubled_if_the_mask_is_shared": argument(
            "weight", _doubled, only=_mask_is_shared
        ),
    },
    "window_masked": {
        "weight_gradient_is_flipped": argument("weight", _flipped),
        "mask_gradient_is_of_the_first_sample": _mask_of_first_sample,
    },
    "kernel_masked": {
        "weight_gradient_is_doubled": argument("weight", _doubled),
        "signal_gradient_counts_the_border_twice": argument("x", _border_twice, only=_padded),
    },
    "partial": {
        "signal_gradient_is_shifted": argument("x", _shifted),
        "bias_gradient_is_doubled": argument("bias", _doubled),
    },
    "masked": {
        "signal_gradient_is_lost_behind_the_stride": argument(
            "x", _shifted, only=_leaves_a_remainder
        ),
        "bias_gradient_is_lost": argument("bias", _lost),
    },
    "multi_source": {
        "source_gradients_are_doubled": argument("x", _doubled),
        "weight_gradients_miss_a_filter": argument("weight", _last_filter_lost),
    },
    "tile_concat": {
        "source_gradients_are_doubled": argument("x", _doubled),
        "weight_gradient_misses_a_filter": argument("weight", _last_filter_lost),
    },
    "diff": {
        "signal_gradient_counts_the_border_twice": argument("x", _border_twice),
        "weight_gradient_is_flipped": argument("weight", _flipped),
    },
    "boundary": {
        "signal_gradient_counts_the_border_twice": argument("x", _border_twice),
        "bias_gradient_is_doubled": argument("bias", _doubled),
    },
}
# found by agreement: in the implementation alone
ONCE = {
    "signal_gradient_is_lost": argument("x", _lost),
    "weight_gradient_is_shifted": argument("weight", _shifted),
    "gradients_are_rounded_to_bfloat16": output(_rounded),
}

MUTANTS = [
    *(Mutant(name=name, variant="plain", spoil=s, in_oracle=True) for name, s in PLAIN.items()),
    *(
        Mutant(name=name, variant=variant, spoil=spoil, in_oracle=True)
        for variant, spoils in OTHERS.items()
        for name, spoil in spoils.items()
    ),
    *(Mutant(name=name, variant="plain", spoil=spoil) for name, spoil in ONCE.items()),
]
