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
from harness.tensors import each
from harness.tolerance import Bound
from harness.variant import Role, Trait

_MASKS_TAPS = frozenset({Trait.MASKS_TAPS})
_ONLY_NAMED = {"kernel_mask_shape": None, "bias_where": None}


def _kernel(t: Trial) -> str:
    """Return the name of the mask over the taps."""
    return next(arg.name for arg in t.variant.args if arg.covers == "weight")


def _kept(t: Trial, shape: torch.Size | None = None) -> Tensor:
    """Return the mask over the taps in float64, expanded to the weight's (or another) shape."""
    return t.wide(_kernel(t)).expand(t.wide("weight").shape if shape is None else shape)


def _with_kernel(t: Trial, kept: Tensor) -> Tensor:
    """Return `kept` in the dtype of the case's kernel mask."""
    return kept.to(t.tensors[_kernel(t)].dtype)


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
    return lambda case: case.with_options(**_ONLY_NAMED, kernel_mask=family)


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
    name = _kernel(t)
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
    kept = t.wide(_kernel(t)).nonzero()
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


def _odd(case: ConvCase) -> ConvCase:
    return replace(case, kernel_size=tuple(k - (k % 2 == 0) for k in case.kernel_size))


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
    within=lambda case: _named("centre")(_odd(case)),
    check=_centre_is_pointwise,
)


# -- what stands under the mask ------------------------------------------------------------------


def _masked_taps_do_nothing(t: Trial) -> None:
    name = _kernel(t)
    absent = (t.tensors[name] == 0).expand(t.tensors["weight"].shape)
    gradients = t.gradients()
    left = gradients["weight"].where(absent, 0.0)
    t.agree({"weight": left}, {"weight": torch.zeros_like(left)}, what="gradient at masked taps")
    y = t()
    for junk in (float("nan"), float("inf")):
        weight = t.tensors["weight"].masked_fill(absent, junk)
        t.agree(t(weight=weight), y, what=f"{junk} stored in masked taps")
        t.agree(t.gradients(weight=weight), gradients, what=f"gradient, {junk} in masked taps")


MASKED_TAPS_DO_NOTHING = Law(
    id="K8",
    name="masked_taps_do_nothing",
    statement="df/dw = 0 where k = 0, and NaN or Inf stored there changes neither f nor gradients",
    requires=_MASKS_TAPS,
    check=_masked_taps_do_nothing,
    zero_is_right=True,
)


