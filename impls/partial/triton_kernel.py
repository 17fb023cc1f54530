"""Partial convolution with everything after the library's convolution in two kernels."""

from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from impls._shared.convolution import convolve, pad_by_mode
from impls._shared.masks import present
from impls._shared.triton_epilogue import rescale
from impls._shared.triton_runtime import (
    accumulator,
    launch,
    launches,
    lifted,
    written,
)
from impls.partial.box_filter import by_box_filter
from impls.partial.oracle import PartialOutput

BLOCK = 256


def fused_epilogue(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
    groups: int, **geometry: Any,
) -> PartialOutput:  # fmt: skip
    """Return `((conv(x*m, w) * win/coverage + b) * m', m')`.

    One small kernel sums the mask over every window, one pass over the output does the rest; one
    pass over its gradient gives those of the convolution and of the bias.
    """
    if not launches(x, weight, bias, mask):
        return by_box_filter(x, weight, bias, mask, groups=groups, **geometry)
    signal = x if mask is None else present(x, mask.detach())
    y = convolve(signal, weight, groups=groups, **geometry)
    with torch.no_grad():
        ratio, share = _coverage(x, weight, mask, groups, **geometry)
    updated = share
    if share.shape[1] > 1:
        updated = share.repeat_interleave(weight.shape[0] // groups, 1)
    return PartialOutput(rescale(y, bias, ratio, share), updated)


@triton.jit
def _box(
    counted, ratio, share, planes, positions, size, out_size, kernel_size, stride, padding, dilation,
    win, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`coverage = sum over the window of counted`, then `win / coverage * min(coverage, 1)`."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < planes * positions
    position, plane = entry % positions, entry // positions
    first2 = position % out_size[2] * stride[2] - padding[2]
    first1 = position // out_size[2] % out_size[1] * stride[1] - padding[1]
    first0 = position // (out_size[2] * out_size[1]) * stride[0] - padding[0]
    coverage = tl.zeros([BLOCK], ACC)
    for u0 in range(kernel_size[0]):
        i0 = first0 + u0 * dilation[0]
        seen0 = inside & (i0 >= 0) & (i0 < size[0])
        start0 = (plane * size[0] + i0) * size[1]
        for u1 in range(kernel_size[1]):
            i1 = first1 + u1 * dilation[1]
            seen1 = seen0 & (i1 >= 0) & (i1 < size[1])
            start1 = counted + (start0 + i1) * size[2]
            for u2 in range(kernel_size[2]):
                i2 = first2 + u2 * dilation[2]
                seen = seen1 & (i2 >= 0) & (i2 < size[2])
                coverage += tl.load(start1 + i2, mask=seen, other=0.0).to(ACC)
    updated = tl.minimum(coverage, 1.0)
    covered = coverage > 0
    scale = tl.where(covered, win / tl.where(covered, coverage, 1.0) * updated, 0.0)
    tl.store(ratio + entry, scale.to(ratio.dtype.element_ty), mask=inside)
    tl.store(share + entry, updated.to(share.dtype.element_ty), mask=inside)


def _coverage(
    x: Tensor, weight: Tensor, mask: Tensor | None, groups: int, *, stride: Any, padding: Any,
    dilation: Any, padding_mode: str = "zeros",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return `win / coverage * m'` and `m'`, one channel per group that differs."""
    kernel_size = weight.shape[2:]
    win, wide = prod(kernel_size), torch.promote_types(x.dtype, torch.float32)
    if mask is None:
        counted = x.new_ones((1, 1, *x.shape[2:]), dtype=wide)
    elif mask.shape[1] == 1:
        counted = mask.detach().to(wide)
    else:
        win *= weight.shape[1]
        counted = mask.detach().unflatten(1, (groups, -1)).sum(2, dtype=wide)
    if padding_mode != "zeros" and any(padding):
        counted, padding = pad_by_mode(counted, padding, padding_mode), [0] * len(padding)
    counted = counted.contiguous()
    axes = zip(counted.shape[2:], kernel_size, stride, padding, dilation, strict=True)
    out_size = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in axes]
    shape = (*counted.shape[:2], *out_size)
    ratio, share = (x.new_empty(shape, dtype=written(x.dtype)) for _ in range(2))
    planes, positions = prod(shape[:2]), prod(out_size)
    launch(
        _box, (triton.cdiv(planes * positions, BLOCK),), counted, ratio, share, planes, positions,
        lifted(counted.shape[2:], 1), lifted(out_size, 1), lifted(kernel_size, 1),
        lifted(stride, 1), lifted(padding, 0), lifted(dilation, 1), win,
        ACC=accumulator(x.dtype), BLOCK=BLOCK,
    )  # fmt: skip
    return ratio.to(x.dtype), share.to(x.dtype)
