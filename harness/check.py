"""Run one law on one trial: the only place where values are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import ConvCase
from harness.tensors import another, each, make_tensors, torch_dtype
from harness.tolerance import (
    Bound,
    effective_roundoff,
    error_bound,
    is_exact,
    is_transform,
    reads_tf32,
    relative_bound,
)
from harness.truth import (
    DIFFERENTIABLE,
    Known,
    Outputs,
    Refuted,
    as_outputs,
    expected_dtype,
    gradients_of,
    known_gradients,
    known_outputs,
    said,
    true_outputs,
    widened,
)
from harness.variant import Implementation, Role, Value, Variant

__all__ = [
    "DIFFERENTIABLE", "Closeness", "ConvCase", "Outputs", "Refuted", "Trial", "as_outputs",
    "expected_dtype",
]  # fmt: skip


@dataclass(slots=True)
class Closeness:
    """What the comparisons of one trial came to: the largest error over its bound, and trust."""

    error_over_bound: float = 0.0
    compared: int = 0
    vacuous: int = 0
    tier: str = "T0"


class Trial:
    """What a law sees: the callable, the variant, the case and its tensors.

    `trial(x=value)` calls the implementation with one argument replaced; `truth` and `bound` are
    the oracle's float64 outputs and the error that the tolerance tiers allow.
    """

    def __init__(
        self, variant: Variant, implementation: Implementation, case: ConvCase, device: str = "cpu",
        variants: Mapping[str, Variant] | None = None,
    ) -> None:  # fmt: skip
        self.variant, self.implementation, self.case, self.device = (
            variant,
            implementation,
            case,
            device,
        )
        self.function = implementation.load()
        self.keywords = variant.call_keywords(case)
        self.tensors = make_tensors(variant, case, device)
        self.variants = variants or {}
        self.closeness = Closeness()

    # -- calling -------------------------------------------------------------------------------

    def __call__(self, **replaced: Value) -> Outputs:
        """Return the implementation's outputs by field name."""
        arguments = {**self.tensors, **replaced}
        return as_outputs(self.function(*arguments.values(), **self.keywords))

    def called(self, keywords: Mapping[str, Any], **replaced: Value) -> Outputs:
        """Return the outputs with some keyword arguments changed, and arguments replaced."""
        arguments = {**self.tensors, **replaced}
        return as_outputs(self.function(*arguments.values(), **{**self.keywords, **keywords}))

    def truth(self, **replaced: Value) -> Outputs:
        """Return the oracle's outputs in float64, on the CPU."""
        if not replaced:
            return known_outputs(self.variant, self.case).values
        return true_outputs(self.variant, self.keywords, {**self.tensors, **replaced})

    def bound(self, **replaced: Value) -> dict[str, Bound]:
        """Return the allowed error of every output."""
        if not replaced:
            known = known_outputs(self.variant, self.case)
        else:
            known = said(self.variant, self.case, self.keywords, {**self.tensors, **replaced})
        return self._bounds(known, lambda: self._of_reference(**replaced))

    def room(self) -> float:
        """Return by how much the outputs could grow before any result on the way overflows."""
        limit = torch.finfo(torch_dtype(self.case.dtype)).max
        known = known_outputs(self.variant, self.case)
        sizes = [*known.sizes.values(), *known.widest.values()]
        return limit / max(1.0, *(float(size.max()) for size in sizes if size.numel()))

    def other(self, name: str) -> Callable[..., Any]:
        """Return the oracle of another variant, for laws that relate two."""
        return self.variants[name].oracle

    def wide(self, name: str) -> Any:
        """Return argument `name` in float64 on the CPU, for another variant's oracle."""
        return each(self.tensors[name], widened)

    def layer(self, **replaced: Value) -> tuple[nn.Module, tuple[Any, ...]]:
        """Return the implementation as a layer that holds the case's parameters, and its inputs."""
        assert self.implementation.layer is not None, "only laws of layers ask for one"
        return self.implementation.layer(self.case, {**self.tensors, **replaced})

    def declared(self, cost: str) -> int | None:
        """Return what the implementation declares as its `cost` on this case; None = nothing."""
        declare = self.implementation.cost
        known = declare and getattr(declare(self.case, self.tensors), cost)
        return known if isinstance(known, int) else None

    # -- tensors -------------------------------------------------------------------------------

    def names(self, *roles: Role) -> list[str]:
        """Return the names of the arguments with one of `roles` that this case has."""
        found = [arg.name for arg in self.variant.args if arg.role in roles]
        return [name for name in found if self.tensors[name] is not None]

    def another(self, name: str, salt: str = "another") -> Value:
        """Return a second value for argument `name`."""
        role = next(arg.role for arg in self.variant.args if arg.name == name)
        counter = iter(range(99))
        return each(
            self.tensors[name],
            lambda t: another(t, self.case, role, f"{salt}/{name}/{next(counter)}"),
        )

    def combined(
        self, name: str, other: Value, function: Callable[[Tensor, Tensor], Tensor]
    ) -> Value:
        """Return `function(own, other)` for every tensor of argument `name`."""
        own = self.tensors[name]
        if isinstance(own, tuple):
            assert isinstance(other, tuple)
            pairs = zip(own, other, strict=True)
            return tuple(None if a is None or b is None else function(a, b) for a, b in pairs)
        return None if own is None or not isinstance(other, Tensor) else function(own, other)

    # -- gradients -----------------------------------------------------------------------------

    def gradients(self, **replaced: Value) -> Outputs:
        """Return the gradient of `sum(output * dy)` for every differentiable tensor, by name."""
        arguments = {**self.tensors, **replaced}
        return gradients_of(self.variant, self.case, self.function, self.keywords, arguments)

    def true_gradients(self, **replaced: Value) -> Outputs:
        """Return the oracle's gradients in float64."""
        if not replaced:
            return known_gradients(self.variant, self.case).values
        arguments = {k: each(v, widened) for k, v in {**self.tensors, **replaced}.items()}
        return gradients_of(self.variant, self.case, self.variant.oracle, self.keywords, arguments)

    def gradient_bound(self) -> dict[str, Bound]:
        """Return the allowed error of every gradient."""
        known = known_gradients(self.variant, self.case)
        function = self.variant.reference.load
        return self._bounds(
            known,
            lambda: gradients_of(self.variant, self.case, function(), self.keywords, self.tensors),
        )

    def _of_reference(self, **replaced: Value) -> Outputs:
        arguments = {**self.tensors, **replaced}
        return as_outputs(self.variant.reference.load()(*arguments.values(), **self.keywords))

    def _bounds(self, known: Known, reference: Callable[[], Outputs]) -> dict[str, Bound]:
        """Return the bounds of this implementation's values; `reference` computes them too."""
        transform = is_transform(self.implementation, self.case, self.device)
        judged = self.variant.reference if transform else self.implementation
        tf32 = reads_tf32(self.case, self.device)
        key = (judged, transform, tf32)
        if key not in known.bounds:
            exact = {} if transform else self._exact(known, tf32)
            known.bounds[key] = {
                name: error_bound(
                    self.variant, self.case, known.tensors, truth, known.sizes[name],
                    known.directions.get(name), implementation=judged,
                    widest=known.widest.get(name), tf32=tf32, exact=exact.get(name, False),
                )
                for name, truth in known.values.items()
            }  # fmt: skip
        bounds = known.bounds[key]
        if not transform:
            return bounds
        errors = {n: (widened(v) - known.values[n]).abs() for n, v in reference().items()}
        return {name: relative_bound(errors[name], bound) for name, bound in bounds.items()}

    def _exact(self, known: Known, tf32: bool) -> dict[str, bool]:
        """Return which values are computed without rounding, whichever way."""
        if tf32 not in known.exact:
            known.exact[tf32] = {
                name: is_exact(
                    self.variant, self.case, known.tensors, truth, known.sizes[name],
                    widest=known.widest.get(name), tf32=tf32,
                )
                for name, truth in known.values.items()
            }  # fmt: skip
        return known.exact[tf32]

    # -- comparing -----------------------------------------------------------------------------

    def agree(
        self,
        got: Outputs,
        expected: Outputs,
        bound: Mapping[str, Bound] | Callable[[], Mapping[str, Bound]] | None = None,
        what: str = "",
    ) -> None:
        """Raise Refuted unless every field of `got` is within its bound of `expected`.

        Shape comes before values, non-finite entries are compared as sets, and signed zeros are
        equal. Without `bound` the two must be equal; one that is still to be computed is so only
        where a field is not.
        """
        if got.keys() != expected.keys():
            raise Refuted(
                f"{what or 'result'}: fields {sorted(got)} where {sorted(expected)} are expected"
            )
        for name, right in expected.items():
            label = f"{what}: {name}" if what else name
            if callable(bound) and not torch.equal(widened(got[name]), widened(right)):
                bound = bound()
            own = bound[name] if isinstance(bound, Mapping) else None
            self._compare(label, got[name], right, own)

    def _compare(self, label: str, got: Tensor, expected: Tensor, bound: Bound | None) -> None:
        if got.shape != expected.shape:
            raise Refuted(
                f"{label}.shape={tuple(got.shape)} where {tuple(expected.shape)} is expected"
            )
        left, right = widened(got), widened(expected)
        allowed = bound.error if bound else torch.zeros_like(right)
        tier = bound.tier if bound else "T0"
        self._note(right, allowed, tier)
        if torch.equal(left, right):
            return
        difference = (left - right).abs()
        same = (left == right) | (left.isnan() & right.isnan()) | allowed.isinf()
        wrong = ~(same | (difference <= allowed))
        if bool(wrong.any()):
            note = _derivation(difference, right, bound) if bound else ""
            raise Refuted(f"{label} differs", expected=right, got=left, bound=allowed, note=note)
        if tier != "T0":
            ratio = float((difference / allowed.clamp(min=2.0**-1000)).nan_to_num(0.0).max())
            self.closeness.error_over_bound = max(self.closeness.error_over_bound, ratio)

    def _note(self, right: Tensor, allowed: Tensor, tier: str) -> None:
        """Note what is compared, and whether that says anything."""
        note = self.closeness
        note.compared += 1
        note.tier = max(note.tier, tier)
        if entries := right.numel():
            zeros = int(right.count_nonzero()) < 0.3 * entries
            loose = tier != "T0" and int((allowed >= right.abs()).sum()) > 0.5 * entries
            note.vacuous += zeros or loose

    def require(self, condition: bool, message: str) -> None:
        """Raise Refuted with `message` unless `condition`."""
        if not condition:
            raise Refuted(message)


def _derivation(difference: Tensor, right: Tensor, bound: Bound) -> str:
    """Return what a difference says about the roundings that its bound assumes."""
    if bound.magnitude is None or not bool(difference.isfinite().all()):
        return ""
    over, shown = effective_roundoff(difference, bound)
    worst = int((difference / bound.error).nan_to_num(0.0, 0.0).argmax())
    size, value = (float(t.reshape(-1)[worst]) for t in (bound.magnitude, right.abs()))
    condition = f"{size / value:.3g}" if value else "infinite"
    return (
        f"error over bound {over:.3g}; effective u = error / (n Y) = {shown:.3g} where "
        f"u = {bound.roundoff:.3g} is declared, n = {bound.roundings}; condition {condition}"
    )
