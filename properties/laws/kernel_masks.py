"""What a constant mask over the taps of a kernel means."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Outputs, Trial
from harness.law import Law
from harness.taps import apply_mask, pad, taps
from harness.variant import Trait
from properties.masked_cases import ONE_MASK_OF_TAPS, kernel_mask_name, odd_kernels

_MASKS_TAPS = frozenset({Trait.MASKS_TAPS})


def _kept(t: Trial, shape: torch.Size | None = None) -> Tensor:
    """Return the mask over the taps in float64, expanded to the weight's (or another) shape."""
    return t.wide(kernel_mask_name(t)).expand(t.wide("weight").shape if shape is None else shape)


def _with_kernel(t: Trial, kept: Tensor) -> Tensor:
    """Return `kept` in the dtype of the case's kernel mask."""
    return kept.to(t.tensors[kernel_mask_name(t)].dtype)


def _signal(t: Trial) -> Tensor:
    """Return `x*m` in float64."""
    x, mask = t.wide("x"), t.wide("mask")
    return x if mask is None else apply_mask(x, mask)


def _plain(t: Trial, x: Tensor, weight: Tensor, bias: Tensor | None, **changed: object) -> Outputs:
    """Return the plain convolution of the case's geometry, with some of it changed."""
    ones = (1,) * t.case.spatial_dims
    geometry = {"padding": (0,) * t.case.spatial_dims, "dilation": ones, "groups": t.case.groups}
    return {
        "output": t.other("plain")(
            x, weight, bias, **{"stride": t.case.stride, **geometry, **changed}
        )
    }


def _named(family: str) -> Callable[[ConvCase], ConvCase]:
    """Return a move to one mask for all filters and channels, of `family`, the bias everywhere."""
    return lambda case: case.with_options(**ONE_MASK_OF_TAPS, kernel_mask=family)


# -- values ------------------------------------------------------------------------------------


def _no_taps(t: Trial) -> None:
    y = t.truth()["output"]
    bias = t.wide("bias")
    if bias is None or t.case.option("bias_where", "all") == "support":
        expected = torch.zeros_like(y)
    else:
        expected = bias.view(-1, *(1 for _ in t.case.in_size)).expand_as(y)
    t.agree(t(), {"output": expected})


NO_TAPS_IS_BIAS = Law(
    id="K2",
    name="no_taps_is_the_bias_term",
    statement="f(x, w, b, k = 0) = b; 0 with a bias that needs support",
    domain="k = 0",
    requires=_MASKS_TAPS,
    within=lambda case: case.with_options(kernel_mask="zeros"),
    check=_no_taps,
    zero_is_right=True,
)


def _adds_over_taps(t: Trial) -> None:
    name = kernel_mask_name(t)
    k = t.tensors[name]
    index = torch.arange(k.numel(), device=k.device).view(k.shape)
    first = ((index + t.case.seed) % 3 == 0).to(k.dtype)
    parts = [(k * first).to(k.dtype), (k * (1 - first.to(torch.int8))).to(k.dtype)]
    a, b = (t(**{name: part})["output"].double() for part in parts)
    bias = 0 if t.wide("bias") is None else t.wide("bias").view(-1, *(1 for _ in t.case.in_size))
    bounds = [t.bound(**{name: part})["output"] for part in parts]
    together = bounds[0] + bounds[1] + t.bound()["output"]
    t.agree({"output": a.cpu() + b.cpu() - bias}, t(), {"output": together})


ADDS_OVER_TAPS = Law(
    id="K3",
    name="adds_over_disjoint_masks",
    statement="f(k1) + f(k2) - b = f(k1 + k2) where k1 k2 = 0",
    domain="a bias that is added everywhere",
    requires=_MASKS_TAPS,
    within=lambda case: case.with_options(bias_where=None),
    check=_adds_over_taps,
)


