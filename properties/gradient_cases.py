"""Pulling back and pushing forward: what the laws of derivatives share."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Outputs, Trial, as_outputs
from harness.tensors import another, each, leaves
from harness.tolerance import Bound, error_bound
from harness.variant import Role, Value

LINEAR_ROLES = (Role.BIAS, Role.NOISE)
DIFFERENTIABLE = (Role.SIGNAL, Role.WEIGHT, *LINEAR_ROLES)


def affine(case: ConvCase) -> ConvCase:
    """Leave out what makes the output, or its gradient, no affine function of the signal.

    A bias that depends on the signal's values, a ring drawn around it, border outputs without a
    gradient.
    """
    unmasked = case.option("mask", "none") == "none"
    changed = {"keep_img_grad_at_invalid": None}
    if unmasked and case.option("bias_where", "all") == "support":
        changed["bias_where"] = None
    if case.option("method", "") == "random":
        changed["method"] = None
    return case.with_options(**changed)


def of_gradients(check: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """Return `check` for those implementations that have gradients at all."""

    def checked(t: Trial) -> None:
        if t.implementation.differentiable:
            check(t)

    return checked


def cotangent(t: Trial, output: Tensor, salt: str = "dy") -> Tensor:
    """Return what is pulled back; by default the one that `t.gradients()` pulls back."""
    return another(output.detach(), t.case, Role.WEIGHT, salt)


def fresh(value: Value) -> Value:
    """Return leaves of the autograd graph with the same values."""
    return each(value, lambda v: v.detach().requires_grad_())


def pulled_back(
    t: Trial, names: Iterable[str], dy: Tensor, *, create_graph: bool = False, **replaced: Value
) -> Outputs:
    """Return the gradient of `<f, dy>` for the tensors of the arguments `names`, and only those."""
    given = {name: replaced.get(name, t.tensors[name]) for name in t.tensors}
    tracked = {name: fresh(given[name]) for name in names}
    output = t(**{**given, **tracked})["output"]
    return gradients_of(output, leaves(tracked), dy, create_graph=create_graph)


def gradients_of(
    output: Tensor, inputs: dict[str, Tensor], dy: Tensor, *, create_graph: bool = False
) -> Outputs:
    """Return the gradient of `<output, dy>` for every one of `inputs`, 0 where it is not used."""
    found: tuple[Tensor | None, ...] = (None,) * len(inputs)
    if output.requires_grad:  # else nothing of it depends on any of them
        found = torch.autograd.grad(
            output, list(inputs.values()), dy, allow_unused=True, create_graph=create_graph
        )
    return {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(inputs.items(), found, strict=True)
    }


def allowed(t: Trial, names: Iterable[str], dy: Tensor) -> dict[str, Bound]:
    """Return the error allowed in the gradients of `<f, dz>` for every `dz` with `|dz| <= |dy|`."""
    variant, masks = t.variant, set(t.names(Role.MASK))
    wide = {name: t.wide(name) for name in t.tensors}
    size = {name: v if name in masks else each(v, torch.abs) for name, v in wide.items()}
    tracked = {name: fresh(size[name]) for name in names}
    oracle = variant.magnitude or variant.oracle
    output = as_outputs(oracle(*{**size, **tracked}.values(), **t.keywords))["output"]
    found = gradients_of(output, leaves(tracked), dy.double().cpu().abs())
    roles = {arg.name: arg.role for arg in variant.args}
    return {
        name: error_bound(
            variant, t.case, t.tensors, value, value, roles[name.split("[")[0]],
            implementation=t.implementation,
        )
        for name, value in found.items()
    }  # fmt: skip


def without_bias(t: Trial) -> dict[str, Value]:
    """Return the replacement that leaves the biases out."""
    return dict.fromkeys(t.names(Role.BIAS))