def _raster(case: ConvCase) -> ConvCase:
    """Move to a same-size case of a few pixels and a mask in raster order."""
    words = {"mask": "none", "padding_mode": None, "bias_where": None}
    if case.option("kernel_mask", "ones") not in ("pixelcnn_a", "pixelcnn_b", "causal"):
        words["kernel_mask"] = "pixelcnn_b" if case.seed % 2 else "pixelcnn_a"
    case = _odd(case).with_options(**words)
    half = tuple(d * (k - 1) // 2 for d, k in zip(case.dilation, case.kernel_size, strict=True))
    return replace(
        case, n=1, bias=False, stride=(1,) * case.spatial_dims, padding=half, layout="contiguous",
        in_size=tuple(min(size, 4 if case.spatial_dims < 3 else 3) for size in case.in_size),
    )  # fmt: skip


def _sees_no_future(t: Trial) -> None:
    """Read the Jacobian off one batch of unit vectors: without bias the map is linear."""
    case, family = t.case, t.case.option("kernel_mask", "ones")
    x, size = t.tensors["x"], case.in_size
    units = torch.eye(x.numel(), dtype=x.dtype, device=x.device).view(-1, *x.shape[1:])
    jacobian = t(x=units)["output"].cpu()  # (inputs, C_out, *S)
    place = torch.arange(x[0, 0].numel()).view(size)
    if family == "causal":
        place = torch.arange(size[0]).view(-1, *(1 for _ in size[1:])).expand(size)
    by_colour = case.option("kernel_mask_shape", "taps") == "all" and family != "causal"
    before, after = (
        3 * place + (torch.arange(c) * 3 // c).view(-1, *(1 for _ in size)) * by_colour
        for c in (case.c_in, case.c_out)
    )
    later = before.flatten().view(-1, *(1 for _ in after.shape)) - after
    hidden = later >= 0 if family == "pixelcnn_a" else later > 0
    seen = jacobian.where(hidden, 0.0)
    t.agree(
        {"jacobian": seen}, {"jacobian": torch.zeros_like(seen)}, what="outputs see later inputs"
    )


CAUSAL_SEES_NO_FUTURE = Law(
    id="K10",
    name="causal_masks_see_no_future",
    statement="dy_i/dx_j = 0 for j > i (type A: j >= i) in raster order, then in order of colours",
    domain="masks pixelcnn_a, pixelcnn_b, causal; s = 1, odd K, p = d(K-1)/2, zeros",
    requires=_MASKS_TAPS,
    within=_raster,
    check=_sees_no_future,
    zero_is_right=True,
)


def _one_channel(case: ConvCase) -> ConvCase:
    """Move to an image of one channel that two layers cannot leave from its middle."""
    case = _odd(case).with_options(**_ONLY_NAMED, mask="none", padding_mode=None)
    half = tuple(d * (k - 1) // 2 for d, k in zip(case.dilation, case.kernel_size, strict=True))
    ones = (1,) * case.spatial_dims
    return replace(
        case, n=1, c_in=1, c_out=1, groups=1, bias=False, stride=ones, padding=half,
        in_size=tuple(4 * h + 1 for h in half), layout="contiguous",
    )  # fmt: skip


def _support_adds_up(t: Trial) -> None:
    case = t.case
    middle = tuple(size // 2 for size in case.in_size)
    x = torch.zeros_like(t.tensors["x"])
    x[(0, 0, *middle)] = 1
    ones = torch.ones_like(t.tensors["weight"])
    y = t(x=t(x=x, weight=ones)["output"], weight=ones)["output"][0, 0]
    kept = (t.wide(_kernel(t)) > 0).nonzero().tolist()
    expected = torch.zeros(case.in_size, dtype=torch.float64)
    for first, second in product(kept, kept):
        axes = zip(middle, first, second, case.dilation, case.kernel_size, strict=True)
        expected[tuple(m - d * (u + v - (k - 1)) for m, u, v, d, k in axes)] = 1
    t.agree({"support": (y != 0).double()}, {"support": expected}, what="of two layers")


SUPPORT_ADDS_UP = Law(
    id="K11",
    name="support_of_a_stack_is_the_sum_of_the_masks",
    statement="the response of two layers of ones to one pixel is the Minkowski sum of the masks",
    domain="one channel, one mask for all filters, s = 1, odd K, away from the border",
    requires=_MASKS_TAPS,
    within=_one_channel,
    check=_support_adds_up,
    zero_is_right=True,
)


# -- symmetries ----------------------------------------------------------------------------------


def _whole_strides(case: ConvCase) -> ConvCase:
    """Grow the image until the windows of a strided case end where they begin, from the far side."""
    axes = zip(case.in_size, case.padding, case.receptive_field, case.stride, strict=True)
    return replace(case, in_size=tuple(size + (f - size - 2 * p) % s for size, p, f, s in axes))


def _commutes(
    t: Trial, move: Callable[[Tensor], Tensor], what: str, keywords: dict[str, object]
) -> None:
    moved = {
        name: each(value, move)
        for name, value in t.tensors.items()
        if name != "bias" and value is not None
    }
    expected = {name: move(value) for name, value in t().items()}
    twice = {k: Bound(error=2 * move(b.error), tier=b.tier) for k, b in t.bound().items()}
    t.agree(t.called(keywords, **moved), expected, twice, what)


def _mirrors(t: Trial) -> None:
    for axis in range(1, t.case.spatial_dims + 1):
        _commutes(t, lambda v, axis=axis: v.flip(-axis), f"axis -{axis} flipped", {})
    if t.case.spatial_dims > 1:
        names = ("stride", "padding", "dilation")
        fields = {name: getattr(t.case, name) for name in names}
        swapped = {name: (*v[:-2], v[-1], v[-2]) for name, v in fields.items()}
        _commutes(t, lambda v: v.transpose(-1, -2), "last two axes swapped", swapped)


MIRRORS = Law(
    id="K13",
    name="flips_and_transposes_together",
    statement="f(Rx, Rw, b, Rk) = R f(x, w, b, k) for flips and transpositions R of space",
    domain="(S + 2p - d(K-1) - 1) mod s = 0",
    requires=_MASKS_TAPS,
    within=_whole_strides,
    check=_mirrors,
)


def _grouped(case: ConvCase) -> ConvCase:
    case = case.with_options(bias_where=None)
    if case.groups > 1:
        return case
    return replace(case, groups=2, c_in=2 * case.c_in, c_out=2 * case.c_out)


def _blocks_are_groups(t: Trial) -> None:
    case, name = t.case, _kernel(t)
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


def _ungrouped(case: ConvCase) -> ConvCase:
    return replace(case, groups=1, c_in=max(case.c_in, 2), c_out=max(case.c_out, 2))


def _permutes_channels(t: Trial) -> None:
    name = _kernel(t)
    rolled = {"weight": t.tensors["weight"].roll(1, 0), name: _with_kernel(t, _kept(t).roll(1, 0))}
    if t.tensors["bias"] is not None:
        rolled["bias"] = t.tensors["bias"].roll(1, 0)
    bound = t.bound()["output"]
    expected = {"output": t()["output"].roll(1, 1)}
    twice = Bound(error=2 * bound.error.roll(1, 1), tier=bound.tier)
    t.agree(t(**rolled), expected, {"output": twice}, "filters moved")
    rolled = {n: t.tensors[n].roll(1, 1) for n in t.names(Role.SIGNAL, Role.WEIGHT)}
    rolled[name] = _with_kernel(t, _kept(t).roll(1, 1))
    if t.tensors["mask"] is not None:
        rolled["mask"] = t.tensors["mask"].roll(1, 1)
    t.agree(t(**rolled), t(), {"output": bound.scaled(2)}, "input channels moved")


PERMUTES_CHANNELS = Law(
    id="K15",
    name="channel_permutations_move_the_mask",
    statement="f(x, Pw, Pb, Pk) = P f(x, w, b, k); f(Qx, wQ, b, kQ) = f(x, w, b, k)",
    domain="one group, two channels or more",
    requires=_MASKS_TAPS,
    within=_ungrouped,
    check=_permutes_channels,
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
