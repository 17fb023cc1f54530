"""What the oracle says of a case: values, gradients and their sizes, computed once and shared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.tensors import another, each, leaves, make_tensors, torch_dtype
from harness.tolerance import LOW_PRECISION, Bound
from harness.variant import Implementation, Role, Value, Variant

Outputs = dict[str, Tensor]
DIFFERENTIABLE = (Role.SIGNAL, Role.WEIGHT, Role.BIAS, Role.NOISE)


class Refuted(Exception):
    """A law does not hold: what was compared, and both sides where they are tensors."""

    def __init__(
        self, message: str, *, expected: Tensor | None = None, got: Tensor | None = None,
        bound: Tensor | None = None, note: str = "",
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.message, self.expected, self.got, self.bound = message, expected, got, bound
        self.note = note


def as_outputs(result: Any) -> Outputs:
    """Return the outputs of a functional form by field name; absent ones (None) are left out."""
    if isinstance(result, Tensor):
        return {"output": result}
    if isinstance(result, tuple) and hasattr(result, "_asdict"):
        return {name: value for name, value in result._asdict().items() if value is not None}
    raise Refuted(f"returned {type(result).__name__}, expected a tensor or a NamedTuple of tensors")


@dataclass(frozen=True)
class Known:
    """What the oracle says of a case: computed once, shared by laws and implementations.

    `directions` are the roles of the arguments whose gradients the values are. `measure(least)`
    computes the same of absolute values of at least `least`; it is asked only where two results
    differ.
    """

    tensors: Mapping[str, Value]
    values: Outputs
    measure: Callable[[float], Outputs]
    is_low: bool
    directions: Mapping[str, Role] = field(default_factory=dict)
    bounds: dict[tuple[Implementation, bool, bool], dict[str, Bound]] = field(default_factory=dict)
    exact: dict[bool, dict[str, bool]] = field(default_factory=dict)

    @functools.cached_property
    def sizes(self) -> Outputs:
        """The sums of absolute values."""
        return self.measure(0.0)

    @functools.cached_property
    def widest(self) -> Outputs:
        """The same of factors of at least 1, in low precision alone."""
        return self.measure(1.0) if self.is_low else {}


@functools.lru_cache(maxsize=1024)
def known_outputs(variant: Variant, case: ConvCase) -> Known:
    """Return what the oracle says of the outputs."""
    return said(variant, case, variant.call_keywords(case), make_tensors(variant, case))


@functools.lru_cache(maxsize=1024)
def known_gradients(variant: Variant, case: ConvCase) -> Known:
    """Return what the oracle says of the gradients."""
    keywords = variant.call_keywords(case)
    tensors = {name: each(value, widened) for name, value in make_tensors(variant, case).items()}
    roles = {arg.name: arg.role for arg in variant.args}
    values = gradients_of(variant, case, variant.oracle, keywords, tensors)

    def measure(least: float) -> Outputs:
        factors, oracle = _factors(variant, tensors, least), variant.magnitude or variant.oracle
        return gradients_of(variant, case, oracle, keywords, factors, least=least)

    return Known(
        tensors=tensors,
        values=values,
        measure=measure,
        is_low=_is_low(case),
        directions={name: roles[name.split("[")[0]] for name in values},
    )


def _is_low(case: ConvCase) -> bool:
    return case.dtype in LOW_PRECISION


def widened(tensor: Tensor) -> Tensor:
    """Return a tensor in float64 on the CPU, without its history."""
    return tensor.detach().to(device="cpu", dtype=torch.float64)


def _factors(variant: Variant, tensors: Mapping[str, Value], least: float) -> dict[str, Value]:
    """Return absolute values; of at least `least` where that is more than 0, all present.

    Where it is 1 no intermediate result exceeds the products of these factors.
    """
    masks = {arg.name for arg in variant.args if arg.role is Role.MASK}

    def widen(tensor: Tensor) -> Tensor:
        return tensor.nan_to_num(1.0, 1.0, 1.0).abs().clamp(min=least)

    if not least:
        return {k: v if k in masks else each(v, torch.abs) for k, v in tensors.items()}
    return {k: each(v, torch.ones_like if k in masks else widen) for k, v in tensors.items()}


def true_outputs(
    variant: Variant, keywords: Mapping[str, Any], tensors: Mapping[str, Value]
) -> Outputs:  # fmt: skip
    """Return the oracle's outputs in float64, on the CPU."""
    return as_outputs(variant.oracle(*(each(v, widened) for v in tensors.values()), **keywords))


def said(
    variant: Variant, case: ConvCase, keywords: Mapping[str, Any], tensors: Mapping[str, Value]
) -> Known:
    """Return what the oracle says of the outputs for these tensors."""
    wide = {name: each(value, widened) for name, value in tensors.items()}

    def measure(least: float) -> Outputs:
        oracle = variant.magnitude or variant.oracle
        return as_outputs(oracle(*_factors(variant, wide, least).values(), **keywords))

    return Known(
        tensors=wide,
        values=as_outputs(variant.oracle(*wide.values(), **keywords)),
        measure=measure,
        is_low=_is_low(case),
    )


def gradients_of(
    variant: Variant, case: ConvCase, function: Callable[..., Any], keywords: Mapping[str, Any],
    tensors: Mapping[str, Value], least: float = -1.0,
) -> Outputs:  # fmt: skip
    """Return the gradients of `sum(output * dy)` by the inputs' names.

    Where `least` is not negative, `dy` is replaced by its absolute value, at least `least`.
    """
    roles = {arg.name: arg.role for arg in variant.args}
    fresh = {
        name: each(value, lambda t: t.detach().requires_grad_())
        if roles[name] in DIFFERENTIABLE else value
        for name, value in tensors.items()
    }  # fmt: skip
    output = as_outputs(function(*fresh.values(), **keywords))["output"]
    inputs = leaves({name: value for name, value in fresh.items() if roles[name] in DIFFERENTIABLE})
    dy = another(output.detach(), case, Role.WEIGHT, "dy")
    dy = dy if least < 0 else dy.abs().clamp(min=least)
    found = torch.autograd.grad(output, list(inputs.values()), dy, allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(inputs.items(), found, strict=True)
    }


def expected_dtype(case: ConvCase) -> torch.dtype:
    """Return the dtype that every output of `case` must have."""
    return torch_dtype(case.dtype)
