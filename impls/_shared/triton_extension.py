"""Polynomial continuation written once into a padded buffer by kernels, and its adjoint."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.api import Shape
from impls._shared.extension import extend, extended_axes
from impls._shared.triton_runtime import (
    INTERPRETED,
    accumulator,
    blank,
    launch,
    launches,
)

BLOCK = 1024 if INTERPRETED else 256


class Plan(NamedTuple):
    """What is continued: `(axis, steps, dilation, degree)` per axis, ring widths, image size."""

    axes: tuple[tuple[int, int, int, int], ...]
    ring: Shape
    size: Shape


@triton.jit
def _weight(step, sample, DEGREE: tl.constexpr, ACC: tl.constexpr):
    """The weight of a sample in the value `step` samples before sample 0: Lagrange's formula."""
    above = tl.full([], 1.0, ACC)
    below = tl.full([], 1.0, ACC)
    for other in tl.static_range(DEGREE + 1):  # products of whole numbers: exact for K <= 7
        own = sample == other
        above *= tl.where(own, 1, step + other).to(ACC)
        below *= tl.where(own, 1, other - sample).to(ACC)
    return above / below


@triton.jit
def _place(entry, count, counts, firsts, channels, strides):
    """Where an entry is in the buffer, and its number along the axis; `channels` per sample."""
    along = entry % count
    rest = entry // count
    across2 = rest % counts[1]
    rest = rest // counts[1]
    across1 = rest % counts[0]
    row = rest // counts[0]
    place = (row // channels).to(tl.int64) * strides[0] + row % channels * strides[1]
    place += (across1 + firsts[0]) * strides[3] + (across2 + firsts[1]) * strides[4]
    return place, along


@triton.jit
def _fill(
    buffer, total, size, width, dilation, channels, counts, firsts, strides,
    DEGREE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write both rings of an axis, `width` entries each, from the `size` samples between them."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < total
    place, along = _place(entry, 2 * width, counts, firsts, channels, strides)
    behind = along >= width
    from_edge = tl.where(behind, 2 * width - 1 - along, along)  # the side behind is mirrored
    step = (width - from_edge + dilation - 1) // dilation
    phase = from_edge - width + step * dilation
    value = tl.zeros([BLOCK], ACC)
    for sample in tl.static_range(DEGREE + 1):
        near = phase + sample * dilation
        source = width + tl.where(behind, size - 1 - near, near)
        given = tl.load(buffer + place + source * strides[2], mask=inside, other=0.0).to(ACC)
        value += given * _weight(step, sample, DEGREE, ACC)
    to = tl.where(behind, along + size, along)
    tl.store(buffer + place + to * strides[2], value.to(buffer.dtype.element_ty), mask=inside)


@triton.jit
def _fold(
    buffer, total, size, width, dilation, channels, counts, firsts, strides,
    DEGREE: tl.constexpr, STEPS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add to every sample of an axis what both rings owe to it: the adjoint of `_fill`."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < total
    place, along = _place(entry, size, counts, firsts, channels, strides)
    own = buffer + place + (width + along) * strides[2]
    value = tl.load(own, mask=inside, other=0.0).to(ACC)
    for side in tl.static_range(2):
        near = size - 1 - along if side else along
        sample, phase = near // dilation, near % dilation
        owed = inside & (sample <= DEGREE)
        for step in tl.static_range(1, STEPS + 1):
            ring = width + phase - step * dilation
            source = 2 * width + size - 1 - ring if side else ring
            given = tl.load(buffer + place + source * strides[2], mask=owed, other=0.0).to(ACC)
            value += given * tl.where(owed, _weight(step, sample, DEGREE, ACC), 0.0)
    tl.store(own, value.to(buffer.dtype.element_ty), mask=inside)


def _regions(
    buffer: Tensor, plan: Plan, axes: Sequence[tuple[int, int, int, int]]
) -> Iterator[tuple[int, int, int, int, Shape, Shape, Shape]]:
    """Yield per axis `size, width, dilation, degree` and where across it the axis is continued.

    The axes before it are full already, those behind it hold the image alone. Strides come with
    the axis first among the spatial ones.
    """
    for axis, _, d, q in axes:
        others = [other for other in range(2, buffer.dim()) if other != axis]
        across = [(0, buffer.shape[o]) if o < axis else (plan.ring[o - 2], plan.size[o - 2])
                  for o in others]  # fmt: skip
        across = [*across, *[(0, 1)] * (2 - len(across))]
        order = [buffer.stride(o) for o in (0, 1, axis, *others)]
        strides = (*order, *(0 for _ in range(5 - len(order))))
        firsts, counts = zip(*across, strict=True)
        yield plan.size[axis - 2], plan.ring[axis - 2], d, q, counts, firsts, strides


def _filled(x: Tensor, plan: Plan) -> Tensor:
    size = [s + 2 * w for s, w in zip(plan.size, plan.ring, strict=True)]
    buffer = blank((*x.shape[:2], *size), x)
    image = buffer
    for axis, (width, inner) in enumerate(zip(plan.ring, plan.size, strict=True), start=2):
        image = image.narrow(axis, width, inner)
    image.copy_(x)
    for size_, width, d, q, counts, firsts, strides in _regions(buffer, plan, plan.axes):
        total = prod(x.shape[:2]) * prod(counts) * 2 * width
        launch(
            _fill, (triton.cdiv(total, BLOCK),), buffer, total, size_, width, d, x.shape[1],
            counts, firsts, strides, DEGREE=q, ACC=accumulator(x.dtype), BLOCK=BLOCK,
        )  # fmt: skip
    return buffer.to(x.dtype)


def _folded(gradient: Tensor, plan: Plan) -> Tensor:
    buffer = blank(gradient.shape, gradient).copy_(gradient)
    for size, width, d, q, counts, firsts, strides in _regions(buffer, plan, plan.axes[::-1]):
        total = prod(buffer.shape[:2]) * prod(counts) * size
        launch(
            _fold, (triton.cdiv(total, BLOCK),), buffer, total, size, width, d, buffer.shape[1],
            counts, firsts, strides, DEGREE=q, STEPS=width // d,
            ACC=accumulator(gradient.dtype), BLOCK=BLOCK,
        )  # fmt: skip
    for axis, (width, size) in enumerate(zip(plan.ring, plan.size, strict=True), start=2):
        buffer = buffer.narrow(axis, width, size)
    return buffer.to(gradient.dtype)


class _Map(torch.autograd.Function):
    """`x -> P x`, or `g -> P^T g`: each is the other's adjoint."""

    @staticmethod
    def forward(x: Tensor, plan: Plan, adjoint: bool) -> Tensor:
        """Return `P x`, or `P^T x`."""
        return _folded(x, plan) if adjoint else _filled(x, plan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Plan, bool], output: Tensor) -> None:
        """Keep the plan: the map is linear, no tensor is needed."""
        del output
        _, ctx.plan, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the adjoint's value."""
        return _Map.apply(gradient, ctx.plan, not ctx.adjoint), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, plan: None, adjoint: None) -> Tensor:
        """Return the value at the tangent."""
        del plan, adjoint
        return _Map.apply(tangent, ctx.plan, ctx.adjoint)


def extend_by_kernels(
    x: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], degrees: Sequence[int]
) -> Tensor:
    """Return `P x` as `extend` does: the image copied once, then one kernel per axis for its rings.

    Raises:
        CaseError: an axis has too few samples.
    """
    axes = tuple(extended_axes(x.shape[2:], kernel_size, dilation, degrees))
    if not axes:
        return x
    if not launches(x):
        return extend(x, kernel_size, dilation, degrees)
    ring = tuple(d * (k - 1) // 2 for k, d in zip(kernel_size, dilation, strict=True))
    return _Map.apply(x, Plan(axes, ring, tuple(x.shape[2:])), False)
