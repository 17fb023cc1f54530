"""The mask that masked convolution multiplies by: the share of what is present at the centres."""

from dataclasses import replace

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.taps import apply_mask, per_channel
from harness.tensors import another
from harness.tolerance import Bound
from harness.variant import Role, Trait
from properties.masked_cases import (
    SCATTERED,
    given,
    holey,
    own_mask,
    shared_by_channels,
)

SCALED = frozenset({Trait.SCALES_BY_MASK})


def _plain(t: Trial, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    names = {"stride", "padding", "dilation", "groups", "padding_mode"} & t.keywords.keys()
    y = t.other("plain")(x, weight, None, **{name: t.keywords[name] for name in names})
    return y if bias is None else y + per_channel(bias, y)


def _no_mask(t: Trial) -> None:
    expected = _plain(t, t.wide("x"), t.wide("weight"), t.wide("bias"))
    bound = {"output": t.bound(mask=None)["output"]}
    t.agree(t(mask=None), {"output": expected}, bound)


NO_MASK_IS_PLAIN = Law(
    id="M1",
    name="no_mask_is_plain",
    statement="f(x, w, b) = (conv(x, w) + b, None)",
    requires=SCALED,
    check=_no_mask,
)


def _is_a_share(t: Trial) -> None:
    mask = t()["mask"]
    t.require(bool(((mask >= 0) & (mask <= 1)).all()), "the mask leaves [0, 1]")


MASK_IS_A_SHARE = Law(
    id="M3",
    name="mask_stays_a_mask",
    statement="0 <= m' <= 1",
    requires=SCALED,
    within=given,
    check=_is_a_share,
    zero_is_right=True,
)


def _at_centres(t: Trial) -> None:
    case, mask = t.case, own_mask(t)
    expected = mask.cpu().double()
    axes = zip(case.in_size, case.out_size, case.kernel_size, case.stride, case.padding,
               case.dilation, strict=True)  # fmt: skip
    for axis, (size, count, k, s, p, d) in enumerate(axes, start=2):
        centres = [min(max(q * s - p + d * (k // 2), 0), size - 1) for q in range(count)]
        expected = expected[(slice(None),) * axis + (centres,)]
    every = mask.expand(-1, case.c_in, *case.in_size)
    forms = {"one channel": mask, "copies": every.clone(), "expanded": every}
    for word, form in forms.items():
        got = t(mask=form)["mask"]
        bound = {"mask": t.bound(mask=form)["mask"]}
        t.agree({"mask": got}, {"mask": expected.expand_as(got)}, bound, word)


SAMPLES_AT_CENTRES = Law(
    id="M4",
    name="uniform_mask_is_sampled_at_centres",
    statement="m'[q] = m[q*s - p + d(K-1)/2, clamped into the image]",
    domain="masks that are the same for all channels",
    requires=SCALED,
    within=shared_by_channels,
    check=_at_centres,
    zero_is_right=True,
)


def _real_valued(case: ConvCase) -> ConvCase:
    return given(case).with_options(mask_dtype=None)


def _linear_in_mask(t: Trial) -> None:
    first = own_mask(t)
    second = torch.roll(first, 1, -1) / 2
    mixed = (first + second) / 2
    a, b = (t(mask=m)["mask"].double() for m in (first, second))
    bounds = [t.bound(mask=m)["mask"] for m in (first, second, mixed)]
    bound = bounds[2] + (bounds[0] + bounds[1]).scaled(0.5)
    expected = ((a + b) / 2).cpu()
    t.agree({"mask": t(mask=mixed)["mask"]}, {"mask": expected}, {"mask": bound})
    least = torch.minimum(first, second)
    below, above = t(mask=least)["mask"].double(), t(mask=first)["mask"].double()
    excess = (below - above).cpu() - (t.bound(mask=least)["mask"] + bounds[0]).error
    t.require(bool((excess <= 0).all()), "a smaller mask gives a larger one")


LINEAR_IN_MASK = Law(
    id="M5",
    name="mask_is_linear_and_monotone_in_the_mask",
    statement="m'((m1 + m2)/2) = (m'(m1) + m'(m2))/2; m1 <= m2 gives m'(m1) <= m'(m2)",
    requires=SCALED,
    within=_real_valued,
    check=_linear_in_mask,
    zero_is_right=True,
)


def _scale_free(t: Trial) -> None:
    weight = t.tensors["weight"]
    assert isinstance(weight, Tensor)
    expected = {"mask": t()["mask"]}
    peak = int(torch.frexp(weight.abs().amax().double()).exponent)
    largest = int(torch.frexp(torch.tensor(torch.finfo(weight.dtype).max)).exponent)
    for exponent in (largest, largest // 2, 3, -largest // 2):
        scaled = weight.double() * 2.0 ** ((exponent - peak) // 2)
        scaled = (-scaled * 2.0 ** (exponent - peak - (exponent - peak) // 2)).to(weight.dtype)
        got = {"mask": t(weight=scaled)["mask"]}
        t.agree(got, expected, what=f"weights near 2^{exponent}")


FREE_OF_SCALE = Law(
    id="M6",
    name="mask_is_free_of_the_scale_of_the_weight",
    statement="m'(c w) = m'(w), bit for bit for powers of two, to the edge of overflow",
    domain="float32 and float64 weights",
    requires=SCALED,
    within=holey,
    check=_scale_free,
    about_oracle=False,
)


def _constant_mask(t: Trial) -> None:
    names = [name for name in ("x", "weight", "bias") if t.tensors[name] is not None]
    wide = {name: t.wide(name).requires_grad_() for name in names}
    x = apply_mask(wide["x"], own_mask(t).cpu()) if t.keywords.get("apply_mask") else wide["x"]
    y = _plain(t, x, wide["weight"], wide.get("bias")) * t.truth()["mask"].detach()
    dy = another(y.detach(), t.case, Role.WEIGHT, "dy")
    found = dict(zip(names, torch.autograd.grad(y, list(wide.values()), dy), strict=True))
    t.agree(t.gradients(), found, t.gradient_bound(), "gradient")


MASK_IS_CONSTANT = Law(
    id="M7",
    name="mask_is_a_constant_for_autograd",
    statement="df = d((conv(x, w) + b) * m') at fixed m'",
    requires=SCALED,
    within=holey,
    check=_constant_mask,
)


def _uniform(case: ConvCase) -> ConvCase:
    return shared_by_channels(holey(case))


def _different_in_channels(case: ConvCase) -> ConvCase:
    words: dict[str, str | None] = {"mask": SCATTERED, "mask_channels": None}
    return replace(case, c_in=2 * case.c_in).with_options(**words)


def _finite_difference(t: Trial) -> None:
    """The output is linear in the weight at fixed `m'`: the central difference has no remainder."""
    step = t.another("weight")
    ahead, behind = (t.combined("weight", step, f) for f in (torch.add, torch.sub))
    left, right = t(weight=ahead)["output"].double(), t(weight=behind)["output"].double()
    dy = another(t()["output"], t.case, Role.WEIGHT, "dy").double()
    gradient = t.gradients()["weight"].double()
    assert isinstance(step, Tensor)
    slack = t.bound(weight=ahead)["output"] + t.bound(weight=behind)["output"]
    allowed = t.gradient_bound()["weight"]
    error = (slack.error * dy.cpu().abs()).sum() / 2 + (allowed.error * step.cpu().abs()).sum()
    t.agree(
        {"derivative": (gradient * step).sum()},
        {"derivative": ((left - right) * dy).sum() / 2},
        {"derivative": Bound(error=error, tier=max(slack.tier, allowed.tier))},
    )


FINITE_DIFFERENCES = Law(
    id="M7b",
    name="finite_differences_see_the_gradient_of_the_weight",
    statement="(f(w + v) - f(w - v)) / 2 = <df/dw, v>",
    domain="masks that are the same for all channels: else m' depends on w, and is held constant",
    requires=SCALED,
    within=_uniform,
    outside=_different_in_channels,
    check=_finite_difference,
)


def _per_channel(case: ConvCase) -> ConvCase:
    case = given(case).with_options(mask_channels=None)
    return replace(case, c_in=case.c_in * 2) if case.c_in == 1 else case


def _one_channel_present(t: Trial) -> None:
    case, mask = t.case, torch.zeros_like(own_mask(t))
    weight = t.wide("weight").abs().flatten(2).sum(2)  # (C_out, C_in/groups)
    total = weight.sum(1)
    for channel in range(case.c_in):
        only = mask.clone()
        only[:, channel] = 1
        group, own = divmod(channel, case.c_in // case.groups)
        filters = case.c_out // case.groups
        share = torch.where(total > 0, weight[:, own] / total, case.groups / case.c_in)
        outside = (torch.arange(case.c_out) // filters) != group
        got = t(mask=only)["mask"]
        expected = per_channel(share.masked_fill(outside, 0), got).expand(got.shape)
        bound = {"mask": t.bound(mask=only)["mask"]}
        t.agree({"mask": got}, {"mask": expected}, bound, f"channel {channel} present")


CHANNELS_COUNT_AS_THEIR_WEIGHTS = Law(
    id="M10",
    name="channels_count_as_their_weights",
    statement="m'(only channel c) = sum_u |w[c,u]| / sum_{c,u} |w[c,u]|, 1/C for a zero filter",
    domain="a mask per channel, two channels or more",
    requires=SCALED,
    within=_per_channel,
    check=_one_channel_present,
    zero_is_right=True,
)
