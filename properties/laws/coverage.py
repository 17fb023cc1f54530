"""What dividing by the coverage of the window does: partial convolution's own laws."""

from dataclasses import replace
from math import inf, nan, prod

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Outputs, Trial
from harness.law import Law
from harness.taps import pad
from harness.tolerance import Bound
from harness.variant import Trait
from properties.masked_cases import (
    SCATTERED,
    absent,
    binary,
    counted,
    given,
    holey,
    must_take,
    own_mask,
    shared_by_channels,
    signal,
    taps_inside,
    zero_padded,
)

COVERS = frozenset({Trait.REWEIGHTS_BY_COVERAGE})


def _padded_first(t: Trial) -> None:
    case = t.case
    mode = case.option("padding_mode", "zeros")
    x, mask = (pad(v.double().cpu(), case.padding, mode) for v in (signal(t), own_mask(t)))
    unpadded = {**t.keywords, "padding": (0,) * case.spatial_dims}
    oracle = t.other(t.variant.name)
    expected = oracle(x, t.wide("weight"), t.wide("bias"), mask, **unpadded)
    t.agree(t(), expected._asdict(), t.bound())


PADDING_IS_MASKING = Law(
    id="P3",
    name="padding_is_masking",
    statement="f(x, m, padding p) = f(pad x, pad m, no padding)",
    requires=COVERS,
    within=given,
    check=_padded_first,
)


def _sees_something(t: Trial) -> None:
    expected = (counted(t, own_mask(t)) > 0).double()
    t.agree({"mask": t()["mask"]}, {"mask": expected})


MASK_IS_WHAT_IS_SEEN = Law(
    id="P4",
    name="mask_is_whether_anything_is_seen",
    statement="m' = 1 where the window holds a present value, else 0",
    domain="masks of 0 and 1",
    requires=COVERS,
    within=binary,
    check=_sees_something,
    zero_is_right=True,
)


def _max_pooled(t: Trial) -> None:
    case, mask = t.case, own_mask(t).double().cpu()
    pool = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d,
            torch.nn.functional.max_pool3d)[case.spatial_dims - 1]  # fmt: skip
    found = pool(mask, case.kernel_size, case.stride, case.padding, case.dilation)
    t.agree({"mask": t()["mask"]}, {"mask": found})


