"""First derivatives: they are the adjoints of the differences."""

from dataclasses import replace
from math import inf

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.tensors import leaves
from harness.tolerance import Bound, gamma
from harness.variant import Role, Trait, Value
from properties.gradient_cases import (
    LINEAR_ROLES,
    affine,
    cotangent,
    gradients_of,
    of_gradients,
)
from properties.masked_cases import drawn_mask, own_mask, several_samples, twice, zero_padded

# -- the adjoint ---------------------------------------------------------------------------------


def _moved(t: Trial, names: list[str]) -> dict[str, Value]:
    """Return the arguments one whole step further on: their differences have no remainder."""
    return {name: t.combined(name, t.another(name, "step"), torch.add) for name in names}


def _inner(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the sum of the inner products of `pairs`, and what its own roundings may add."""
    products = [left.double().cpu() * right.double().cpu() for left, right in pairs]
    count = sum(p.numel() for p in products) + len(products)
    size = sum(float(p.abs().sum()) for p in products)
    total = sum((p.sum() for p in products), torch.zeros(1, dtype=torch.float64))
    return total, torch.tensor([gamma(count, 2.0**-53) * size], dtype=torch.float64)


def _adjoint(t: Trial, *roles: Role) -> None:
    names = t.names(*roles)
    if not names:
        return
    moved = _moved(t, names)
    before, behind = t()["output"].detach(), t(**moved)["output"].detach()
    dy, gradients = cotangent(t, before), t.gradients()
    steps = {
        name: value.double() - leaves(t.tensors)[name].double()
        for name, value in leaves(moved).items()
    }
    left, left_error = _inner([(behind.double() - before.double(), dy)])
    right, right_error = _inner([(step, gradients[name]) for name, step in steps.items()])

    slack, tier = t.bound()["output"] + t.bound(**moved)["output"], "T0"
    error = (slack.error * dy.double().cpu().abs()).nan_to_num(inf, inf).sum().view(1)
    for name, step in steps.items():
        bound = t.gradient_bound()[name]
        error = error + (bound.error * step.cpu().abs()).nan_to_num(inf, inf).sum()
        tier = max(tier, bound.tier)
    if (tier := max(tier, slack.tier)) != "T0":
        error = error + left_error + right_error
    error = error.nan_to_num(inf, inf)  # where float16 overflows nothing can be compared
    t.agree({"<Jv, dy>": left}, {"<Jv, dy>": right}, {"<Jv, dy>": Bound(error=error, tier=tier)})


ADJOINT_IN_SIGNAL = Law(
    id="G19",
    name="gradient_of_the_signal_is_the_adjoint",
    statement="<f(x + v) - f(x), dy> = <v, dx>",
    domain="not where the bias or the padding depends on x, or the border has no gradient",
    requires=frozenset({Trait.AFFINE_IN_SIGNAL}),
    within=affine,
    check=of_gradients(lambda t: _adjoint(t, Role.SIGNAL)),
    share=0.5,
)

ADJOINT_IN_WEIGHT = Law(
    id="G19b",
    name="gradient_of_the_weight_is_the_adjoint",
    statement="<f(w + v) - f(w), dy> = <v, dw>",
    requires=frozenset({Trait.LINEAR_IN_WEIGHT}),
    check=of_gradients(lambda t: _adjoint(t, Role.WEIGHT)),
    share=0.5,
)


def _biased(case: ConvCase) -> ConvCase:
    return replace(case, bias=True)


ADJOINT_IN_BIAS = Law(
    id="G19c",
    name="gradient_of_the_bias_is_the_adjoint",
    statement="<f(b + v) - f(b), dy> = <v, db>, b the bias and the noise",
    domain="a bias",
    within=_biased,
    check=of_gradients(lambda t: _adjoint(t, *LINEAR_ROLES)),
    share=0.5,
)


def _transposed(t: Trial) -> None:
    case = t.case
    dy = cotangent(t, t()["output"]).double().cpu()
    sizes = zip(case.in_size, case.padding, case.receptive_field, case.stride, strict=True)
    rest = [(size + 2 * p - field) % s for size, p, field, s in sizes]
    transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[case.spatial_dims - 1]
    dx = transpose(
        dy, t.wide("weight"), None, case.stride, case.padding, rest, case.groups, case.dilation
    )
    # the weight's: batch and channels change places, stride and dilation as well
    per_group = zip(t.wide("x").chunk(case.groups, 1), dy.chunk(case.groups, 1), strict=True)
    geometry = {"stride": case.dilation, "dilation": case.stride, "padding": case.padding}
    parts = [
        t.other("plain")(x.transpose(0, 1), d.transpose(0, 1), None, groups=1, **geometry)
        for x, d in per_group
    ]
    dw = torch.cat([part.transpose(0, 1) for part in parts])
    dw = dw[(..., *(slice(k) for k in case.kernel_size))]
    expected = {"x": dx, "weight": dw}
    if case.bias:
        expected["bias"] = dy.transpose(0, 1).flatten(1).sum(1)
    t.agree(t.gradients(), expected, twice(t.gradient_bound()), "gradient")


GRADIENTS_ARE_CONVOLUTIONS = Law(
    id="G20",
    name="gradients_are_convolutions",
    statement="dx = conv_transpose(dy, w), dw = conv(x, dy) with stride for dilation, db = sum(dy)",
    domain="padding with zeros; output_padding (S+2p-d(K-1)-1) mod s",
    requires=frozenset({Trait.IS_PLAIN}),
    within=zero_padded,
    check=of_gradients(_transposed),
)


def _learnable(case: ConvCase) -> ConvCase:
    """Give the batch one mask of fractions, in the dtype of the signal."""
    whole = case if case.is_exact else replace(case, fill="exact")
    return several_samples(whole).with_options(mask="real", mask_batch="one", mask_dtype=None)


def _mask_adjoint(t: Trial) -> None:
    mask = own_mask(t)
    step = drawn_mask(t, "real").where(mask > 0, 0.0) - mask
    tracked = mask.clone().requires_grad_()
    output = t(mask=tracked)["output"]
    dy = cotangent(t, output)
    gradient = gradients_of(output, {"mask": tracked}, dy)["mask"]
    change = t(mask=mask + step)["output"].double() - output.detach().double()
    left, _ = _inner([(change, dy)])
    right, _ = _inner([(step, gradient)])
    t.agree({"<Jv, dy>": left}, {"<Jv, dy>": right})


ADJOINT_IN_MASK = Law(
    id="G19d",
    name="gradient_of_the_mask_is_the_adjoint",
    statement="<f(x, m + v) - f(x, m), dy> = <v, dm>, dm summed over what shares the mask",
    # quarters times whole numbers: every sum is exact
    domain="one mask for the batch, whole numbers, v = 0 in holes, float32 and float64",
    requires=frozenset({Trait.ADDITIVE_IN_MASK}),
    within=_learnable,
    check=of_gradients(_mask_adjoint),
    dtypes=("float64", "float32"),
)
