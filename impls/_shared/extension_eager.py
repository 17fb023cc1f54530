"""The convolution of an image that is continued by polynomials, one pass forward, one backward."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import Shape
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
    kernel_size = tuple(weight.shape[2:])
    if not is_eager(x, weight, bias) or max(kernel_size) == 1:
        extended = extend_into_buffer(x, kernel_size, dilation, degrees)
        none = (0,) * len(stride)
        return onednn.convolve_faster(
            extended, weight, bias, stride=stride, padding=none, dilation=dilation, groups=groups
        )
    size, geometry = tuple(x.shape[2:]), (tuple(stride), tuple(dilation), groups)
    return follow(_rule(size, kernel_size, tuple(degrees), *geometry), x, weight, bias)


@lru_cache(maxsize=256)
def _rule(
    size: Shape, kernel_size: Shape, degrees: Shape, stride: Shape, dilation: Shape, groups: int
) -> Rule:
    geometry = Geometry(stride, (0,) * len(stride), dilation, groups)
    plan = plan_of(tuple(extended_axes(size, kernel_size, dilation, degrees)), size)

    def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        extended = extend_into_buffer(x, kernel_size, dilation, degrees)
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
    places = _places(plan, tuple(buffer.shape), buffer.stride(), buffer.storage_offset())
    for (_, steps, _, q), (near, ring, samples) in zip(plan.axes, places, strict=True):
        target = buffer.as_strided(*ring)
        if samples:
            first, second, third = (buffer.as_strided(*place) for place in samples)
            torch.add(third, first - second, alpha=3, out=target.squeeze(1))  # 3 a - 3 b + c
            continue
        flat = buffer.as_strided(*near).reshape(2, q + 1, -1)
        target.copy_(torch.bmm(_matrices(steps, q), flat).view(target.shape))
    return buffer


def _folded(gradient: Tensor, plan: Plan) -> Tensor:
    """Return `P^T g`, written into `g`."""
    places = _places(plan, tuple(gradient.shape), gradient.stride(), gradient.storage_offset())
    for entry, place in zip(reversed(plan.axes), reversed(places), strict=True):
        axis, steps, d, q = entry
        near, ring = gradient.as_strided(*place.near), gradient.as_strided(*place.ring)
        weights = _matrices(steps, q).mT
        if steps == 1:  # a product of columns and rows of one
            weights = weights.view(2, q + 1, *(1,) * (near.dim() - 2))
        else:
            ring = torch.bmm(weights, ring.reshape(2, steps, -1)).view(near.shape)
        sides = [(near, ring, weights)]
        if plan.size[axis - 2] < 2 * (q + 1) * d:  # those nearest to one side serve the other too
            sides = list(zip(near, ring, weights, strict=True))
        for samples, weighed, factors in sides:
            if steps == 1:
                samples.addcmul_(weighed, factors)
            else:
                samples.add_(weighed)
    for axis, (width, size) in enumerate(zip(plan.ring, plan.size, strict=True), start=2):
        gradient = gradient.narrow(axis, width, size)
    return gradient


Layout = tuple[Shape, Shape, int]
"""Sizes, strides and offset of a view."""


class Places(NamedTuple):
    """Views of a buffer along one axis, both sides at once, in the order of the axis.

    Args:
        near: The image's nearest samples, `(2, degree + 1, dilation, *other axes)`.
        ring: What continues it, `(2, steps, dilation, *other axes)`.
        samples: The first, second and third counted from both ends, `(2, dilation, *other axes)`;
            empty where they are not continued by a sum of three.
    """

    near: Layout
    ring: Layout
    samples: tuple[Layout, ...]


@lru_cache(maxsize=256)
def _places(plan: Plan, shape: Shape, strides: Shape, offset: int) -> tuple[Places, ...]:
    """Return the views of a buffer of this layout, per axis of the plan."""
    found = []
    for axis, steps, d, q in plan.axes:
        width, size, step = plan.ring[axis - 2], plan.size[axis - 2], strides[axis]
        others = tuple(zip(shape, strides, strict=True))
        others = others[:axis] + others[axis + 1 :]

        def view(apart: int, start: int, *inner: tuple[int, int], others: Any = others,
                 step: int = step) -> Layout:  # fmt: skip
            sizes, jumps = zip((2, apart), *inner, strict=True)
            beside, across = zip(*others, strict=True)
            jumps = tuple(jump * step for jump in jumps)
            return (*sizes, *beside), (*jumps, *across), offset + start * step

        phases = (d, 1)
        near = view(size - (q + 1) * d, width, (q + 1, d), phases)
        ring = view(width + size, 0, (steps, d), phases)
        samples = tuple(
            view(size - (2 * t + 1) * d, width + t * d, phases) for t in range(3)
        ) if steps == 1 and q == 2 and size >= 5 * d else ()  # fmt: skip
        found.append(Places(near, ring, samples))
    return tuple(found)


@lru_cache(maxsize=64)
def _matrices(steps: int, degree: int) -> Any:
    """Return the weights of the nearest samples on both sides, `(2, steps, degree + 1)`."""
    with torch.inference_mode(False), torch.no_grad():  # it is shared by all modes
        return torch.tensor(side_rows(steps, degree), dtype=torch.float32, device="cpu")
