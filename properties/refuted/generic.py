"""Faults that any convolution can have, planted into the plain one."""

from typing import Any

import torch

from harness.mutant import Mutant


def _kernel_is_flipped(right: Any) -> Any:
    return lambda x, weight, *rest, **keywords: right(x, weight.flip(-1), *rest, **keywords)


def _bias_is_added_twice(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x, weight, None if bias is None else 2 * bias, *rest, **keywords)

    return wrong


def _gradient_is_detached(right: Any) -> Any:
    return lambda x, weight, *rest, **keywords: right(x, weight.detach(), *rest, **keywords)


def _last_column_is_off(right: Any) -> Any:
    def wrong(*arguments: Any, **keywords: Any) -> Any:
        y = right(*arguments, **keywords)
        return torch.cat([y[..., :-1], y[..., -1:] * (1 + 1e-6)], dim=-1)

    return wrong


def _signal_is_rounded_to_float16(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x.to(torch.float16).to(x.dtype), *rest, **keywords)

    return wrong


def _dilation_is_ignored(right: Any) -> Any:
    def wrong(x: Any, weight: Any, *rest: Any, dilation: Any, **keywords: Any) -> Any:
        y = right(x, weight, *rest, dilation=dilation, **keywords)
        dense = right(x, weight, *rest, dilation=(1,) * len(dilation), **keywords)
        return dense[tuple(slice(0, size) for size in y.shape)]

    return wrong


def _groups_are_interleaved(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, groups: Any, **keywords: Any) -> Any:
        shuffled = x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
        return right(shuffled, *rest, groups=groups, **keywords)

    return wrong


def _negative_signal_is_cut(right: Any) -> Any:
    return lambda x, *rest, **keywords: right(x.clamp(min=-3), *rest, **keywords)


def _weight_is_normalised(right: Any) -> Any:
    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x, weight / weight.abs().amax().clamp(min=2), *rest, **keywords)

    return wrong


def _first_sample_leaks(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x + x[:1] / 2, *rest, **keywords)

    return wrong


def _last_stride_starts_late(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, stride: Any, **keywords: Any) -> Any:
        moved = x.roll(-1, -1) if stride[-1] > 1 else x
        return right(moved, *rest, stride=stride, **keywords)

    return wrong


def _memory_is_read_in_order(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        if not x.is_contiguous() and x.untyped_storage().nbytes() == x.numel() * x.element_size():
            x = x.as_strided(x.shape, torch.empty(x.shape, device="meta").stride())
        return right(x, *rest, **keywords)

    return wrong


def _signal_is_changed_in_place(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        y = right(x, *rest, **keywords)
        x.data.add_(1)
        return y

    return wrong


def _result_of_a_shape_is_kept(right: Any) -> Any:
    kept: dict[Any, Any] = {}

    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        key = (x.shape, weight.shape, x.dtype)
        bias_free = right(x, kept.setdefault(key, weight.detach().clone()), *rest, **keywords)
        kept[key] = weight.detach().clone()
        return bias_free

    return wrong


def _epsilon_is_added(right: Any) -> Any:
    return lambda x, *rest, **keywords: right(x + 1e-8, *rest, **keywords)


def _default_dtype_is_used(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x, *rest, **keywords).to(torch.get_default_dtype()).to(x.dtype)

    return wrong


def _empty_batch_is_refused(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        if not x.shape[0]:
            raise ValueError("an empty batch")
        return right(x, *rest, **keywords)

    return wrong


_FAULTS = {
    "kernel_is_flipped": _kernel_is_flipped,
    "bias_is_added_twice": _bias_is_added_twice,
    "gradient_is_detached": _gradient_is_detached,
    "last_column_is_off": _last_column_is_off,
    "signal_is_rounded_to_float16": _signal_is_rounded_to_float16,
    "dilation_is_ignored": _dilation_is_ignored,
    "groups_are_interleaved": _groups_are_interleaved,
    "negative_signal_is_cut": _negative_signal_is_cut,
    "weight_is_normalised": _weight_is_normalised,
    "first_sample_leaks": _first_sample_leaks,
    "last_stride_starts_late": _last_stride_starts_late,
    "memory_is_read_in_order": _memory_is_read_in_order,
    "signal_is_changed_in_place": _signal_is_changed_in_place,
    "result_of_a_shape_is_kept": _result_of_a_shape_is_kept,
    "epsilon_is_added": _epsilon_is_added,
    "default_dtype_is_used": _default_dtype_is_used,
    "empty_batch_is_refused": _empty_batch_is_refused,
}
_IN_ORACLE_TOO = {"kernel_is_flipped", "negative_signal_is_cut", "weight_is_normalised",
                  "first_sample_leaks", "last_stride_starts_late", "epsilon_is_added"}  # fmt: skip

MUTANTS = [
    *(Mutant(name=name, variant="plain", spoil=spoil) for name, spoil in _FAULTS.items()),
    *(
        Mutant(name=f"{name}_everywhere", variant="plain", spoil=_FAULTS[name], in_oracle=True)
        for name in sorted(_IN_ORACLE_TOO)
    ),
]
