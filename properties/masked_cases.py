"""Moving a case, and its mask, to where the laws of masks hold."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from harness.call import Declined
from harness.case import ConvCase
from harness.check import Trial
from harness.masks import make_mask
from harness.selection import declines
from harness.taps import taps
from harness.tolerance import Bound

SCATTERED = "bernoulli:0.5"
# one mask over the taps for all filters and channels, the bias everywhere
ONE_MASK_OF_TAPS = {"kernel_mask_shape": None, "bias_where": None}


def must_take(t: Trial, **options: str | None) -> None:
    """Raise Declined unless the implementation computes the case with masks of these `options`."""
    if reason := declines(t.implementation, t.variant, t.case.with_options(**options)):
        raise Declined(reason)


def holey(case: ConvCase) -> ConvCase:
    """Give a case without holes scattered ones."""
    full = case.option("mask", "ones") in ("ones", "none")
    return case.with_options(mask=SCATTERED) if full else case


def given(case: ConvCase) -> ConvCase:
    """Give a case without a mask scattered holes."""
    return case.with_options(mask=SCATTERED) if case.option("mask", "ones") == "none" else case


def binary(case: ConvCase) -> ConvCase:
    """Give a case without a mask, or with one that is not 0 or 1, scattered holes."""
    real = case.option("mask", "ones") in ("none", "real")
    return case.with_options(mask=SCATTERED) if real else case


def shared_by_channels(case: ConvCase) -> ConvCase:
    """Give all channels one mask."""
    return given(case).with_options(mask_channels="one")


def zero_padded(case: ConvCase) -> ConvCase:
    """Pad with zeros."""
    return case.with_options(padding_mode=None)


def several_samples(case: ConvCase) -> ConvCase:
    """Take two samples at least."""
    return replace(case, n=max(case.n, 2))


def drawn_mask(t: Trial, family: str, salt: int = 0) -> Tensor:
    """Return another mask of the shape and dtype of the trial's."""
    mask = t.tensors["mask"]
    assert isinstance(mask, Tensor)
    generator = torch.Generator().manual_seed(t.case.seed + 65536 * (salt + 1))
    return make_mask(tuple(mask.shape), family, generator).to(mask)


def own_mask(t: Trial) -> Tensor:
    """Return the trial's mask."""
    mask = t.tensors["mask"]
    assert isinstance(mask, Tensor)
    return mask


def signal(t: Trial) -> Tensor:
    """Return the trial's signal."""
    x = t.tensors["x"]
    assert isinstance(x, Tensor)
    return x


def absent(t: Trial) -> Tensor:
    """Return where the signal is absent, in its shape."""
    return (own_mask(t) == 0).expand_as(signal(t))


def geometry(case: ConvCase) -> dict[str, tuple[int, ...]]:
    """Return what the loop over taps takes of a case."""
    return {name: getattr(case, name) for name in ("stride", "padding", "dilation")}


def twice(bounds: Mapping[str, Bound]) -> dict[str, Bound]:
    """Return the bounds of a difference of two values with the bounds given."""
    return {name: bound.scaled(2) for name, bound in bounds.items()}


def counted(t: Trial, mask: Tensor) -> Tensor:
    """Return the sum of the mask over every window, float64, a channel per filter that differs.

    Counted tap by tap, without the operation under test.
    """
    case = t.case
    mode = case.option("padding_mode", "zeros")
    wide = mask.double().cpu()
    groups = case.groups if mask.shape[1] > 1 else 1
    wide = wide.unflatten(1, (groups, -1)).sum(2)
    windows = [w for _, w in taps(wide, case.kernel_size, padding_mode=mode, **geometry(case))]
    coverage = torch.stack(windows).sum(0)
    return coverage if groups == 1 else coverage.repeat_interleave(case.c_out // groups, 1)


def taps_inside(case: ConvCase) -> list[Tensor]:
    """Return per axis which taps of every output land in the image, `(out_size, kernel_size)`."""
    found = []
    for axis in range(case.spatial_dims):
        q, u = torch.arange(case.out_size[axis]), torch.arange(case.kernel_size[axis])
        at = q[:, None] * case.stride[axis] - case.padding[axis] + u * case.dilation[axis]
        found.append((at >= 0) & (at < case.in_size[axis]))
    return found


def kernel_mask_name(t: Trial) -> str:
    """Return the name of the mask over the taps."""
    return next(arg.name for arg in t.variant.args if arg.covers == "weight")


def odd_kernels(case: ConvCase) -> ConvCase:
    """Take one tap less along every axis that has an even number."""
    return replace(case, kernel_size=tuple(k - (k % 2 == 0) for k in case.kernel_size))
