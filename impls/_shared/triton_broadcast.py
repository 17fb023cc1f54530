"""Terms that lack some axes, added to a tensor over all of them in one pass."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.api import Shape
from impls._shared.triton_runtime import (
    accumulator,
    blank,
    flat,
    launch,
    launches,
    lifted,
    strides_of,
    tuned,
)

AT_ONCE = 3


class Repeat(NamedTuple):
    """An axis along which entry `before` of a term stands for `count` outputs."""

    before: int
    count: int


Plan = tuple[tuple[Repeat, ...], ...]
"""Per term and axis what is repeated; `Repeat(0, 1)` where the term spans the axis."""
SPANNED = Repeat(0, 1)


@tuned(
    ("rows", "positions", "TERMS"),
    {"ROWS": 16, "WIDTH": 128},
    triton.Config({"ROWS": 1, "WIDTH": 1024}, num_warps=4),
    triton.Config({"ROWS": 4, "WIDTH": 256}, num_warps=4),
    triton.Config({"ROWS": 16, "WIDTH": 64}, num_warps=4),
    triton.Config({"ROWS": 64, "WIDTH": 32}, num_warps=8),
)
@triton.jit
def _add(
    base, term0, term1, term2, out, rows, positions, channels, size,
    base_strides, out_strides, strides0, strides1, strides2, before0, before1, before2,
    extra0, extra1, extra2,
    HAS_BASE: tl.constexpr, TERMS: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """`out = base + sum of terms`, output `i` of an axis reading entry `i - clamp(i - before)`."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    position = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (position < positions)[None, :]
    sample, channel = (row // channels).to(tl.int64), row % channels
    q2 = position % size[2]
    q1 = position // size[2] % size[1]
    q0 = position // (size[2] * size[1])
    value = tl.zeros([ROWS, WIDTH], ACC)
    if HAS_BASE:
        near = sample * base_strides[0] + channel * base_strides[1]
        place = near[:, None] + position[None, :] * base_strides[2]
        value += tl.load(base + place, mask=inside, other=0.0).to(ACC)
    value += _spread(term0, strides0, before0, extra0, sample, channel, q0, q1, q2, inside, ACC)
    if TERMS > 1:
        value += _spread(term1, strides1, before1, extra1, sample, channel, q0, q1, q2, inside, ACC)
    if TERMS > 2:
        value += _spread(term2, strides2, before2, extra2, sample, channel, q0, q1, q2, inside, ACC)
    to = sample * out_strides[0] + channel * out_strides[1]
    place = to[:, None] + position[None, :] * out_strides[2]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _spread(
    term, strides, before, extra, sample, channel, q0, q1, q2, inside, ACC: tl.constexpr
):  # fmt: skip
    """The term's entry for every output of a tile."""
    i0 = q0 - tl.minimum(tl.maximum(q0 - before[0], 0), extra[0])
    i1 = q1 - tl.minimum(tl.maximum(q1 - before[1], 0), extra[1])
    i2 = q2 - tl.minimum(tl.maximum(q2 - before[2], 0), extra[2])
    near = sample * strides[0] + channel * strides[1]
    place = near[:, None] + (i0 * strides[2] + i1 * strides[3] + i2 * strides[4])[None, :]
    return tl.load(term + place, mask=inside, other=0.0).to(ACC)


def _run(shape: Shape, base: Tensor | None, terms: Sequence[Tensor], plan: Plan) -> Tensor:
    like = terms[0] if base is None else base
    out = blank(shape, like)
    rows, positions = prod(shape[:2]), prod(shape[2:])
    out, to = flat(out)
    source, from_base = (out, (0, 0, 0)) if base is None else flat(base)
    padded = [*terms, *[terms[0]] * (AT_ONCE - len(terms))]
    repeats = [*plan, *[plan[0]] * (AT_ONCE - len(terms))]
    if rows and positions:
        launch(
            _add,
            lambda meta: (triton.cdiv(rows, meta["ROWS"]), triton.cdiv(positions, meta["WIDTH"])),
            source, *padded, out, rows, positions, shape[1], lifted(shape[2:], 1), from_base, to,
            *map(strides_of, padded),
            *(lifted([r.before for r in axes], 0) for axes in repeats),
            *(lifted([r.count - 1 for r in axes], 0) for axes in repeats),
            HAS_BASE=base is not None, TERMS=len(terms), ACC=accumulator(like.dtype),
        )  # fmt: skip
    return out.to(like.dtype)


class _Sum(torch.autograd.Function):
    """`(base, terms) -> base + sum of terms spread over the axes that they lack`: linear."""

    @staticmethod
    def forward(shape: Shape, plan: Plan, base: Tensor | None, *terms: Tensor) -> Tensor:
        """Return the sum."""
        return _run(shape, base, terms, plan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the plan: no tensor is needed."""
        del output
        ctx.shape, ctx.plan, base, *_ = inputs
        ctx.based = base is not None

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradient and its sums over what every term lacks."""
        wanted = zip(ctx.plan, ctx.needs_input_grad[3:], strict=True)
        sums = [folded(gradient, axes) if needs else None for axes, needs in wanted]
        return None, None, gradient if ctx.based else None, *sums

    @staticmethod
    def jvp(ctx: Any, shape: None, plan: None, base: Tensor | None, *terms: Tensor) -> Tensor:
        """Return the sum of the tangents."""
        del shape, plan
        return _Sum.apply(ctx.shape, ctx.plan, base if ctx.based else None, *terms)


def folded(gradient: Tensor, axes: Sequence[Repeat]) -> Tensor:
    """Return the sums of `gradient` over the outputs that one entry of a term stands for."""
    for axis, (before, count) in enumerate(axes, start=2):
        if count > 1:
            behind = gradient.shape[axis] - before - count
            total = gradient.narrow(axis, before, count).sum(axis, keepdim=True)
            start = gradient.narrow(axis, 0, before)
            end = gradient.narrow(axis, before + count, behind)
            gradient = torch.cat([start, total, end], axis) if before or behind else total
    return gradient


def spread_over(term: Tensor, axes: Sequence[Repeat]) -> Tensor:
    """Return `term` with the entries that stand for several repeated: the adjoint of `folded`."""
    for axis, (before, count) in enumerate(axes, start=2):
        if count > 1:
            shape = list(term.shape)
            shape[axis] = count
            behind = term.shape[axis] - before - 1
            middle = term.narrow(axis, before, 1).expand(shape)
            start, end = term.narrow(axis, 0, before), term.narrow(axis, before + 1, behind)
            term = torch.cat([start, middle, end], axis) if before or behind else middle
    return term


def broadcast_add(
    shape: Shape, base: Tensor | None, terms: Sequence[Tensor], plan: Sequence[Sequence[Repeat]]
) -> Tensor:
    """Return `base + sum of terms`, every term spread over the axes that it lacks.

    Args:
        shape: Of the result, `(N, C, *S)`.
        base: Over all axes; none = 0.
        terms: Shape `(N, C, *)`, one entry or a short tile along the axes that they lack; at most
            `AT_ONCE`.
        plan: Per term and axis what is repeated.
    """
    fixed = tuple(map(tuple, plan))
    if not terms:
        assert base is not None
        return base
    if launches(base, *terms):
        return _Sum.apply(tuple(shape), fixed, base, *terms)
    for term, axes in zip(terms, fixed, strict=True):
        wide = spread_over(term, axes)
        base = wide if base is None else base + wide
    return base
