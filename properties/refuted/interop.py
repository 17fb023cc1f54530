"""Faults that only torch's machinery meets, or what is not finite."""

from typing import Any

import torch

from harness.mutant import Mutant


def _branches_on_values(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        y = right(x, *rest, **keywords)
        return y if not x.numel() or x.is_meta or x.sum() == x.sum() else y.clone()

    return wrong


def _batch_is_baked_in(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        y = right(x, *rest, **keywords)
        return y.reshape(len(x), *y.shape[1:])  # len() is a number where a symbol is wanted

    return wrong


def _sample_by_sample(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        if x.shape[0] < 2:
            return right(x, *rest, **keywords)
        return torch.cat([right(one, *rest, **keywords) for one in x.split(1)])

    return wrong


def _output_is_on_the_cpu(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        y = right(x, *rest, **keywords)
        return torch.zeros(y.shape, dtype=y.dtype, device="cpu") + y

    return wrong


def _not_finite_is_cleaned(right: Any) -> Any:
    return lambda x, *rest, **keywords: right(x.nan_to_num(), *rest, **keywords)


def _mean_is_passed_through(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x, *rest, **keywords) + 0 * x.sum()

    return wrong


def _hole_is_multiplied(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        return right(x * (mask > 0), weight, bias, torch.ones_like(mask), **keywords)

    return wrong


_FAULTS = {
    "branches_on_values": _branches_on_values,
    "batch_is_baked_in": _batch_is_baked_in,
    "sample_by_sample": _sample_by_sample,
    "output_is_on_the_cpu": _output_is_on_the_cpu,
    "not_finite_is_cleaned": _not_finite_is_cleaned,
    "mean_is_passed_through": _mean_is_passed_through,
}
MUTANTS = [
    *(Mutant(name=name, variant="plain", spoil=spoil) for name, spoil in _FAULTS.items()),
    Mutant(name="hole_is_multiplied", variant="input_masked", spoil=_hole_is_multiplied),
]
