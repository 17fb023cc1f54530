"""Outputs whose window leaves the image: a kernel of their own, a gradient that ends there."""

import torch

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.tensors import another
from harness.tolerance import Bound
from harness.variant import Role, Trait, Value
from properties.extension_cases import (
    compared_where,
    inside,
    with_edge_kernel,
)


def _own_kernel_as_edge(t: Trial) -> None:
    edge = {"edge_kernel": t.tensors["weight"], "edge_bias": t.tensors["bias"]}
    absent: dict[str, Value] = {"edge_kernel": None, "edge_bias": None}
    t.agree(t(**edge), t.truth(**absent), t.bound(**edge))


OWN_KERNEL_AS_EDGE_KERNEL = Law(
    id="D7",
    name="own_kernel_as_edge_kernel_changes_nothing",
    statement="f(x, w, b, edge_kernel = w, edge_bias = b) = f(x, w, b)",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=with_edge_kernel,
    check=_own_kernel_as_edge,
)


def _border_passes_none(case: ConvCase) -> ConvCase:
    return case.with_options(keep_img_grad_at_invalid="False")


def _border_gradients(t: Trial) -> None:
    kept = {**t.keywords, "keep_img_grad_at_invalid": True}
    t.agree(t(), t.called({"keep_img_grad_at_invalid": True}), _doubled(t.bound()), "forward")
    got, bound = t.gradients(), t.gradient_bound()
    dy = another(t.truth()["output"], t.case, Role.WEIGHT, "dy")
    x, weight = t.wide("x").requires_grad_(), t.wide("weight").requires_grad_()
    y = t.other("plain")(x, weight, None, stride=t.case.stride, padding=t.case.padding,
                         dilation=t.case.dilation, groups=t.case.groups)  # fmt: skip
    (dx,) = torch.autograd.grad(y, x, dy * inside(t.case))
    t.agree({"x": got["x"]}, {"x": dx}, bound, "gradient")
    rest = [t.wide(name) for name in ("bias", "edge_kernel", "edge_bias")]
    y = t.variant.oracle(t.wide("x"), weight, *rest, **kept)
    (dw,) = torch.autograd.grad(y, weight, dy)
    t.agree({"weight": got["weight"]}, {"weight": dw}, bound, "gradient")


def _doubled(bounds: dict[str, Bound]) -> dict[str, Bound]:
    return {name: bound.scaled(2) for name, bound in bounds.items()}


BORDER_PASSES_NO_GRADIENT = Law(
    id="D8",
    name="border_passes_no_gradient",
    statement="keep_img_grad_at_invalid = False: same f, same dw, dx of the interior outputs alone",
    domain="keep_img_grad_at_invalid=False",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_border_passes_none,
    check=_border_gradients,
    zero_is_right=True,
)


def _edge_kernel_at_the_border(t: Trial) -> None:
    edge, edge_bias = t.tensors["edge_kernel"], t.tensors["edge_bias"]
    alone: dict[str, Value] = {
        "weight": edge, "bias": edge_bias, "edge_kernel": None, "edge_bias": None
    }  # fmt: skip
    got, expected = compared_where(t()["output"], t.truth(**alone)["output"], ~inside(t.case))
    t.agree(got, expected, t.bound())


EDGE_KERNEL_AT_THE_BORDER = Law(
    id="D15",
    name="edge_kernel_acts_at_the_border",
    statement="f(x, w, b, e, c)[q] = f(x, e, c)[q] for every q whose window leaves the image",
    domain="an edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=with_edge_kernel,
    check=_edge_kernel_at_the_border,
    zero_is_right=True,
)
