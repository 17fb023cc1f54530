"""Gradients: the same whoever asks for which of them, however, and in how many pieces."""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.case import LAYOUTS, ConvCase
from harness.check import Trial
from harness.law import Law
from harness.tensors import each, lay_out, leaves
from harness.variant import Role, Trait, Value
from properties.gradient_cases import (
    DIFFERENTIABLE,
    allowed,
    cotangent,
    fresh,
    of_gradients,
    pulled_back,
)
from properties.masked_cases import given, must_take, own_mask, several_samples, twice


def _asked_alone(t: Trial) -> None:
    names = t.names(*DIFFERENTIABLE)
    dy = cotangent(t, t()["output"])
    truth, bound = t.true_gradients(), t.gradient_bound()
    for name in names:
        alone = pulled_back(t, [name], dy)
        t.agree(alone, {k: truth[k] for k in alone}, bound, f"gradient of {name} alone")


ASKED_ALONE = Law(
    id="G51",
    name="a_gradient_asked_for_alone_is_the_same",
    statement="dt is the same whether the other arguments need a gradient or not",
    check=of_gradients(_asked_alone),
    share=0.5,
)


def _any_cotangent(t: Trial) -> None:
    names = t.names(*DIFFERENTIABLE)
    dy = cotangent(t, t()["output"])
    truth, bound = t.true_gradients(), t.gradient_bound()
    for layout in LAYOUTS:
        found = pulled_back(t, names, lay_out(dy, layout))
        t.agree(found, truth, bound, f"gradient, dy {layout}")
    one = torch.ones_like(dy)
    contiguous = pulled_back(t, names, one)
    expanded = pulled_back(t, names, one.flatten()[:1].sum().expand(dy.shape))
    t.agree(expanded, contiguous, twice(allowed(t, names, one)), "gradient, dy expanded")


ANY_COTANGENT = Law(
    id="G52",
    name="gradients_ignore_the_layout_of_dy",
    statement="dt is the same for every layout of dy in memory, stride 0 as in y.sum() too",
    check=of_gradients(_any_cotangent),
    share=0.5,
)


def _pulls_back_linearly(t: Trial) -> None:
    names, output = t.names(*DIFFERENTIABLE), t()["output"]
    one, other = cotangent(t, output), cotangent(t, output, "another dy")
    mixed = 2 * one - other
    left, x, y = (pulled_back(t, names, dy) for dy in (mixed, one, other))
    right = {name: 2 * x[name].double() - y[name].double() for name in x}
    bound = twice(allowed(t, names, 2 * one.abs() + other.abs()))
    t.agree(left, right, bound, "gradient")


PULLS_BACK_LINEARLY = Law(
    id="G53",
    name="gradients_are_linear_in_dy",
    statement="dt(2 dy - dz) = 2 dt(dy) - dt(dz)",
    check=of_gradients(_pulls_back_linearly),
    share=0.5,
)


def _nothing_from_nothing(t: Trial) -> None:
    found = pulled_back(t, t.names(*DIFFERENTIABLE), torch.zeros_like(t()["output"]))
    t.agree(
        found, {name: torch.zeros_like(value) for name, value in found.items()}, what="gradient"
    )


NOTHING_FROM_NOTHING = Law(
    id="G54",
    name="no_dy_gives_no_gradient",
    statement="dy = 0: dt = 0, bit for bit",
    check=of_gradients(_nothing_from_nothing),
    zero_is_right=True,
)


def _accumulates(t: Trial) -> None:
    names = t.names(*DIFFERENTIABLE)
    tracked: dict[str, Value] = {name: fresh(t.tensors[name]) for name in names}
    held = leaves(tracked)
    dy = cotangent(t, t()["output"])
    for count, what in ((1, "after one backward"), (2, "after two")):
        t(**tracked)["output"].backward(dy)
        found = {n: torch.zeros_like(v) if v.grad is None else v.grad for n, v in held.items()}
        for name, value in held.items():
            t.require(found[name].dtype == value.dtype, f"{name}.grad is {found[name].dtype}")
        expected = {name: value * count for name, value in t.true_gradients().items()}
        bound = {name: value.scaled(count) for name, value in t.gradient_bound().items()}
        t.agree(found, expected, bound, what)


ACCUMULATES = Law(
    id="G55",
    name="gradients_accumulate",
    statement="t.grad after two backward passes = 2 dt",
    domain="float32 and float64: below, the sum of two passes is rounded",
    check=of_gradients(_accumulates),
    dtypes=("float64", "float32"),
    share=0.5,
)


def _sum_over_samples(t: Trial) -> None:
    n, names = t.case.n, t.names(*DIFFERENTIABLE)
    batched = {
        arg.name for arg in t.variant.args
        if arg.role in (Role.SIGNAL, Role.NOISE) or arg.covers == "x"
    }  # fmt: skip
    dy = cotangent(t, t()["output"])
    total: dict[str, Tensor] = {}
    for i in range(n):
        part: Callable[[Tensor], Tensor] = lambda v, i=i: v[i : i + 1] if v.shape[0] == n else v
        alone = {name: each(t.tensors[name], part) for name in batched}
        for name, value in pulled_back(t, names, dy[i : i + 1], **alone).items():
            # a signal's stand one below the other, a parameter's add up
            known, value = total.get(name), value.double()
            own = name.split("[")[0] in batched
            total[name] = (
                value if known is None else torch.cat([known, value]) if own else known + value
            )
    t.agree(t.gradients(), total, twice(t.gradient_bound()), "gradient")


SUM_OVER_SAMPLES = Law(
    id="G56",
    name="gradients_add_up_over_the_batch",
    statement="dx[i] = dx of sample i alone; dw, db = the sum of those of the samples",
    domain="two samples or more",
    requires=frozenset({Trait.BATCH_INDEPENDENT}),
    within=several_samples,
    check=of_gradients(_sum_over_samples),
    share=0.5,
)


def _shared_mask(case: ConvCase) -> ConvCase:
    return several_samples(given(case)).with_options(mask_batch="one")


def _gradients_of_copies(t: Trial) -> None:
    must_take(t, mask_batch=None)
    copies = own_mask(t).expand(t.case.n, *own_mask(t).shape[1:])
    t.agree(t.gradients(), t.gradients(mask=copies), twice(t.gradient_bound()), "gradient")


SHARED_MASK_TEACHES_ALL = Law(
    id="G57",
    name="gradients_with_a_shared_mask_are_those_with_its_copies",
    statement="df(x, m) = df(x, m expanded over the batch)",
    domain="a mask, two samples or more",
    requires=frozenset({Trait.BROADCASTS_MASK}),
    within=_shared_mask,
    check=of_gradients(_gradients_of_copies),
)
