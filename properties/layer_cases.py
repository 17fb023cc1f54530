"""Making layers of a case, calling them, and telling which parameter is which argument."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import ConvCase
from harness.check import Outputs, Trial, as_outputs
from harness.tensors import another, each, leaves, make_tensors
from harness.variant import Role, Value

LEARNT = (Role.WEIGHT, Role.BIAS)
Made = tuple[nn.Module, tuple[Any, ...]]


def without_noise(t: Trial) -> dict[str, Value]:
    """Return what replaces the noise of a layer, which draws it itself: none in evaluation."""
    return dict.fromkeys(t.names(Role.NOISE))


def evaluated(t: Trial, **replaced: Value) -> Made:
    """Return the trial's layer in evaluation, and its inputs."""
    module, inputs = t.layer(**replaced)
    return module.eval(), inputs


def outputs(module: nn.Module, inputs: tuple[Any, ...]) -> Outputs:
    """Return the outputs of a layer by field name."""
    return as_outputs(module(*inputs))


def roomy(case: ConvCase) -> ConvCase:
    """Give a case two samples and several windows: the smallest ones tell little."""
    axes = zip(case.in_size, case.receptive_field, strict=True)
    size = tuple(max(side, field + 2) for side, field in axes)
    return replace(case, n=max(case.n, 2), in_size=size)


def larger(case: ConvCase) -> ConvCase:
    """Return a case of more samples and pixels, which the same layer takes."""
    size = tuple(side + 2 for side in case.in_size)
    return replace(case, n=case.n + 1, in_size=size, seed=(case.seed + 1) % 2**16)


def of_case(t: Trial, case: ConvCase) -> Made:
    """Return the layer of another case of the trial's variant, and its inputs."""
    assert t.implementation.layer is not None
    return t.implementation.layer(case, make_tensors(t.variant, case, t.device))


def parameter_names(t: Trial) -> dict[str, str]:
    """Return the layer's parameter for every tensor that is learnt: `{"weight": "weight"}`.

    A layer is filled with one number per tensor, which tells where that tensor goes.
    """
    learnt: dict[str, Value] = {name: t.tensors[name] for name in t.names(*LEARNT)}
    number = {key: float(i) for i, key in enumerate(leaves(learnt), start=1)}
    counter = iter(number.values())
    filled = {
        name: each(value, lambda v: torch.full_like(v, next(counter)))
        for name, value in learnt.items()
    }
    module, _ = t.layer(**filled)
    parameters = dict(module.named_parameters())
    found = {
        argument: name
        for argument, value in number.items()
        for name, parameter in parameters.items()
        if bool((parameter == value).all())
    }
    t.require(
        set(found) == set(number) and set(found.values()) == set(parameters),
        f"the layer's parameters are {', '.join(sorted(parameters))}, of which "
        f"{found} hold the tensors {', '.join(number)}",
    )
    return found


def layer_gradients(t: Trial, module: nn.Module, inputs: tuple[Any, ...]) -> Outputs:
    """Return the gradients of `sum(output * dy)` by parameter name."""
    parameters = dict(module.named_parameters())
    output = outputs(module, inputs)["output"]
    dy = another(output.detach(), t.case, Role.WEIGHT, "dy")
    found = torch.autograd.grad(output, list(parameters.values()), dy, allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def renamed(values: Mapping[str, Tensor], names: Mapping[str, str]) -> Outputs:
    """Return the entry of `values` that `names` has for every argument."""
    return {argument: values[name] for argument, name in names.items()}
