"""One call of an implementation: its arguments bound beforehand, its results read afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import DIFFERENTIABLE, Outputs, Refuted, as_outputs
from harness.tensors import another, each, leaves
from harness.variant import Implementation, Role, Value, Variant


class Call:
    """One cell's call: forward alone without gradients, or forward and backward.

    Arguments come bound (`bind`), so that a timed call does nothing but call. The result of a
    backward call is the outputs together with the gradients of `sum(output * dy)`.
    """

    def __init__(
        self, variant: Variant, implementation: Implementation, case: ConvCase, direction: str
    ) -> None:
        self.variant, self.case, self.backward = variant, case, direction == "backward"
        self.function, self.keywords = implementation.load(), variant.call_keywords(case)
        self.roles = {arg.name: arg.role for arg in variant.args}
        self._dy: Tensor | None = None

    @property
    def posed(self) -> Tensor | None:
        """The output's gradient, once it is known."""
        return self._dy

    def pose(self, case: ConvCase) -> None:
        """Turn to another case of the same shapes: the output's gradient is drawn from its seed."""
        self.case, self._dy = case, None

    def bind(self, tensors: Mapping[str, Value]) -> tuple[tuple[Value, ...], list[Tensor]]:
        """Return the arguments of a call: what the function takes, and what has a gradient."""
        if not self.backward:
            return tuple(tensors.values()), []
        fresh = {
            name: each(value, lambda t: t.detach().requires_grad_())
            if self.roles[name] in DIFFERENTIABLE else value
            for name, value in tensors.items()
        }  # fmt: skip
        return tuple(fresh.values()), list(leaves(self._differentiable(fresh)).values())

    def __call__(self, bound: tuple[tuple[Value, ...], list[Tensor]]) -> Any:
        """Call the implementation."""
        arguments, inputs = bound
        result = self.function(*arguments, **self.keywords)
        if not self.backward:
            return result
        output = result if isinstance(result, Tensor) else result.output
        if self._dy is None:
            self._dy = another(output.detach(), self.case, Role.WEIGHT, "dy")
        return result, torch.autograd.grad(output, inputs, self._dy, allow_unused=True)

    def read(self, result: Any, tensors: Mapping[str, Value]) -> tuple[Outputs, Outputs]:
        """Return outputs and gradients by name.

        Raises:
            Refuted: what was returned is no tensor, or computes when it is read.
        """
        if not self.backward:
            return _plain(result), {}
        result, found = result
        inputs = leaves(self._differentiable(tensors))
        gradients = {
            name: torch.zeros_like(tensor) if gradient is None else gradient
            for (name, tensor), gradient in zip(inputs.items(), found, strict=True)
        }
        return {name: value.detach() for name, value in _plain(result).items()}, gradients

    def _differentiable(self, tensors: Mapping[str, Value]) -> dict[str, Value]:
        return {name: v for name, v in tensors.items() if self.roles[name] in DIFFERENTIABLE}


def _plain(result: Any) -> Outputs:
    """Return the outputs by name, which must be there: not to be computed on access."""
    outputs = as_outputs(result)
    given = [result] if isinstance(result, Tensor) else [*tuple.__iter__(result)]
    given = [value for value in given if value is not None]
    for (name, value), entry in zip(outputs.items(), given, strict=True):
        if value is not entry:
            raise Refuted(f"{name} is made when it is read")
        if type(value) is not Tensor:
            raise Refuted(f"{name} is a {type(value).__name__}, expected a torch.Tensor itself")
    return outputs


def copied(found: tuple[Outputs, Outputs]) -> tuple[Outputs, Outputs]:
    """Return copies of outputs and gradients."""
    outputs, gradients = ({name: v.clone() for name, v in part.items()} for part in found)
    return outputs, gradients


def fill(target: Value, source: Value) -> None:
    """Copy values into the memory that is there."""
    pairs = zip(leaves({"": target}).values(), leaves({"": source}).values(), strict=True)
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.copy_(theirs)
