"""Polynomial continuation written once into a padded buffer, and its adjoint."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared.convolution import pad_by_mode
from impls._shared.extension import extended_axes, side_rows, weigh


class Plan(NamedTuple):
    """What is continued: `(axis, steps, dilation, degree)` per axis, ring widths, image size."""

    axes: tuple[tuple[int, int, int, int], ...]
    ring: Shape
    size: Shape


def plan_of(axes: tuple[tuple[int, int, int, int], ...], size: Shape) -> Plan:
    """Return the plan of an image of `size` that is continued along `axes`."""
    widths = {axis - 2: steps * dilation for axis, steps, dilation, _ in axes}
    return Plan(axes, tuple(widths.get(axis, 0) for axis in range(len(size))), size)


def extend_into_buffer(
    x: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], degrees: Sequence[int]
) -> Tensor:
    """Return `P x` as `extend` does, but copy the image once, whatever the number of axes.

    The ring is computed from the buffer itself: along each axis only for the positions that the
    axes before it have filled and those inside the image along the axes behind it. The gradient is
    folded back in the reverse order, in one buffer too.

    Raises:
        CaseError: an axis has too few samples.
    """
    axes = tuple(extended_axes(x.shape[2:], kernel_size, dilation, degrees))
    if not axes:
        return x
    plan = plan_of(axes, tuple(x.shape[2:]))
    # a compiler derives the adjoint itself; eagerly every write would clone the whole gradient
    if torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
        return _Extension.apply(x, plan)
    return _fill(x, plan)


def _fill(x: Tensor, plan: Plan) -> Tensor:
    buffer = pad_by_mode(x, plan.ring, "zeros")
    for inner, (axis, steps, d, q) in _regions(buffer, plan, plan.axes):
        for ring, near, rows in _sides(inner, plan, axis, d, side_rows(steps, q)):
            ring.copy_(weigh(near, axis, d, rows))
    return buffer


def _fold(gradient: Tensor, plan: Plan) -> Tensor:
    buffer = gradient.clone()
    for inner, (axis, steps, d, q) in _regions(buffer, plan, plan.axes[::-1]):
        for ring, near, rows in _sides(inner, plan, axis, d, side_rows(steps, q)):
            transposed = [list(column) for column in zip(*rows, strict=True)]
            near.add_(weigh(ring, axis, d, transposed))
    for axis, (width, size) in enumerate(zip(plan.ring, plan.size, strict=True), start=2):
        buffer = buffer.narrow(axis, width, size)
    return buffer


def _regions(
    buffer: Tensor, plan: Plan, axes: Sequence[tuple[int, int, int, int]]
) -> Iterator[tuple[Tensor, tuple[int, int, int, int]]]:
    """Yield the part of the buffer that the continuation along each axis works in."""
    for entry in axes:
        inner = buffer
        for later in range(entry[0] + 1, buffer.dim()):
            inner = inner.narrow(later, plan.ring[later - 2], plan.size[later - 2])
        yield inner, entry


def _sides(
    inner: Tensor, plan: Plan, axis: int, dilation: int, matrices: Sequence[list[list[int]]]
) -> Iterator[tuple[Tensor, Tensor, list[list[int]]]]:
    """Yield `(ring, nearest samples, weights)` on both sides of `axis`."""
    width, size = plan.ring[axis - 2], plan.size[axis - 2]
    reach = len(matrices[0][0]) * dilation
    starts = ((0, width), (width + size, width + size - reach))
    for (ring, near), rows in zip(starts, matrices, strict=True):
        yield inner.narrow(axis, ring, width), inner.narrow(axis, near, reach), rows


class _Adjoint(torch.autograd.Function):
    """A linear map whose gradient is another."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Plan], output: Tensor) -> None:
        """Keep the plan: the map is linear, no tensor is needed."""
        del output
        ctx.plan = inputs[1]


class _Extension(_Adjoint):
    """`x -> P x`."""

    @staticmethod
    def forward(x: Tensor, plan: Plan) -> Tensor:
        """Return `P x`."""
        return _fill(x, plan)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return `P^T g`."""
        return _Folding.apply(gradient, ctx.plan), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """Return `P dx`."""
        return _Extension.apply(tangent, ctx.plan)


class _Folding(_Adjoint):
    """`g -> P^T g`."""

    @staticmethod
    def forward(gradient: Tensor, plan: Plan) -> Tensor:
        """Return `P^T g`."""
        return _fold(gradient, plan)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return `P h`."""
        return _Extension.apply(gradient, ctx.plan), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """Return `P^T dg`."""
        return _Folding.apply(tangent, ctx.plan)
