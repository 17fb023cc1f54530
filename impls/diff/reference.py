"""Kernels transformed for every displacement over the border, as published."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from impls._shared.border import assemble, displacements, window_of
from impls._shared.convolution import convolve
from impls._shared.extension import check_size, degrees_of, lagrange


class Region(NamedTuple):
    """Outputs along one axis that share a transformed kernel.

    Args:
        start: The first sample that the first of them reads.
        count: How many.
        matrix: `(kernel_size, T)`: the samples under the taps as combinations of `T` samples of
            the image; None inside, where they are the samples.
    """

    start: int
    count: int
    matrix: Tensor | None


def transformed_kernels_memory(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, edge_kernel: Tensor | None = None,
    edge_bias: Tensor | None = None, *, stride: Sequence[int], dilation: Sequence[int], groups: int,
    degree: int | None = None, keep_img_grad_at_invalid: bool = True, optimized_for: str = "memory",
) -> Tensor:  # fmt: skip
    """Return `y` with one small convolution per displacement: nothing is padded or stacked.

    The kernel of a region is `w` times the Kronecker product of one matrix per axis.

    Source: stfc-sciml/DifferentialConv2d, `optimized_for='memory'`.
    """
    del optimized_for
    degrees = degrees_of(weight.shape[2:], degree)
    regions = axis_regions(x, weight, stride, dilation, degrees)
    # weights of a polynomial do not fit into bfloat16, and their sums cancel
    wide = torch.promote_types(x.dtype, torch.float32)

    def compute(chosen: tuple[Region, ...]) -> Tensor:
        inside = all(region.matrix is None for region in chosen)
        signal = x if inside or keep_img_grad_at_invalid else x.detach()
        kernel = weight if inside or edge_kernel is None else edge_kernel
        added = bias if inside or edge_bias is None else edge_bias
        kernel = kernel if inside else kernel.to(wide)
        for axis, region in enumerate(chosen, start=2):
            if region.matrix is not None:
                kernel = torch.tensordot(kernel, region.matrix, ([axis], [0])).movedim(-1, axis)
        kernel = kernel.to(x.dtype)
        field = [d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape[2:], strict=True)]
        starts, counts, _ = zip(*chosen, strict=True)
        window = window_of(signal, starts, counts, stride, field)
        none = [0] * len(field)
        return convolve(
            window, kernel, added, stride=stride, padding=none, dilation=dilation, groups=groups
        )

    return assemble(regions, compute)


def axis_regions(
    x: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int],
    degrees: Sequence[int],
) -> list[list[Region]]:  # fmt: skip
    """Return the regions along every spatial axis; raise CaseError for too small an image."""
    check_size(x.shape[2:], weight.shape[2:], dilation, degrees)
    return [
        _regions(x, size, k, s, d, q)
        for size, k, s, d, q in zip(
            x.shape[2:], weight.shape[2:], stride, dilation, degrees, strict=True
        )
    ]


def _regions(
    x: Tensor, size: int, taps: int, stride: int, dilation: int, degree: int
) -> list[Region]:
    half = taps // 2
    if size < taps * dilation:  # some phase has fewer samples than the kernel taps
        return [
            _lone_region(x, size, position, taps, dilation, degree)
            for position in range(0, size, stride)
        ]
    regions = []
    for index, first, count in displacements(size, taps, stride, dilation):
        matrix = None if index == half else window_matrix(x, index - half, taps, taps, degree)
        # Every region reads a whole window of the image: the nearest one inside it.
        regions.append(Region(first * stride - index * dilation, count, matrix))
    return regions


def _lone_region(
    x: Tensor, size: int, position: int, taps: int, dilation: int, degree: int
) -> Region:
    phase, reach = position % dilation, dilation * (taps // 2)
    if reach <= position < size - reach:
        return Region(position - reach, 1, None)
    samples = len(range(phase, size, dilation))
    before = position // dilation - taps // 2
    return Region(phase, 1, window_matrix(x, before, taps, samples, degree))


def window_matrix(x: Tensor, first: int, taps: int, samples: int, degree: int) -> Tensor:
    """Return `M (taps, samples)`: the window that begins at sample `first` of a phase as `M x`.

    In float32 at least.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    identity = torch.eye(samples, dtype=wide, device=x.device)
    steps = max(-first, first + taps - samples, 0)
    rows = torch.tensor(lagrange(steps, degree), dtype=wide, device=x.device)
    rows = torch.nn.functional.pad(rows.view(steps, degree + 1), (0, samples - degree - 1))
    extended = torch.cat([rows.flip(0), identity, rows.flip(1)])
    return extended.narrow(0, first + steps, taps)
