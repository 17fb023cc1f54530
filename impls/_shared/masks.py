"""Applying a mask to a signal."""

from collections.abc import Sequence
from functools import partial
from math import isfinite

import torch
from torch import Tensor
from torch.autograd import forward_ad

from impls._shared.convolution import convolve
from impls._shared.eager import is_readable
from impls._shared.onednn import convolve_faster

_ZEROS = tuple((0,) * rank for rank in range(4))
# Entries of an output that are summed as soon as those of one channel.
_FEW = 2**13


def present(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x * mask`, exactly 0 where `mask = 0`, whatever stands in `x` there.

    A bool mask costs one pass; a real one two, since NaN * 0 is NaN. What stands in a hole does
    not reach the mask's gradient either.
    """
    if mask.dtype == torch.bool:
        return x.masked_fill(~mask, 0)
    mask = mask.to(x.dtype)
    return x.masked_fill(mask == 0, 0) * mask


def present_by_product(x: Tensor, mask: Tensor) -> Tensor:
    """Return `present(x, mask)` as one product wherever that says the same.

    Selecting by a scattered mask costs about 4 ns per entry on a CPU, which no vector instruction
    helps; a product costs 0.1 ns. The two differ only where an absent entry is NaN or infinite,
    and then the sum of the products is not finite either: one reduction tells.
    """
    # a product would give a mask that is learned a gradient in its holes
    if mask.requires_grad or not is_readable(x):
        return present(x, mask)
    product = x * mask.to(x.dtype)
    return product if isfinite(product.detach().sum().item()) else present(x, mask)


def convolve_eager(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int, padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    """Return `conv(x, w) + b` of an eager `x` with no more work per call than there must be."""
    # channels that stand at stride 1 are told apart by `convolve`
    usual = x.is_contiguous() and weight.is_contiguous() and min(x.stride(1), weight.stride(1)) > 1
    if usual and padding_mode == "zeros":
        none = _ZEROS[len(padding)]
        return torch.convolution(x, weight, bias, stride, padding, dilation, False, none, groups)
    return convolve(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
        padding_mode=padding_mode,
    )  # fmt: skip


def is_few(outputs: int) -> bool:
    """Return whether so many outputs are summed as soon as those of one channel."""
    return outputs < _FEW


def is_bare(x: Tensor, weight: Tensor, mask: Tensor) -> bool:
    """Return whether eager tensors go to the library as they are: no cast, no layout, no tangent."""
    dtype = x.dtype
    return (
        mask.dtype == dtype
        and (dtype is torch.float32 or dtype is torch.float64)
        and not mask.requires_grad
        and forward_ad._current_level < 0
        and x.is_contiguous()
        and weight.is_contiguous()
        and mask.is_contiguous()
        and min(x.stride(1), weight.stride(1), mask.stride(1)) > 1
    )


def convolve_quickly(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int, padding_mode: str = "zeros", *, eager: bool,
) -> Tensor:  # fmt: skip
    """Return `conv(x, w) + b` by the fastest form that there is for `x`, `eager` or traced."""
    if eager and len(padding) < 3:
        return convolve_eager(x, weight, bias, stride, padding, dilation, groups, padding_mode)
    form = convolve_faster if eager else convolve
    return form(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
        padding_mode=padding_mode,
    )  # fmt: skip


def convolve_present(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], groups: int, padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    """Return `conv(present(x, mask), w) + b` with a product in place of the selection.

    A product that is not finite shows in every channel of the output that reads it: one per group,
    or all of few, summed, tell whether there was one. What no window reads does no harm.
    """
    eager = is_readable(x)
    # by the same form whatever stands in the holes: others round otherwise
    convolved = partial(
        convolve_quickly, weight=weight, bias=bias, stride=stride, padding=padding,
        dilation=dilation, groups=groups, padding_mode=padding_mode, eager=eager,
    )  # fmt: skip
    if eager and not mask.requires_grad:
        y = convolved(x * (mask if mask.dtype == x.dtype else mask.to(x.dtype)))
        read = y if groups > 1 or is_few(y.numel()) else y.select(1, 0)
        if groups > 1 and groups < weight.shape[0]:
            read = y[:, :: weight.shape[0] // groups]
        if isfinite((read.detach() if read.requires_grad else read).sum().item()):
            return y
    return convolved(present(x, mask))