def _is_sum_of_shifts(t: Trial) -> None:
    case = t.case
    filters = apply_mask(t.wide("weight"), _kept(t))
    extended = pad(_signal(t), case.padding, case.option("padding_mode", "zeros"))
    y = torch.zeros(case.out_shape, dtype=torch.float64)
    ones = (1,) * case.spatial_dims
    for tap in product(*(range(k) for k in case.kernel_size)):
        one = filters[(..., *(slice(u, u + 1) for u in tap))]
        if not one.any():
            continue
        reach = zip(tap, case.dilation, case.out_size, case.stride, strict=True)
        shifted = extended[(..., *(slice(u * d, u * d + (q - 1) * s + 1) for u, d, q, s in reach))]
        y = y + _plain(t, shifted, one, None, dilation=ones)["output"]
    bias = t.wide("bias")
    y = y if bias is None else y + bias.view(-1, *(1 for _ in case.in_size))
    t.agree(t(), {"output": y}, t.bound())


IS_SUM_OF_SHIFTS = Law(
    id="K4",
    name="is_a_sum_of_shifted_pointwise_convolutions",
    statement="f(x, w, b, k) = sum over kept u of conv1x1(x shifted by u, w_u k_u) + b",
    domain="a bias that is added everywhere, finite x",
    requires=_MASKS_TAPS,
    within=lambda case: case.with_options(bias_where=None),
    check=_is_sum_of_shifts,
)


def _is_smaller_kernel(t: Trial) -> None:
    """Compare with the plain convolution of the crop of the kernel, dilated by the lattice's step."""
    case = t.case
    step = 2 if case.option("kernel_mask", "ones") == "lattice" else 1
    kept = t.wide(kernel_mask_name(t)).nonzero()
    low, high = kept.min(0).values.tolist(), kept.max(0).values.tolist()
    weight = t.wide("weight")[
        (..., *(slice(a, b + 1, step) for a, b in zip(low, high, strict=True)))
    ]
    dilation = tuple(d * step for d in case.dilation)
    extended = pad(_signal(t), case.padding, case.option("padding_mode", "zeros"))
    axes = zip(low, high, case.dilation, case.out_size, case.stride, strict=True)
    shifted = extended[
        (..., *(slice(a * d, b * d + (q - 1) * s + 1) for a, b, d, q, s in axes))
    ]  # fmt: skip
    t.agree(t(), _plain(t, shifted, weight, t.wide("bias"), dilation=dilation), t.bound())


BOX_IS_SMALLER_KERNEL = Law(
    id="K5",
    name="box_mask_is_a_smaller_kernel",
    statement="f(x, w, b, k = box) = conv(x shifted, w[box]) + b",
    domain="one box of kept taps for all filters",
    requires=_MASKS_TAPS,
    within=_named("box"),
    check=_is_smaller_kernel,
)
LATTICE_IS_DILATION = Law(
    id="K6",
    name="lattice_mask_is_dilation",
    statement="f(x, w, b, k = every second tap; d) = conv(x, w[::2]; 2d) + b",
    domain="every second tap of every axis, for all filters",
    requires=_MASKS_TAPS,
    within=_named("lattice"),
    check=_is_smaller_kernel,
)


