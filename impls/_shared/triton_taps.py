"""A convolution tap by tap, as an implicit matrix product: taps may be left out, or windows masked.

Source of the scheme: Chetlur et al. 2014, "cuDNN: efficient primitives for deep learning",
arXiv 1410.0759, section 3: tiles of the unfolded signal are made as they are multiplied.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.api import Shape
from impls._shared.triton_runtime import (
    accumulator,
    blank,
    launch,
    lifted,
    operand,
    precision,
    strides_of,
    tuned,
    written,
)

_TILES = (
    triton.Config({"ROWS": 128, "COLUMNS": 64, "DEPTH": 16}, num_warps=8, num_stages=3),
    triton.Config({"ROWS": 64, "COLUMNS": 64, "DEPTH": 32}, num_warps=4, num_stages=3),
    triton.Config({"ROWS": 64, "COLUMNS": 32, "DEPTH": 16}, num_warps=4, num_stages=2),
    triton.Config({"ROWS": 32, "COLUMNS": 16, "DEPTH": 16}, num_warps=2, num_stages=2),
)
# here the rows are summed
_SUMS = (
    triton.Config({"ROWS": 16, "COLUMNS": 64, "DEPTH": 64}, num_warps=4, num_stages=3),
    triton.Config({"ROWS": 32, "COLUMNS": 32, "DEPTH": 32}, num_warps=4, num_stages=3),
    triton.Config({"ROWS": 32, "COLUMNS": 16, "DEPTH": 16}, num_warps=2, num_stages=2),
)
_INTERPRETED = {"ROWS": 256, "COLUMNS": 16, "DEPTH": 16}


@tuned(("rows", "inner", "outer", "TRANSPOSED", "MASKED", "OPERAND"), _INTERPRETED, *_TILES)
@triton.jit
def _product(
    a, w, mask, keep, out, rows, positions, inner, outer, size, out_size, kernel_size,
    scale, shift, step, divisor, a_strides, w_strides, mask_strides, out_strides,
    TRANSPOSED: tl.constexpr, MASKED: tl.constexpr, SKIPS: tl.constexpr, ACC: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """`out[q] = sum over kept taps of w[tap] @ (a * mask)[window(q)]`, or its transpose.

    A tap reads `(q * scale + shift + tap * step) / divisor`, where that is a whole number: the
    window's sample, or the window that reads a sample. `inner` channels per group are summed,
    `outer` are computed.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    group = tl.program_id(2)
    sample, position = (row // positions).to(tl.int64), row % positions
    q2 = position % out_size[2]
    q1 = position // out_size[2] % out_size[1]
    q0 = position // (out_size[2] * out_size[1])
    first0, first1 = q0 * scale[0] + shift[0], q1 * scale[1] + shift[1]
    first2 = q2 * scale[2] + shift[2]
    from_a = sample * a_strides[0]
    total = tl.zeros([ROWS, COLUMNS], ACC)
    tap = 0
    for u0 in range(kernel_size[0]):
        at0 = first0 + u0 * step[0]
        i0 = at0 // divisor[0]
        seen0 = (row < rows) & (at0 >= 0) & (i0 < size[0]) & (i0 * divisor[0] == at0)
        for u1 in range(kernel_size[1]):
            at1 = first1 + u1 * step[1]
            i1 = at1 // divisor[1]
            seen1 = seen0 & (at1 >= 0) & (i1 < size[1]) & (i1 * divisor[1] == at1)
            near1 = from_a + i0 * a_strides[2] + i1 * a_strides[3]
            for u2 in range(kernel_size[2]):
                kept = True
                if SKIPS:
                    kept = tl.load(keep + tap) != 0
                if kept:
                    at2 = first2 + u2 * step[2]
                    i2 = at2 // divisor[2]
                    seen = seen1 & (at2 >= 0) & (i2 < size[2]) & (i2 * divisor[2] == at2)
                    near = near1 + i2 * a_strides[4]
                    if MASKED:
                        window = position
                        if TRANSPOSED:
                            window = (i0 * size[1] + i1) * size[2] + i2
                        from_mask = sample * mask_strides[0] + tap * mask_strides[2] + window
                    part = tl.zeros([ROWS, COLUMNS], ACC)
                    for start in range(0, inner, DEPTH):
                        depth = start + tl.arange(0, DEPTH)
                        channel = group * inner + depth
                        there = seen[:, None] & (depth < inner)[None, :]
                        place = near[:, None] + (channel * a_strides[1])[None, :]
                        left = tl.load(a + place, mask=there, other=0.0)
                        if MASKED and not TRANSPOSED:
                            place = from_mask[:, None] + (channel * mask_strides[1])[None, :]
                            left = left.to(ACC) * tl.load(mask + place, mask=there, other=0).to(ACC)
                        place = group * w_strides[0] + tap
                        place += (depth * w_strides[1])[:, None] + (column * w_strides[2])[None, :]
                        there = (depth < inner)[:, None] & (column < outer)[None, :]
                        right = tl.load(w + place, mask=there, other=0.0)
                        part = tl.dot(
                            left.to(OPERAND), right.to(OPERAND), part,
                            input_precision=PRECISION, out_dtype=ACC,
                        )  # fmt: skip
                    if MASKED and TRANSPOSED:
                        channel = (group * outer + column) * mask_strides[1]
                        there = seen[:, None] & (column < outer)[None, :]
                        place = from_mask[:, None] + channel[None, :]
                        part *= tl.load(mask + place, mask=there, other=0).to(ACC)
                    total += part
                tap += 1
    to = sample * out_strides[0] + q0 * out_strides[2] + q1 * out_strides[3] + q2 * out_strides[4]
    place = to[:, None] + ((group * outer + column) * out_strides[1])[None, :]
    there = (row < rows)[:, None] & (column < outer)[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=there)


@tuned(("rows", "filters", "channels", "MASKED", "OPERAND"), _INTERPRETED, *_SUMS)
@triton.jit
def _correlation(
    g, x, mask, keep, out, rows, positions, filters, channels, size, out_size, kernel_size,
    stride, padding, dilation, g_strides, x_strides, mask_strides, taps,
    MASKED: tl.constexpr, SKIPS: tl.constexpr, ACC: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """`out[o, c, tap] = sum over samples and windows of g[o] * (x * mask)[c]`; 0 if not kept."""
    tap, group = tl.program_id(0), tl.program_id(2)
    across = tl.cdiv(channels, DEPTH)
    column = tl.program_id(1) // across * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.program_id(1) % across * DEPTH + tl.arange(0, DEPTH)
    u2 = tap % kernel_size[2]
    u1 = tap // kernel_size[2] % kernel_size[1]
    u0 = tap // (kernel_size[2] * kernel_size[1])
    own, channel = column < filters, group * channels + depth
    total = tl.zeros([COLUMNS, DEPTH], ACC)
    count = rows
    if SKIPS:
        count = tl.where(tl.load(keep + tap) != 0, rows, 0)
    for start in range(0, count, ROWS):
        row = start + tl.arange(0, ROWS)
        sample, position = (row // positions).to(tl.int64), row % positions
        q2 = position % out_size[2]
        q1 = position // out_size[2] % out_size[1]
        q0 = position // (out_size[2] * out_size[1])
        i0 = q0 * stride[0] - padding[0] + u0 * dilation[0]
        i1 = q1 * stride[1] - padding[1] + u1 * dilation[1]
        i2 = q2 * stride[2] - padding[2] + u2 * dilation[2]
        seen = (row < rows) & (i0 >= 0) & (i0 < size[0]) & (i1 >= 0) & (i1 < size[1])
        seen = seen & (i2 >= 0) & (i2 < size[2])
        near = sample * g_strides[0] + q0 * g_strides[2] + q1 * g_strides[3] + q2 * g_strides[4]
        place = ((group * filters + column) * g_strides[1])[:, None] + near[None, :]
        left = tl.load(g + place, mask=own[:, None] & (row < rows)[None, :], other=0.0)
        there = seen[:, None] & (depth < channels)[None, :]
        near = sample * x_strides[0] + i0 * x_strides[2] + i1 * x_strides[3] + i2 * x_strides[4]
        place = near[:, None] + (channel * x_strides[1])[None, :]
        right = tl.load(x + place, mask=there, other=0.0)
        if MASKED:
            place = sample * mask_strides[0] + tap * mask_strides[2] + position
            place = place[:, None] + (channel * mask_strides[1])[None, :]
            right = right.to(ACC) * tl.load(mask + place, mask=there, other=0).to(ACC)
        total = tl.dot(
            left.to(OPERAND), right.to(OPERAND), total, input_precision=PRECISION, out_dtype=ACC
        )
    place = ((group * filters + column) * channels)[:, None] + depth[None, :]
    there = own[:, None] & (depth < channels)[None, :]
    tl.store(out + place * taps + tap, total.to(out.dtype.element_ty), mask=there)


class Plan(NamedTuple):
    """The geometry of a convolution, its sizes included."""

    size: Shape
    out_size: Shape
    weight: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int


Part = Literal["y", "x", "w"]
# each is computed from the two after it, in turn: y from x and w, x from w and y, w from y and x
_NEXT: dict[Part, Part] = {"y": "x", "x": "w", "w": "y"}


def _mask_strides(mask: Tensor | None, taps: int) -> tuple[int, int, int]:
    """Return the strides over samples, channels and taps; 0 where one mask serves all."""
    if mask is None:
        return 0, 0, 0
    windows = prod(mask.shape[2:]) // taps
    batch, channels = (mask.stride(axis) if mask.shape[axis] > 1 else 0 for axis in (0, 1))
    return batch, channels, windows


def _run(
    part: Part, first: Tensor, second: Tensor, mask: Tensor | None, keep: Tensor | None, plan: Plan
) -> Tensor:
    """Return one of the derivatives of `sum g * conv(x, w)`, from the other two tensors."""
    filters, channels = plan.weight[0] // plan.groups, plan.weight[1]
    kernel_size = plan.weight[2:]
    taps, wide = prod(kernel_size), accumulator(first.dtype)
    geometry = [lifted(getattr(plan, n), f) for n, f in (("stride", 1), ("padding", 0), ("dilation", 1))]  # fmt: skip
    common = {
        "MASKED": mask is not None, "SKIPS": keep is not None, "ACC": wide,
        "OPERAND": operand(first.dtype), "PRECISION": precision(first),
    }  # fmt: skip
    like = second if part == "x" else first
    shape = plan.weight
    if part != "w":
        inside, count = (plan.out_size, filters) if part == "y" else (plan.size, channels)
        shape = (like.shape[0], count * plan.groups, *inside)
    out = blank(shape, like) if part != "w" else first.new_empty(shape, dtype=written(first.dtype))
    others = (out if mask is None else mask, out if keep is None else keep)
    sizes = [lifted(plan.size, 1), lifted(plan.out_size, 1)]
    if out.numel() == 0:
        return out.to(first.dtype)
    if part == "w":
        positions = prod(plan.out_size)
        launch(
            _correlation,
            lambda m: (
                taps,
                triton.cdiv(filters, m["COLUMNS"]) * triton.cdiv(channels, m["DEPTH"]),
                plan.groups,
            ),
            first, second, *others, out, first.shape[0] * positions, positions, filters, channels,
            *sizes, lifted(kernel_size, 1), *geometry, strides_of(first), strides_of(second),
            _mask_strides(mask, taps), taps, **common,
        )  # fmt: skip
        return out.to(first.dtype)
    a, w = (first, second) if part == "y" else (second, first)
    w = w.contiguous()
    inner, outer, strides = channels, filters, (w.stride(1), w.stride(0))
    ones, (stride, padding, dilation) = (1, 1, 1), geometry
    reads = (stride, tuple(-p for p in padding), dilation, ones)
    if part == "x":
        inner, outer, strides, sizes = filters, channels, strides[::-1], sizes[::-1]
        reads = (ones, padding, tuple(-d for d in dilation), stride)
    rows, positions = out.shape[0] * prod(out.shape[2:]), prod(out.shape[2:])
    launch(
        _product,
        lambda m: (
            triton.cdiv(rows, m["ROWS"]), triton.cdiv(outer, m["COLUMNS"]), plan.groups,
        ),
        a, w, *others, out, rows, positions, inner, outer, *sizes, lifted(kernel_size, 1),
        *reads, strides_of(a), (filters * w.stride(0), *strides), _mask_strides(mask, taps),
        strides_of(out), TRANSPOSED=part == "x", **common,
    )  # fmt: skip
    return out.to(first.dtype)


class _Derivative(torch.autograd.Function):
    """One of three maps, each linear in either tensor, whose derivatives are the other two."""

    @staticmethod
    def forward(
        part: Part, first: Tensor, second: Tensor, mask: Tensor | None, keep: Tensor | None,
        plan: Plan,
    ) -> Tensor:  # fmt: skip
        """Return the map's value."""
        return _run(part, first, second, mask, keep, plan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep both tensors and the masks."""
        del output
        ctx.part, *tensors, ctx.plan = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the other two maps' values."""
        first, second, mask, keep = ctx.saved_tensors
        one = _NEXT[ctx.part]
        rest, left, right = (mask, keep, ctx.plan), None, None
        if ctx.needs_input_grad[1]:
            left = _Derivative.apply(one, second, gradient, *rest)
        if ctx.needs_input_grad[2]:
            right = _Derivative.apply(_NEXT[one], gradient, first, *rest)
        return None, left, right, None, None, None

    @staticmethod
    def jvp(ctx: Any, part: None, left: Tensor | None, right: Tensor | None, *_: Any) -> Tensor:
        """Return the sum of the values with either tensor replaced by its tangent."""
        del part
        first, second, mask, keep = ctx.saved_tensors
        rest = (mask, keep, ctx.plan)
        terms = []
        if left is not None:
            terms.append(_Derivative.apply(ctx.part, left, second, *rest))
        if right is not None:
            terms.append(_Derivative.apply(ctx.part, first, right, *rest))
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def convolve_taps(
    x: Tensor, weight: Tensor, *, keep: Tensor | None = None, mask: Tensor | None = None,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    """Return `y[q] = sum over kept u of w[u] (x*m[u])[window(q)]`, zeros outside of the image.

    Args:
        x: Shape `(N, C_in, *S)`.
        weight: Shape `(C_out, C_in/groups, *K)`.
        keep: Shape `(prod K,)`, int8: taps that are 0 are neither read nor multiplied, and have no
            gradient. What is kept is read on the device: nothing waits for it.
        mask: A constant, shape `(1|N, 1|C_in, *K, *S_out)`.
        stride, padding, dilation: One entry per spatial axis.
        groups: Channel groups.
    """
    size, kernel_size = tuple(x.shape[2:]), weight.shape[2:]
    axes = zip(size, kernel_size, stride, padding, dilation, strict=True)
    out_size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    plan = Plan(
        size, out_size, tuple(weight.shape), tuple(stride), tuple(padding), tuple(dilation), groups
    )
    mask = None if mask is None else mask.detach().contiguous()
    return _Derivative.apply("y", x, weight, mask, keep, plan)
