"""Which inputs an output sees through a mask over the taps, and that it sees no others."""

from dataclasses import replace
from itertools import product

import torch

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.variant import Trait
from properties.masked_cases import ONE_MASK_OF_TAPS, kernel_mask_name, odd_kernels

_MASKS_TAPS = frozenset({Trait.MASKS_TAPS})


def _masked_taps_do_nothing(t: Trial) -> None:
    name = kernel_mask_name(t)
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
    case = odd_kernels(case).with_options(**words)
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
    # a mask of the weight's shape follows the order of the colours
    by_colour = t.wide(kernel_mask_name(t)).shape == case.weight_shape and family != "causal"
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
    case = odd_kernels(case).with_options(**ONE_MASK_OF_TAPS, mask="none", padding_mode=None)
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
    kept = (t.wide(kernel_mask_name(t)) > 0).nonzero().tolist()
    expected = torch.zeros(case.in_size, dtype=torch.float64)
    for first, second in product(kept, kept):
        axes = zip(middle, first, second, case.dilation, case.kernel_size, strict=True)
        expected[tuple(m - d * (u + v - (k - 1)) for m, u, v, d, k in axes)] = 1
    t.agree({"support": (y != 0).double()}, {"support": expected}, what="of two layers of ones")
    y = t(x=t(x=x)["output"])["output"][0, 0].cpu()
    t.require(not bool((y != 0)[expected == 0].any()), "two layers reach beyond the sum of masks")


SUPPORT_ADDS_UP = Law(
    id="K11",
    name="support_of_a_stack_is_the_sum_of_the_masks",
    statement="the response of two layers to one pixel is inside of the Minkowski sum of the "
    "masks; equal for ones",
    domain="one channel, one mask for all filters, s = 1, odd K, away from the border",
    requires=_MASKS_TAPS,
    within=_one_channel,
    check=_support_adds_up,
    zero_is_right=True,
)
