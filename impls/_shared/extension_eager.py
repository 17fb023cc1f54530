"""The convolution of an image that is continued by polynomials, one pass forward, one backward."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from impls._shared import onednn
from impls._shared.convolution import convolve, pad_by_mode
from impls._shared.eager import Gradients, Rule, follow, is_eager
from impls._shared.extension import extended_axes, side_rows
from impls._shared.extension_buffer import Plan, extend_into_buffer, plan_of
from impls._shared.onednn import Geometry


def convolve_extended(
    x: Tensor, weight: Tensor, bias: Tensor | None, degrees: Sequence[int], *,
    stride: Sequence[int], dilation: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    """Return `conv_valid(P x, w) + b`, `P` as in `impls._shared.extension.extend`.

    What is kept for the backward pass is `x` itself: continuing it again costs less than a copy.

    Raises:
        CaseError: an axis has too few samples.
    """
    geometry = Geometry(stride, (0,) * len(stride), dilation, groups)
    kernel_size = tuple(weight.shape[2:])
    if not is_eager(x, weight, bias) or max(kernel_size) == 1:
        extended = extend_into_buffer(x, kernel_size, dilation, degrees)
        return onednn.convolve_faster(extended, weight, bias, **geometry._asdict())
    axes = tuple(extended_axes(x, kernel_size, dilation, degrees))
    rule = _rule(plan_of(axes, tuple(x.shape[2:])), kernel_size, tuple(degrees), geometry)
    return follow(rule, x, weight, bias)


def _rule(
    plan: Plan, kernel_size: Sequence[int], degrees: Sequence[int], geometry: Geometry
) -> Rule:
    def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        extended = extend_into_buffer(x, kernel_size, geometry.dilation, degrees)
        return convolve(extended, weight, bias, **geometry._asdict())

    return Rule(plain, partial(_forward, plan, geometry), partial(_backward, plan, geometry))


def _forward(
    plan: Plan, geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    return onednn.forward(_extended(x, plan), weight, bias, geometry)


def _backward(
    plan: Plan, geometry: Geometry, dy: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor,
    _: Tensor | None,
) -> Gradients:  # fmt: skip
    extended = _extended(x, plan)
    of_x, of_weight, of_bias = onednn.backward(dy, needed, extended, weight, geometry)
    if of_x is not None:
        of_x = _folded(of_x, plan)
    return of_x, of_weight, of_bias


def _extended(x: Tensor, plan: Plan) -> Tensor:
    """Return `P x`: along each axis both sides at once, over whole lines of the buffer.

    The corners are zeros first and lines through them right once the last axis is done.
    """
    buffer = pad_by_mode(x, plan.ring, "zeros")
    for axis, steps, d, q in plan.axes:
        if steps == 1 and q == 2 and plan.size[axis - 2] >= 5 * d:
            first, second, third, ring = (_pair(buffer, plan, axis, d, t) for t in (0, 1, 2, -1))
            torch.add(third, first - second, alpha=3, out=ring)  # 3 a - 3 b + c
            continue
        near, ring = _sides(buffer, plan, axis, d, q + 1), _sides(buffer, plan, axis, d, -steps)
        flat = near.reshape(2, q + 1, -1)
        ring.copy_(torch.bmm(_matrices(steps, q), flat).view(ring.shape))
    return buffer


def _folded(gradient: Tensor, plan: Plan) -> Tensor:
    """Return `P^T g`, written into `g`."""
    for axis, steps, d, q in reversed(plan.axes):
        near, ring = (
            _sides(gradient, plan, axis, d, q + 1), _sides(gradient, plan, axis, d, -steps)
        )  # fmt: skip
        weighed = torch.bmm(_matrices(steps, q).mT, ring.reshape(2, steps, -1)).view(near.shape)
        if plan.size[axis - 2] >= 2 * (q + 1) * d:
            near.add_(weighed)
        else:  # the samples nearest to one side are among those of the other
            near[0].add_(weighed[0])
            near[1].add_(weighed[1])
    for axis, (width, size) in enumerate(zip(plan.ring, plan.size, strict=True), start=2):
        gradient = gradient.narrow(axis, width, size)
    return gradient


def _sides(buffer: Tensor, plan: Plan, axis: int, dilation: int, count: int) -> Tensor:
    """Return a view `(2 sides, count, dilation, *other axes)`: the image's nearest samples.

    With a negative count so many of the ring; on both sides in the order of the axis.
    """
    width, size = plan.ring[axis - 2], plan.size[axis - 2]
    shape, strides = list(buffer.shape), list(buffer.stride())
    step = strides.pop(axis)
    del shape[axis]
    apart = size - count * dilation if count > 0 else width + size
    return buffer.as_strided(
        [2, abs(count), dilation, *shape],
        [apart * step, dilation * step, step, *strides],
        buffer.storage_offset() + (width * step if count > 0 else 0),
    )


def _pair(buffer: Tensor, plan: Plan, axis: int, dilation: int, sample: int) -> Tensor:
    """Return a view `(2 sides, dilation, *other axes)`: a sample counted from the image's ends."""
    width, size = plan.ring[axis - 2], plan.size[axis - 2]
    shape, strides = list(buffer.shape), list(buffer.stride())
    step = strides.pop(axis)
    del shape[axis]
    return buffer.as_strided(
        [2, dilation, *shape],
        [(size - (2 * sample + 1) * dilation) * step, step, *strides],
        buffer.storage_offset() + (width + sample * dilation) * step,
    )


@lru_cache(maxsize=64)
def _matrices(steps: int, degree: int) -> Any:
    """Return the weights of the nearest samples on both sides, `(2, steps, degree + 1)`."""
    with torch.inference_mode(False), torch.no_grad():  # it is shared by all modes
        return torch.tensor(side_rows(steps, degree), dtype=torch.float32, device="cpu")
