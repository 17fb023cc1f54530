"""The plain convolution by other roads: composed, of a single tap, unfolded, transformed."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Outputs, Trial
from harness.law import Law
from harness.taps import apply_mask, pad, taps
from harness.tensors import another
from harness.tolerance import Bound, error_bound
from harness.variant import Role, Trait
from properties.masked_cases import counted, given

PLAIN = frozenset({Trait.IS_PLAIN})
REWEIGHTED = frozenset({Trait.REWEIGHTS_BY_COVERAGE})


def _mode(case: ConvCase) -> str:
    return case.option("padding_mode", "zeros")


def _over_space(bias: Tensor | None, rank: int) -> Tensor | float:
    """Return the bias shaped to broadcast over outputs, 0 where there is none."""
    return 0.0 if bias is None else bias.view(-1, *(1 for _ in range(rank)))


# -- composition ---------------------------------------------------------------------------------


def _second(case: ConvCase) -> ConvCase:
    """Return a dense, unpadded convolution with one tap or two per axis of the case's outputs."""
    ones = (1,) * case.spatial_dims
    return replace(
        case, c_in=case.c_out, c_out=case.groups * 2, in_size=case.out_size, stride=ones,
        kernel_size=tuple(min(2, size) for size in case.out_size), dilation=ones,
        padding=(0,) * case.spatial_dims, options=(),
    )  # fmt: skip


def _combined(first: Tensor, second: Tensor, case: ConvCase, groups: int) -> Tensor:
    """Return the kernel of both: `w[o,c, a*d + b*s] = sum_m w2[o,m,b] w1[m,c,a]`."""
    size = [f + (k - 1) * s for f, k, s in
            zip(case.receptive_field, second.shape[2:], case.stride, strict=True)]  # fmt: skip
    kernel = first.new_zeros((len(second), first.shape[1], *size))
    left, right = first.unflatten(0, (groups, -1)), second.unflatten(0, (groups, -1))
    for b in product(*map(range, second.shape[2:])):
        mixed = torch.einsum("gom,gmc...->goc...", right[(..., *b)], left).flatten(0, 1)
        place = tuple(
            slice(step * s, step * s + f, d)
            for step, s, f, d in zip(b, case.stride, case.receptive_field, case.dilation, strict=True)
        )  # fmt: skip
        kernel[(..., *place)] += mixed
    return kernel


def _composes(t: Trial) -> None:
    case, plain, y = t.case, t.other("plain"), t()["output"]
    then = _second(case)
    geometry = {n: getattr(then, n) for n in ("stride", "padding", "dilation", "groups")}
    second = another(y.new_empty(then.weight_shape), case, Role.WEIGHT, "second")
    got = t.called({**geometry, "padding_mode": "zeros"}, x=y, weight=second, bias=None)

    wide, second = t.wide("weight"), second.double().cpu()
    kernel = _combined(wide, second, case, case.groups)
    bias = None
    if (first := t.wide("bias")) is not None:
        per_group = first.view(case.groups, 1, -1)
        summed = second.flatten(2).sum(2).unflatten(0, (case.groups, -1))
        bias = (summed * per_group).sum(2).flatten()
    ones = {"dilation": (1,) * case.spatial_dims}
    expected = plain(t.wide("x"), kernel, bias, **{**t.keywords, **ones})

    # what the second convolution makes of the first one's error, and its own
    seen = y.detach().double().cpu()
    carried = plain(t.bound()["output"].error, second.abs(), None, **geometry)
    tensors = {"x": seen, "weight": second, "bias": None}
    own = error_bound(
        t.variant, then, tensors, plain(seen, second, None, **geometry),
        plain(seen.abs(), second.abs(), None, **geometry), implementation=t.implementation,
    )  # fmt: skip
    total = own + Bound(error=carried, tier=t.bound()["output"].tier)
    t.agree(got, {"output": expected}, {"output": total})


COMPOSES = Law(
    id="G16",
    name="convolutions_compose",
    statement="conv(conv(x, v) + b, w) = conv(x, v*w) + sum(w) b, v*w the full convolution",
    domain="the second unpadded and dense; the first as it is",
    requires=PLAIN,
    check=_composes,
    share=0.5,
)


