"""Run one law on one trial: the only place where values are compared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import ConvCase
from harness.tensors import another, each, leaves, make_tensors, torch_dtype
from harness.tolerance import (
    LOW_PRECISION,
    Bound,
    effective_roundoff,
    error_bound,
    is_exact,
    is_transform,
    reads_tf32,
    relative_bound,
)
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
            return _known(self.variant, self.case).values
        return _oracle(self.variant, self.keywords, {**self.tensors, **replaced})

    def bound(self, **replaced: Value) -> dict[str, Bound]:
        """Return the allowed error of every output."""
        if not replaced:
            known = _known(self.variant, self.case)
        else:
            known = _said(self.variant, self.case, self.keywords, {**self.tensors, **replaced})
        return self._bounds(known, lambda: self._of_reference(**replaced))

    def room(self) -> float:
        """Return by how much the outputs could grow before any result on the way overflows."""
        limit = torch.finfo(torch_dtype(self.case.dtype)).max
        known = _known(self.variant, self.case)
        sizes = [*known.sizes.values(), *known.widest.values()]
        return limit / max(1.0, *(float(size.max()) for size in sizes if size.numel()))

    def other(self, name: str) -> Callable[..., Any]:
        """Return the oracle of another variant, for laws that relate two."""
        return self.variants[name].oracle

    def wide(self, name: str) -> Any:
        """Return argument `name` in float64 on the CPU, for another variant's oracle."""
        return each(self.tensors[name], _wide)

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
        return _gradients(self.variant, self.case, self.function, self.keywords, arguments)

    def true_gradients(self, **replaced: Value) -> Outputs:
        """Return the oracle's gradients in float64."""
        if not replaced:
            return _known_gradients(self.variant, self.case).values
        arguments = {k: each(v, _wide) for k, v in {**self.tensors, **replaced}.items()}
        return _gradients(self.variant, self.case, self.variant.oracle, self.keywords, arguments)

    def gradient_bound(self) -> dict[str, Bound]:
        """Return the allowed error of every gradient."""
        known = _known_gradients(self.variant, self.case)
        function = self.variant.reference.load
        return self._bounds(
            known,
            lambda: _gradients(self.variant, self.case, function(), self.keywords, self.tensors),
        )

    def _of_reference(self, **replaced: Value) -> Outputs:
        arguments = {**self.tensors, **replaced}
        return as_outputs(self.variant.reference.load()(*arguments.values(), **self.keywords))

    def _bounds(self, known: _Known, reference: Callable[[], Outputs]) -> dict[str, Bound]:
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
        errors = {n: (_wide(v) - known.values[n]).abs() for n, v in reference().items()}
        return {name: relative_bound(errors[name], bound) for name, bound in bounds.items()}

    def _exact(self, known: _Known, tf32: bool) -> dict[str, bool]:
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
            if callable(bound) and not torch.equal(_wide(got[name]), _wide(right)):
                bound = bound()
            own = bound[name] if isinstance(bound, Mapping) else None
            self._compare(label, got[name], right, own)

    def _compare(self, label: str, got: Tensor, expected: Tensor, bound: Bound | None) -> None:
        if got.shape != expected.shape:
            raise Refuted(
                f"{label}.shape={tuple(got.shape)} where {tuple(expected.shape)} is expected"
            )
        left, right = _wide(got), _wide(expected)
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


def as_outputs(result: Any) -> Outputs:
    """Return the outputs of a functional form by field name; absent ones (None) are left out."""
    if isinstance(result, Tensor):
        return {"output": result}
    if isinstance(result, tuple) and hasattr(result, "_asdict"):
        return {name: value for name, value in result._asdict().items() if value is not None}
    raise Refuted(f"returned {type(result).__name__}, expected a tensor or a NamedTuple of tensors")


@dataclass(frozen=True)
class _Known:
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
def _known(variant: Variant, case: ConvCase) -> _Known:
    """Return what the oracle says of the outputs."""
    return _said(variant, case, variant.call_keywords(case), make_tensors(variant, case))


@functools.lru_cache(maxsize=1024)
def _known_gradients(variant: Variant, case: ConvCase) -> _Known:
    """Return what the oracle says of the gradients."""
    keywords = variant.call_keywords(case)
    tensors = {name: each(value, _wide) for name, value in make_tensors(variant, case).items()}
    roles = {arg.name: arg.role for arg in variant.args}
    values = _gradients(variant, case, variant.oracle, keywords, tensors)

    def measure(least: float) -> Outputs:
        factors, oracle = _factors(variant, tensors, least), variant.magnitude or variant.oracle
        return _gradients(variant, case, oracle, keywords, factors, least=least)

    return _Known(
        tensors=tensors,
        values=values,
        measure=measure,
        is_low=_is_low(case),
        directions={name: roles[name.split("[")[0]] for name in values},
    )


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


def _is_low(case: ConvCase) -> bool:
    return case.dtype in LOW_PRECISION


def _wide(tensor: Tensor) -> Tensor:
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


def _oracle(variant: Variant, keywords: Mapping[str, Any], tensors: Mapping[str, Value]) -> Outputs:
    return as_outputs(variant.oracle(*(each(v, _wide) for v in tensors.values()), **keywords))


def _said(
    variant: Variant, case: ConvCase, keywords: Mapping[str, Any], tensors: Mapping[str, Value]
) -> _Known:
    wide = {name: each(value, _wide) for name, value in tensors.items()}

    def measure(least: float) -> Outputs:
        oracle = variant.magnitude or variant.oracle
        return as_outputs(oracle(*_factors(variant, wide, least).values(), **keywords))

    return _Known(
        tensors=wide,
        values=as_outputs(variant.oracle(*wide.values(), **keywords)),
        measure=measure,
        is_low=_is_low(case),
    )


def _gradients(
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
