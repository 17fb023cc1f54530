"""Transformed kernels, all those of one side stacked into one convolution."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.api import per_channel
from impls._shared.border import assemble, interior, window_of
from impls._shared.convolution import convolve
from impls._shared.extension import check_size, degrees_of
from impls.diff.reference import transformed_kernels_memory, window_matrix


class Side(NamedTuple):
    """The outputs along one axis on one side of the interior, or the interior.

    Args:
        start: The first sample that they read.
        count: How many; on a side, before the stride has subsampled them.
        picked: Which of them the stride keeps.
        matrices: `(displacements, kernel_size, kernel_size)`; None for the interior.
    """

    start: int
    count: int
    picked: slice
    matrices: Tensor | None


def transformed_kernels_speed(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, edge_kernel: Tensor | None = None,
    edge_bias: Tensor | None = None, *, stride: Sequence[int], dilation: Sequence[int], groups: int,
    degree: int | None = None, keep_img_grad_at_invalid: bool = True, optimized_for: str = "memory",
) -> Tensor:  # fmt: skip
    """Return `y` with `3^D` convolutions instead of one per displacement.

    Every displacement over one side reads the same window, the nearest inside the image, so their
    kernels are stacked as channels; the channels then become rows of the border.

    Source: stfc-sciml/DifferentialConv2d, `optimized_for='speed'`.
    """
    del optimized_for
    kernel_size, degrees = weight.shape[2:], degrees_of(weight.shape[2:], degree)
    check_size(x.shape[2:], kernel_size, dilation, degrees)
    axes = list(zip(x.shape[2:], kernel_size, stride, dilation, degrees, strict=True))
    if any(k > 1 and size < k * d for size, k, _, d, _ in axes):  # windows that leave both sides
        return transformed_kernels_memory(
            x, weight, bias, edge_kernel, edge_bias, stride=stride, dilation=dilation,
            groups=groups, degree=degree, keep_img_grad_at_invalid=keep_img_grad_at_invalid,
        )  # fmt: skip
    field = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]

    def compute(sides: tuple[Side, ...]) -> Tensor:
        inside = all(side.matrices is None for side in sides)
        signal = x if inside or keep_img_grad_at_invalid else x.detach()
        kernel = weight if inside or edge_kernel is None else edge_kernel
        added = bias if inside or edge_bias is None else edge_bias
        steps = [s if side.matrices is None else 1 for s, side in zip(stride, sides, strict=True)]
        counts = [
            side.count if side.matrices is None else d
            for side, d in zip(sides, dilation, strict=True)
        ]
        window = window_of(signal, [side.start for side in sides], counts, steps, field)
        stacked, classes = _stack(kernel.unflatten(0, (groups, -1)), sides)
        stacked = stacked.to(x.dtype)
        y = convolve(window, stacked, stride=steps, padding=[0] * len(field),
                     dilation=dilation, groups=groups)  # fmt: skip
        y = _unstack(y, groups, classes, sides)
        return y if added is None else y + per_channel(added, y)

    return assemble([_sides(x, *axis) for axis in axes], compute)


def _sides(x: Tensor, size: int, taps: int, stride: int, dilation: int, degree: int) -> list[Side]:
    half = taps // 2
    first, stop = interior(size, taps, stride, dilation)
    inside = Side(first * stride - half * dilation, stop - first, slice(None), None)
    if not half:
        return [inside]
    matrices = [
        torch.stack([window_matrix(x, shift, taps, taps, degree) for shift in shifts])
        for shifts in (range(-half, 0), range(1, half + 1))
    ]
    ring = half * dilation
    late = slice(-(size - ring) % stride, None, stride)
    sides = [Side(0, ring, slice(0, None, stride), matrices[0])]
    sides += [inside] if inside.count else []
    # A stride may step over the whole band behind the interior.
    has_late = late.start < ring
    return sides + ([Side(size - taps * dilation, ring, late, matrices[1])] if has_late else [])


def _stack(kernel: Tensor, sides: tuple[Side, ...]) -> tuple[Tensor, list[int]]:
    """Return the kernels of all displacements as channels `(G, displacements, C_out/G)`."""
    classes: list[int] = []
    for axis, side in enumerate(sides):
        if side.matrices is not None:
            # axes of kernel: group, one per earlier side, C_out/G, C_in/G, taps
            at = 3 + len(classes) + axis
            kernel = kernel.to(side.matrices.dtype)
            kernel = torch.tensordot(kernel, side.matrices, ([at], [1]))
            kernel = kernel.movedim(-1, at).movedim(-1, 1 + len(classes))
            classes.append(side.matrices.shape[0])
    return kernel.flatten(0, 1 + len(classes)), classes


def _unstack(y: Tensor, groups: int, classes: list[int], sides: tuple[Side, ...]) -> Tensor:
    """Turn the displacement channels of `y` into positions along their axes."""
    y = y.unflatten(1, (groups, *classes, y.shape[1] // groups // _product(classes)))
    left = len(classes)
    for axis, side in enumerate(sides):
        if side.matrices is not None:
            # axes of y: sample, group, displacements still to place, C_out/G, space
            at = 3 + left + axis
            y = y.movedim(2, at - 1).flatten(at - 1, at)
            left -= 1
            y = y[(slice(None),) * (at - 1) + (side.picked,)]
    return y.flatten(1, 2)


def _product(counts: list[int]) -> int:
    total = 1
    for count in counts:
        total *= count
    return total