def pooled(case: ConvCase) -> ConvCase:
    """Give all channels one mask of 0 and 1, padded by zeros and as little as pooling allows."""
    case = zero_padded(shared_by_channels(binary(case)))
    padding = tuple(min(p, k // 2) for p, k in zip(case.padding, case.kernel_size, strict=True))
    fits = (f - 2 * p for f, p in zip(case.receptive_field, padding, strict=True))
    return replace(case, padding=padding, in_size=tuple(map(max, case.in_size, fits)))


def _touching(case: ConvCase) -> ConvCase:
    moved = pooled(case)
    if all(bool(touched.all()) for touched in _touched(moved)):
        return moved
    return pooled(replace(case, dilation=(1,) * case.spatial_dims))


def _touched(case: ConvCase) -> list[Tensor]:
    """Return per axis which outputs have a tap in the image."""
    return [inside.any(1) for inside in taps_inside(case)]


def _skipping(case: ConvCase) -> ConvCase:
    """Let a window stand astride the image: one tap before it, the next behind it."""
    sizes = {"kernel_size": 2, "padding": 1, "dilation": 3, "in_size": 2}
    return replace(pooled(case), **{n: (v,) * case.spatial_dims for n, v in sizes.items()})


MASK_IS_MAX_POOLED = Law(
    id="P4b",
    name="mask_is_max_pooled",
    statement="m' = max_pool(m)",
    domain="masks of 0 and 1, p <= K//2, every window touches the image",
    requires=COVERS,
    within=_touching,
    outside=_skipping,
    check=_max_pooled,
    zero_is_right=True,
)


def _monotone(t: Trial) -> None:
    mask = own_mask(t)
    # what another entry has as well: never more
    fewer = torch.minimum(mask.to(torch.float64), torch.roll(mask, 1, -1).to(torch.float64))
    below, above = t(mask=fewer.to(mask))["mask"], t()["mask"]
    t.require(bool((below <= above).all()), "a smaller mask gives a larger one")


MASK_IS_MONOTONE = Law(
    id="P5",
    name="mask_is_monotone",
    statement="m1 <= m2 gives m'(m1) <= m'(m2)",
    requires=COVERS,
    within=holey,
    check=_monotone,
    zero_is_right=True,
)


def _any_dtype(case: ConvCase) -> ConvCase:
    dtypes = ("float32", "float16", "bfloat16", "float64")
    return replace(holey(case), dtype=dtypes[case.seed % 4], fill="exact")


def _empty_windows(t: Trial) -> None:
    empty = counted(t, own_mask(t)) == 0
    for word in (0.0, nan, inf):
        for name, value in t(x=signal(t).masked_fill(absent(t), word)).items():
            t.require(
                bool(value.isfinite().all()), f"{name} is not finite with {word} in the holes"
            )
            there = empty.to(value.device).expand(value.shape)
            held = value.masked_fill(~there, 0)
            t.agree({name: held}, {name: torch.zeros_like(held)}, what="empty windows")


EMPTY_WINDOWS_GIVE_ZERO = Law(
    id="P6",
    name="empty_windows_give_zero",
    statement="y = 0 and m' = 0 where nothing is present, everything finite, in every dtype",
    requires=COVERS,
    within=_any_dtype,
    check=_empty_windows,
    zero_is_right=True,
)


def _uniform(t: Trial) -> None:
    must_take(t, mask_channels=None)
    mask = own_mask(t)
    got = t(mask=mask.expand(-1, t.case.c_in, *t.case.in_size).clone())
    expected = {name: value.expand_as(got[name]) for name, value in t().items()}
    bound = {
        name: Bound(error=2 * b.error.expand_as(got[name]), tier=b.tier)
        for name, b in t.bound().items()
    }
    t.agree(got, expected, bound)


UNIFORM_IS_SHARED = Law(
    id="P9",
    name="uniform_mask_is_a_shared_mask",
    statement="f(x, m per channel, all equal) = f(x, m of one channel)",
    domain="masks of 0 and 1",
    requires=COVERS,
    within=lambda case: shared_by_channels(binary(case)),
    check=_uniform,
)


def _constant_mask(t: Trial) -> None:
    mask = own_mask(t).clone().requires_grad_()
    bias = t.tensors["bias"]
    arguments = {"x": signal(t).clone().requires_grad_(), "mask": mask, "bias": bias}
    outputs: Outputs = t(**arguments)
    for name, value in outputs.items():
        found = None
        if value.requires_grad:
            found = torch.autograd.grad(value.sum(), mask, retain_graph=True, allow_unused=True)[0]
        t.require(found is None, f"{name} has a gradient with respect to the mask")


MASK_IS_CONSTANT = Law(
    id="P17",
    name="no_gradient_flows_to_the_mask",
    statement="df/dm does not exist: the mask is a constant for autograd",
    requires=COVERS,
    within=lambda case: given(case).with_options(mask_dtype=None),
    check=_constant_mask,
)


def _growing(case: ConvCase) -> ConvCase:
    rank = case.spatial_dims
    side = max(3, max(case.kernel_size) // 2 * 2 + 1)
    ones = (1,) * rank
    shared = zero_padded(shared_by_channels(case)).with_options(mask=SCATTERED)
    return replace(
        shared, kernel_size=(side,) * rank, padding=(side // 2,) * rank, stride=ones, dilation=ones
    )


def _grows(t: Trial) -> None:
    case = t.case
    mask = own_mask(t).clone()
    mask.view(len(mask), -1)[:, case.seed % prod(case.in_size)] = 1  # never empty
    reach = case.kernel_size[0] // 2
    grid = torch.cartesian_prod(*map(torch.arange, case.in_size)).view(-1, case.spatial_dims)
    farthest = max(
        int(torch.cdist(grid.double(), grid[m.cpu().flatten() > 0].double(), p=inf).amin(1).amax())
        for m in mask
    )
    layers = 0
    while not bool((mask == 1).all()) and layers <= farthest:
        mask, layers = t(mask=mask)["mask"], layers + 1
    t.require(
        layers == -(-farthest // reach),
        f"{layers} layers reach a hole {farthest} away at {reach} a layer",
    )


FILLS_HOLES_LAYER_BY_LAYER = Law(
    id="P14",
    name="masks_grow_by_half_a_kernel_a_layer",
    statement="m' is all ones after ceil(chessboard distance of the farthest hole / (K//2)) layers",
    domain="masks of 0 and 1, not empty; s = d = 1, odd equal K >= 3, p = K//2, zero padding",
    requires=COVERS,
    within=_growing,
    check=_grows,
    share=0.5,
)
