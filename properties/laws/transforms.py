"""Derivatives of derivatives, forward mode and mapping: the operation under torch's transforms.

The operation is affine in the signal and linear in the weight, so that each of these is the
operation itself, or its gradient, at the direction: taken at another point, it is known exactly.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from harness.check import Outputs, Trial
from harness.law import Law
from harness.tensors import each, leaves
from harness.variant import Ability, Role, Trait, Value
from properties.gradient_cases import (
    LINEAR_ROLES,
    affine,
    cotangent,
    fresh,
    gradients_of,
    of_gradients,
    pulled_back,
    without_bias,
)
from properties.masked_cases import twice

SIGNAL = frozenset({Trait.AFFINE_IN_SIGNAL})
WEIGHT = frozenset({Trait.LINEAR_IN_WEIGHT})
WHERE_AFFINE = "not where the bias or the padding depends on x, or the border has no gradient"
# the way to a second derivative stores results that the bound of a gradient knows nothing of
WIDE = {"domain": f"float32 and float64; {WHERE_AFFINE}", "dtypes": ("float64", "float32")}


def _elsewhere(t: Trial, names: list[str]) -> dict[str, Value]:
    """Return another point to differentiate at: the trial's own values are the direction."""
    return {name: t.another(name, "elsewhere") for name in names}


def _linear_part(t: Trial) -> Outputs:
    return {"output": t.truth(**without_bias(t))["output"]}


# -- twice -----------------------------------------------------------------------------------------


def _second_derivatives(t: Trial, role: Role, other: Role) -> None:
    """Differentiate `<dt, v>` again, `v` the trial's own value of `t`, at another value of `t`."""
    names, others = t.names(role), t.names(other)
    at: dict[str, Value] = {n: fresh(v) for n, v in _elsewhere(t, names).items()}
    rest: dict[str, Value] = {n: fresh(t.tensors[n]) for n in others}
    output = t(**at, **rest)["output"]
    dy = cotangent(t, output).requires_grad_()
    inside = leaves(at)
    first = gradients_of(output, inside, dy, create_graph=True)
    direction = leaves({name: t.tensors[name] for name in names})
    along = torch.stack([(first[n] * direction[n]).sum() for n in inside]).sum()
    found = gradients_of(along, {**inside, **leaves(rest), "dy": dy}, torch.ones_like(along))

    known, bound = t.true_gradients(), t.gradient_bound()
    mixed = {name: found[name] for name in leaves(rest)}
    t.agree(mixed, {name: known[name] for name in mixed}, bound, "mixed second derivative")
    t.agree({"output": found["dy"]}, _linear_part(t), t.bound(), "derivative along dy")
    own = {name: found[name] for name in inside}
    t.agree(own, {n: torch.zeros_like(v) for n, v in own.items()}, what="own second derivative")


SECOND_OF_SIGNAL = Law(
    id="G21",
    name="gradient_of_the_signal_is_bilinear",
    statement="d<dx, v>/dw = dw at x = v, d<dx, v>/d(dy) = f(v) - f(0), d<dx, v>/dx = 0",
    requires=SIGNAL,
    within=affine,
    check=of_gradients(lambda t: _second_derivatives(t, Role.SIGNAL, Role.WEIGHT)),
    ability=Ability.DOUBLE_BACKWARD,
    share=0.5,
    **WIDE,
)

SECOND_OF_WEIGHT = Law(
    id="G21b",
    name="gradient_of_the_weight_is_bilinear",
    statement="d<dw, v>/dx = dx at w = v, d<dw, v>/d(dy) = f(x, v) - f(x, 0), d<dw, v>/dw = 0",
    requires=WEIGHT,
    within=affine,
    check=of_gradients(lambda t: _second_derivatives(t, Role.WEIGHT, Role.SIGNAL)),
    ability=Ability.DOUBLE_BACKWARD,
    share=0.5,
    **WIDE,
)


# -- forward ---------------------------------------------------------------------------------------


def _dual(point: Value, direction: Value) -> Value:
    if isinstance(point, tuple):
        assert isinstance(direction, tuple)
        return tuple(
            None if p is None or d is None else forward_ad.make_dual(p, d)
            for p, d in zip(point, direction, strict=True)
        )
    if point is None or not isinstance(direction, Tensor):
        return None
    return forward_ad.make_dual(point, direction)


def _tangent(value: Tensor) -> Tensor:
    found = forward_ad.unpack_dual(value).tangent
    return torch.zeros_like(value) if found is None else found


def _pushed_forward(t: Trial, *roles: Role) -> Tensor:
    """Return the derivative of the output along the trial's own values, at other ones."""
    names = t.names(*roles)
    at = _elsewhere(t, names)
    with forward_ad.dual_level():
        duals = {name: _dual(at[name], t.tensors[name]) for name in names}
        return _tangent(t(**duals)["output"])


def _jvp(t: Trial, role: Role) -> None:
    pushed = _pushed_forward(t, role)
    t.agree({"output": pushed}, _linear_part(t), t.bound(), "tangent")


JVP_OF_SIGNAL = Law(
    id="G22",
    name="tangents_of_the_signal_are_differences",
    statement="the derivative of f along v = f(x + v) - f(x) = f(v) - f(0)",
    domain=WHERE_AFFINE,
    requires=SIGNAL,
    within=affine,
    check=lambda t: _jvp(t, Role.SIGNAL),
    ability=Ability.FORWARD_MODE,
)