# -- single taps and boxes -----------------------------------------------------------------------


def _one_tap_each(t: Trial) -> tuple[Tensor, list[tuple[int, tuple[int, ...]]]]:
    """Return a kernel with a single 1 per filter, and `(channel, tap)` of every filter's."""
    weight = t.tensors["weight"]
    assert isinstance(weight, Tensor)
    case, delta, chosen = t.case, torch.zeros_like(weight), []
    places = list(product(*map(range, case.kernel_size)))
    per_group, filters = case.c_in // case.groups, case.c_out // case.groups
    for o in range(case.c_out):
        channel, tap = (case.seed + o) % per_group, places[(case.seed // 3 + o) % len(places)]
        delta[(o, channel, *tap)] = 1
        chosen.append((o // filters * per_group + channel, tap))
    return delta, chosen


def _picked(t: Trial, x: Tensor, chosen: Sequence[tuple[int, tuple[int, ...]]]) -> Tensor:
    """Return what the single tap of every filter reads of `x`."""
    geometry = {name: getattr(t.case, name) for name in ("stride", "padding", "dilation")}
    windows = dict(taps(x, t.case.kernel_size, padding_mode=_mode(t.case), **geometry))
    return torch.stack([windows[tap][:, channel] for channel, tap in chosen], 1)


def _delta(t: Trial) -> None:
    delta, chosen = _one_tap_each(t)
    bound = t.bound(weight=delta, bias=None)
    t.agree(t(weight=delta, bias=None), {"output": _picked(t, t.wide("x"), chosen)}, bound)


DELTA_IS_IDENTITY = Law(
    id="G17",
    name="one_tap_reads_one_sample",
    statement="w = 1 at (c, u), else 0: y[q] = x[c, q*s - p + u*d]",
    requires=PLAIN,
    check=_delta,
    rounds=True,
)


def _reweighted_delta(t: Trial) -> None:
    delta, chosen = _one_tap_each(t)
    mask = t.tensors["mask"]
    assert isinstance(mask, Tensor)
    win = t.case.taps * (t.case.c_in // t.case.groups if mask.shape[1] > 1 else 1)
    covered = counted(t, mask)
    scale = torch.where(covered > 0, win / covered, 0.0) * covered.clamp(max=1)
    picked = _picked(t, apply_mask(t.wide("x"), mask.cpu()), chosen)
    got, bound = t(weight=delta, bias=None), t.bound(weight=delta, bias=None)
    t.agree({"output": got["output"]}, {"output": picked * scale}, bound)


DELTA_IS_REWEIGHTED = Law(
    id="G17b",
    name="one_tap_is_reweighted",
    statement="w = 1 at (c, u), else 0: y[q] = (x*m)[c, q*s - p + u*d] * win/coverage * m'",
    domain="a mask",
    requires=REWEIGHTED,
    within=given,
    check=_reweighted_delta,
)


def _counts_taps(t: Trial) -> None:
    case = t.case
    counts = torch.ones((), dtype=torch.float64)
    axes = zip(case.in_size, case.kernel_size, case.stride, case.padding, case.dilation,
               case.out_size, strict=True)  # fmt: skip
    for size, k, s, p, d, out in axes:
        per_axis = [
            sum(_mode(case) != "zeros" or 0 <= q * s - p + u * d < size for u in range(k))
            for q in range(out)
        ]
        counts = counts[..., None] * counts.new_tensor(per_axis)
    x, weight = t.tensors["x"], t.tensors["weight"]
    assert isinstance(x, Tensor)
    assert isinstance(weight, Tensor)
    constant: dict[str, Tensor] = {"x": torch.full_like(x, 3), "weight": torch.ones_like(weight)}
    expected = 3 * case.n_acc // case.taps * counts + _over_space(t.wide("bias"), case.spatial_dims)
    shape = (case.n, case.c_out, *case.out_size)
    t.agree(t(**constant), {"output": expected.expand(shape)}, t.bound(**constant))


BOX_COUNTS_TAPS = Law(
    id="G17c",
    name="box_kernel_counts_the_taps_inside",
    statement="x = 3, w = 1: y[q] = 3 C_in/G * (taps of window q inside the image) + b",
    requires=PLAIN,
    check=_counts_taps,
)


# -- by other algorithms -------------------------------------------------------------------------


def _columns(t: Trial) -> Tensor:
    """Return every window as a column, `(N, groups, C_in/G * prod K, prod S_out)`."""
    case = t.case
    x = pad(t.wide("x"), case.padding, _mode(case))
    axes = zip(case.kernel_size, case.stride, case.dilation, case.out_size, strict=True)
    for axis, (k, s, d, out) in enumerate(axes):
        read = torch.arange(k)[:, None] * d + torch.arange(out) * s
        # axis by axis: (N, C, K.., S_out.., the axes to come)
        x = x.index_select(2 + 2 * axis, read.flatten()).unflatten(2 + 2 * axis, (k, out))
        x = x.movedim(2 + 2 * axis, 2 + axis)
    return x.reshape(case.n, case.groups, case.n_acc, prod(case.out_size))


def _unfolds(t: Trial) -> None:
    case = t.case
    rows = t.wide("weight").reshape(case.groups, -1, case.n_acc)
    y = torch.matmul(rows, _columns(t)).reshape(case.out_shape)
    y = y + _over_space(t.wide("bias"), case.spatial_dims)
    t.agree(t(), {"output": y}, t.bound())


UNFOLDS = Law(
    id="G18",
    name="is_a_product_with_the_windows",
    statement="y = w @ unfold(x) + b",
    requires=PLAIN,
    check=_unfolds,
)


def _circular(case: ConvCase) -> ConvCase:
    sized = replace(case, in_size=tuple(map(max, case.in_size, case.padding)))
    whole = sized if sized.is_exact else replace(sized, fill="exact")
    return whole.with_options(padding_mode="circular")


def _on_the_grid(t: Trial) -> Tensor:
    """Return the kernel on the image's own grid, taps beyond its end wrapped around."""
    case, weight = t.case, t.wide("weight")
    grid = weight.new_zeros((*weight.shape[:2], *case.in_size))
    for tap in product(*map(range, case.kernel_size)):
        at = (u * d % n for u, d, n in zip(tap, case.dilation, case.in_size, strict=True))
        grid[(..., *at)] += weight[(..., *tap)]
    return grid


def _transformed(t: Trial) -> None:
    case, axes = t.case, tuple(range(-t.case.spatial_dims, 0))
    x = torch.fft.fftn(t.wide("x"), dim=axes).unflatten(1, (case.groups, -1))
    w = torch.fft.fftn(_on_the_grid(t), dim=axes).conj().unflatten(0, (case.groups, -1))
    y = torch.fft.ifftn(torch.einsum("ngc...,gkc...->ngk...", x, w), dim=axes).real.flatten(1, 2)
    whole = y.round()
    # far from a half, so that rounding finds the whole number meant: a fault of the law otherwise
    assert float((y - whole).abs().amax()) < 2.0**-20 if y.numel() else True
    sizes = zip(case.in_size, case.stride, case.padding, case.out_size, strict=True)
    for axis, (size, s, p, out) in enumerate(sizes, start=2):
        whole = whole.index_select(axis, (torch.arange(out) * s - p) % size)
    expected: Outputs = {"output": whole + _over_space(t.wide("bias"), case.spatial_dims)}
    t.agree(t(), expected, t.bound())


TRANSFORMS = Law(
    id="G18b",
    name="is_a_product_of_fourier_transforms",
    statement="y = round(IFFT(FFT(x) * conj(FFT(w)))) + b at the positions q*s - p",
    # An FFT is outside of the tolerance model: its error per entry is of the order of
    # 2^-53 log2(size) |x||w|, norms over the whole image. The fills hold whole numbers up to 4 and
    # 2 and a hundred entries: 1e-12, so rounding to the nearest whole number gives the sum itself.
    domain="circular padding, whole numbers",
    requires=PLAIN,
    within=_circular,
    check=_transformed,
    share=0.5,
)
