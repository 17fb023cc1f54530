"""What masking every window on its own comes to, where the windows' masks agree."""

from dataclasses import replace

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.masks import make_mask
from harness.taps import taps
from harness.variant import Trait
from properties.masked_cases import SCATTERED, geometry, holey, own_mask

WINDOWS = frozenset({Trait.MASKS_WINDOWS})


def _one_kernel_mask(t: Trial) -> None:
    """Repeat the mask of one output for all of them, and mask the kernel by it."""
    case, mask = t.case, own_mask(t)
    one = mask.flatten(2 + case.spatial_dims)[..., 0]
    repeated = one.view(*one.shape, *(1 for _ in case.out_size)).expand_as(mask)
    kernel_mask = one.cpu()
    if one.shape[1] > 1:  # the channels of a filter's own group
        kernel_mask = one[0].cpu().unflatten(0, (case.groups, -1))
        kernel_mask = kernel_mask.repeat_interleave(case.c_out // case.groups, 0)
    y = t.other("kernel_masked")(
        t.wide("x"), t.wide("weight"), t.wide("bias"), kernel_mask, **t.keywords
    )
    t.agree(t(mask=repeated), {"output": y}, t.bound(mask=repeated))


ONE_MASK_FOR_ALL_WINDOWS = Law(
    id="W1",
    name="one_mask_for_all_windows_masks_the_kernel",
    statement="f(x, m[u,q] = k[u]) = kernel_masked(x, k)",
    domain="finite x, one mask for the batch",
    requires=WINDOWS,
    within=lambda case: holey(case).with_options(mask_batch="one"),
    check=_one_kernel_mask,
)


def _input_shape(t: Trial) -> tuple[int, ...]:
    return (*own_mask(t).shape[:2], *t.case.in_size)


def _unfolded(t: Trial) -> None:
    case, own = t.case, own_mask(t)
    family = case.option("mask", "ones")
    generator = torch.Generator().manual_seed(case.seed)
    mask = make_mask(_input_shape(t), family, generator).to(own.dtype)
    windows = [window for _, window in taps(mask, case.kernel_size, **geometry(case))]
    every = torch.stack(windows, 2).unflatten(2, case.kernel_size).to(own)
    y = t.other("input_masked")(t.wide("x"), t.wide("weight"), t.wide("bias"), mask, **t.keywords)
    t.agree(t(mask=every), {"output": y}, t.bound(mask=every))


WINDOWS_OF_ONE_MASK = Law(
    id="W2",
    name="windows_of_an_input_mask_mask_the_input",
    statement="f(x, m[u,q] = i[q*s - p + u*d]) = input_masked(x, i)",
    domain="finite x",
    requires=WINDOWS,
    within=holey,
    check=_unfolded,
)


def _scattered(t: Trial) -> Tensor:
    """Return the input mask that holds, at every pixel, what the window that reads it says."""
    case, mask = t.case, own_mask(t).cpu()
    sizes = zip(case.in_size, case.padding, strict=True)
    padded = mask.new_zeros((*mask.shape[:2], *(size + 2 * p for size, p in sizes)))
    unpadded = geometry(case) | {"padding": (0,) * case.spatial_dims}
    for tap, window in taps(padded, case.kernel_size, **unpadded):  # views of `padded`
        window.copy_(mask[(slice(None), slice(None), *tap)])
    inside = (slice(p, p + size) for size, p in zip(case.in_size, case.padding, strict=True))
    return padded[(..., *inside)]


def _apart(t: Trial) -> None:
    y = t.other("input_masked")(
        t.wide("x"), t.wide("weight"), t.wide("bias"), _scattered(t), **t.keywords
    )
    t.agree(t(), {"output": y}, t.bound())


def _no_shared_pixel(case: ConvCase) -> ConvCase:
    return replace(holey(case), stride=case.receptive_field)


def _one_shared_pixel(case: ConvCase) -> ConvCase:
    """Let every window begin where the one before it ends."""
    kernel = tuple(max(k, 2) for k in case.kernel_size)
    reach = tuple(d * (k - 1) for d, k in zip(case.dilation, kernel, strict=True))
    size = tuple(max(size, 2 * r + 2) for size, r in zip(case.in_size, reach, strict=True))
    shared = replace(case, kernel_size=kernel, stride=reach, in_size=size)
    return shared.with_options(mask=SCATTERED)


WINDOWS_APART = Law(
    id="W3",
    name="windows_apart_mask_the_input",
    statement="f(x, m) = input_masked(x, m scattered back to the pixels)",
    domain="no pixel is read by two outputs: stride >= d(K-1) + 1",
    requires=WINDOWS,
    within=_no_shared_pixel,
    outside=_one_shared_pixel,
    check=_apart,
)