JVP_OF_WEIGHT = Law(
    id="G22b",
    name="tangents_of_the_weight_are_differences",
    statement="the derivative of f along v in w = f(x, w + v) - f(x, w)",
    domain=WHERE_AFFINE,
    requires=WEIGHT,
    within=affine,
    check=lambda t: _jvp(t, Role.WEIGHT),
    ability=Ability.FORWARD_MODE,
)


def _jvp_of_bias(t: Trial) -> None:
    nothing = {n: each(t.tensors[n], torch.zeros_like) for n in t.names(*LINEAR_ROLES)}
    pushed = _pushed_forward(t, *LINEAR_ROLES) if nothing else torch.zeros_like(t()["output"])
    # both in one dtype that rounds no whole number: the difference is of the oracle's own outputs
    change = t.truth()["output"] - t.truth(**nothing)["output"]
    bound = t.bound()["output"] + t.bound(**nothing)["output"]
    t.agree({"output": pushed}, {"output": change}, {"output": bound}, "tangent")


JVP_OF_BIAS = Law(
    id="G22c",
    name="tangents_of_the_bias_are_differences",
    statement="the derivative of f along v in b = f(b + v) - f(b), b the bias and the noise",
    domain="a bias",
    check=_jvp_of_bias,
    ability=Ability.FORWARD_MODE,
    share=0.5,
    zero_is_right=True,  # a bias does nothing where nothing is present
)


def _forward_over_reverse(t: Trial, role: Role, other: Role) -> None:
    names, others = t.names(role), t.names(other)
    at = _elsewhere(t, names)
    dy = cotangent(t, t()["output"])
    with forward_ad.dual_level():
        duals = {name: _dual(at[name], t.tensors[name]) for name in names}
        found = {n: _tangent(v) for n, v in pulled_back(t, others, dy, **duals).items()}
    known = {name: t.true_gradients()[name] for name in found}
    t.agree(found, known, t.gradient_bound(), "tangent of the gradient")


FORWARD_OVER_REVERSE = Law(
    id="G21c",
    name="forward_over_reverse_is_reverse_over_reverse",
    statement="the derivative of dw along v in x = d<dx, v>/dw = dw at x = v",
    requires=SIGNAL,
    within=affine,
    check=of_gradients(lambda t: _forward_over_reverse(t, Role.SIGNAL, Role.WEIGHT)),
    ability=Ability.FORWARD_MODE,
    share=0.5,
    **WIDE,
)


# -- mapped ----------------------------------------------------------------------------------------


def _stacked(t: Trial, names: list[str]) -> tuple[Outputs, dict[str, Value]]:
    """Return every tensor's other value and its own, one behind the other, and the other ones."""
    other = _elsewhere(t, names)
    own, beside = leaves({name: t.tensors[name] for name in names}), leaves(other)
    return {name: torch.stack([beside[name], value]) for name, value in own.items()}, other


def _gathered(t: Trial, flat: Outputs, names: list[str]) -> dict[str, Value]:
    """Return the arguments `names` with their tensors taken from `flat`."""
    gathered: dict[str, Value] = {}
    for name in names:
        value = t.tensors[name]
        gathered[name] = flat[name] if isinstance(value, Tensor) else tuple(
            None if part is None else flat[f"{name}[{i}]"] for i, part in enumerate(value or ())
        )  # fmt: skip
    return gathered


def _mapped(t: Trial, *roles: Role) -> None:
    names = t.names(*roles)
    both, other = _stacked(t, names)
    call: Callable[[Outputs], Outputs] = lambda flat: t(**_gathered(t, flat, names))
    found = torch.func.vmap(call)(both)
    t.agree({n: v[1] for n, v in found.items()}, t(), twice(t.bound()), "mapped, the second")
    t.agree({n: v[0] for n, v in found.items()}, t(**other), twice(t.bound(**other)), "the first")


MAPPED_OVER_SIGNALS = Law(
    id="G22d",
    name="maps_over_signals",
    statement="vmap(f)([x, z]) = [f(x), f(z)]",
    check=lambda t: _mapped(t, Role.SIGNAL, Role.NOISE),
    ability=Ability.VMAP,
    share=0.5,
)

MAPPED_OVER_WEIGHTS = Law(
    id="G22e",
    name="maps_over_weights",
    statement="vmap(f)([w, v]) = [f(w), f(v)], biases along: an ensemble",
    check=lambda t: _mapped(t, Role.WEIGHT, Role.BIAS),
    ability=Ability.VMAP,
    share=0.5,
)


def _mapped_gradients(t: Trial) -> None:
    """Differentiate inside of the map: one gradient per entry, as of every sample alone."""
    mapped = t.names(Role.SIGNAL, Role.NOISE)
    constant = t.names(Role.WEIGHT, Role.BIAS)
    both, _ = _stacked(t, mapped)
    dy = cotangent(t, t()["output"])

    def loss(tracked: Outputs, signals: Outputs) -> Tensor:
        arguments = _gathered(t, tracked, constant) | _gathered(t, signals, mapped)
        return (t(**arguments)["output"] * dy).sum()

    parameters = leaves({name: t.tensors[name] for name in constant})
    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, both)
    second = {name: value[1] for name, value in found.items()}
    known = {name: t.true_gradients()[name] for name in second}
    t.agree(second, known, t.gradient_bound(), "gradient inside of the map")


MAPPED_GRADIENTS = Law(
    id="G22f",
    name="maps_gradients",
    statement="vmap(grad(f))([x, z]) = [grad f(x), grad f(z)]: gradients per sample",
    check=of_gradients(_mapped_gradients),
    ability=Ability.VMAP,
    share=0.5,
)