def _centre_is_pointwise(t: Trial) -> None:
    case, mode = t.case, t.case.option("padding_mode", "zeros")
    x, room = _signal(t), []
    halves = zip(case.padding, case.dilation, case.kernel_size, strict=True)
    for axis, left in enumerate((p - d * (k - 1) // 2 for p, d, k in halves), start=2):
        crop = max(-left, 0)
        x = x.narrow(axis, crop, x.shape[axis] - 2 * crop)
        room.append(max(left, 0))
    middle = tuple(slice(k // 2, k // 2 + 1) for k in case.kernel_size)
    weight = t.wide("weight")[(..., *middle)]
    t.agree(t(), _plain(t, pad(x, room, mode), weight, t.wide("bias")), t.bound())


CENTRE_IS_POINTWISE = Law(
    id="K7",
    name="centre_tap_is_a_pointwise_convolution",
    statement="f(x, w, b, k = centre; p) = conv1x1(x, w_centre; p - d(K-1)/2) + b, negative = crop",
    domain="odd kernels, the centre tap alone, finite x",
    requires=_MASKS_TAPS,
    within=lambda case: _named("centre")(odd_kernels(case)),
    check=_centre_is_pointwise,
)


# -- symmetries ----------------------------------------------------------------------------------


def _grouped(case: ConvCase) -> ConvCase:
    case = case.with_options(bias_where=None)
    if case.groups > 1:
        return case
    return replace(case, groups=2, c_in=2 * case.c_in, c_out=2 * case.c_out)


def _blocks_are_groups(t: Trial) -> None:
    case, name = t.case, kernel_mask_name(t)
    c_out, c_in = case.c_out // case.groups, case.c_in // case.groups
    shape = (case.c_out, case.c_in, *case.kernel_size)
    weight = t.another("weight").repeat(1, case.groups, *(1 for _ in case.in_size))
    blocks = torch.zeros(shape, dtype=torch.float64)
    for g in range(case.groups):
        inside = (slice(g * c_out, (g + 1) * c_out), slice(g * c_in, (g + 1) * c_in))
        weight[inside] = t.tensors["weight"][inside[0]]
        blocks[inside] = _kept(t)[inside[0]]
    got = t.called({"groups": 1}, weight=weight, **{name: _with_kernel(t, blocks)})
    t.agree(got, t(), {k: b.scaled(2) for k, b in t.bound().items()}, "dense with a block mask")


BLOCKS_ARE_GROUPS = Law(
    id="K14",
    name="block_diagonal_masks_are_groups",
    statement="f(x, w, b, k block-diagonal over channels; G = 1) = f(x, blocks of w, b; G)",
    domain="two groups or more, a bias that is added everywhere",
    requires=_MASKS_TAPS,
    within=_grouped,
    check=_blocks_are_groups,
)


# -- where the bias goes -------------------------------------------------------------------------


def _with_support(case: ConvCase) -> ConvCase:
    return replace(case, bias=True).with_options(bias_where="support")


def _bias_needs_support(t: Trial) -> None:
    case, mask = t.case, t.wide("mask")
    bias = t.tensors["bias"].where(t.tensors["bias"] != 0, 1.0)
    present = (t.wide("x") != 0) if mask is None else (mask > 0).expand(case.x_shape)
    kept = (_kept(t) > 0).unflatten(0, (case.groups, -1))
    supported = torch.zeros(case.out_shape, dtype=torch.bool)
    geometry = {name: getattr(case, name) for name in ("stride", "padding", "dilation")}
    mode = case.option("padding_mode", "zeros")
    for tap, window in taps(present, case.kernel_size, padding_mode=mode, **geometry):
        sees = window.unflatten(1, (case.groups, 1, -1))  # (N, G, 1, C_in/G, *S_out)
        uses = kept[(..., *tap)].view(1, *kept.shape[:3], *(1 for _ in case.in_size))
        supported |= (sees & uses).any(3).flatten(1, 2)
    everywhere = t.called({"bias_where": "all"}, bias=bias)["output"].double().cpu()
    term = bias.double().cpu().view(-1, *(1 for _ in case.in_size))
    bound = t.bound(bias=bias)["output"].scaled(2)
    t.agree(t(bias=bias), {"output": everywhere - term * ~supported}, {"output": bound})


BIAS_NEEDS_SUPPORT = Law(
    id="K17",
    name="bias_needs_support",
    statement="f('support') = f('all') - b * 1(no kept tap of the window sees a present value)",
    domain="b != 0; present = in bounds and m > 0, without a mask in bounds and x != 0",
    requires=_MASKS_TAPS,
    within=_with_support,
    check=_bias_needs_support,
)
