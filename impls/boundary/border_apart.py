"""Only the border is paid for: no method touches the interior more often than zero padding does."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod

import torch
from torch import Tensor

from harness.api import Shape, per_channel
from impls._shared.border import Run, assemble, displacements, interior, window_of
from impls._shared.convolution import convolve, pad_by_mode
from impls._shared.eager import is_readable
from impls._shared.extension_eager import convolve_extended
from impls.boundary.oracle import lattice_steps, polynomial_degrees

# What a geometry alone decides is kept up to so many entries: at most 16 MiB in all.
SMALL_IMAGE, GEOMETRIES = 2**16, 32


def border_apart(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, noise: Tensor | None = None, *,
    stride: Sequence[int], dilation: Sequence[int], groups: int, method: str = "zeros",
) -> Tensor:  # fmt: skip
    """Return `y`: one convolution of one buffer; for `explicit` every output once.

    Zeros are the convolution's own; `partial` counts covered taps per axis instead of convolving a
    mask; a continued ring is written into the buffer that holds the image.
    """
    rank, kernel_size = len(stride), weight.shape[-len(stride) :]
    padding = [d * (k - 1) // 2 for k, d in zip(kernel_size, dilation, strict=True)]
    none = [0] * rank
    if method == "explicit":
        return _each_kernel_where_it_is(x, weight, bias, stride, dilation, groups)
    if method in ("zeros", "partial"):
        added = bias if method == "zeros" else None
        y = convolve(
            x, weight, added, stride=stride, padding=padding, dilation=dilation, groups=groups
        )
        if method == "zeros":
            return y
        ratio = _ratio(x, kernel_size, stride, dilation)
        return y * ratio if bias is None else torch.addcmul(per_channel(bias, y), y, ratio)
    if method in ("extrapolate", "diff"):
        degrees = polynomial_degrees(kernel_size, method)
        return convolve_extended(
            x, weight, bias, degrees, stride=stride, dilation=dilation, groups=groups
        )
    if method == "random":
        buffer = _with_random_ring(x, noise, kernel_size, dilation)
    else:
        buffer = pad_by_mode(x, padding, method) if any(padding) else x
    return convolve(
        buffer, weight, bias, stride=stride, padding=none, dilation=dilation, groups=groups
    )


def _ratio(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Return `K^D / coverage` of `x`, made once per geometry where it is small and eager."""
    size = tuple(x.shape[2:])
    if not is_readable(x) or prod(size) > SMALL_IMAGE:
        return _uncovered_ratio(x, kernel_size, stride, dilation)
    return _known_ratio(size, tuple(kernel_size), tuple(stride), tuple(dilation), x.dtype)


@lru_cache(maxsize=GEOMETRIES)
def _known_ratio(
    size: Shape, kernel_size: Shape, stride: Shape, dilation: Shape, dtype: torch.dtype
) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # it is shared by all modes
        x = torch.empty((1, 1, *size), dtype=dtype, device="cpu")
        return _uncovered_ratio(x, kernel_size, stride, dilation)


def _uncovered_ratio(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Return `K^D / coverage` for every output: a product of counts, one per axis."""
    taps, coverage = 1, x.new_ones((), dtype=torch.promote_types(x.dtype, torch.float32))
    for size, k, s, d in zip(x.shape[2:], kernel_size, stride, dilation, strict=True):
        first, stop = interior(size, k, s, d)
        outputs = (size - 1) // s + 1
        edges = (
            coverage.new_tensor(
                [min(q * s // d, k // 2) + 1 + min((size - 1 - q * s) // d, k // 2) for q in side]
            )
            for side in (range(first), range(stop, outputs))
        )
        before, behind = edges
        count = torch.cat([before, coverage.new_full((stop - first,), k), behind])
        taps, coverage = taps * k, coverage[..., None] * count
    return (taps / coverage).to(x.dtype)


def _each_kernel_where_it_is(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], dilation: Sequence[int],
    groups: int,
) -> Tensor:  # fmt: skip
    """Return `y` with the kernel of every displacement applied to its own outputs alone."""
    kernel_size = weight.shape[-len(stride) :]
    axes = list(zip(x.shape[2:], kernel_size, stride, dilation, strict=True))
    padding = [d * (k - 1) // 2 for _, k, _, d in axes]
    if not any(padding):  # one kernel for all outputs
        return convolve(x, weight[(0,) * len(stride)], bias, stride=stride, padding=padding,
                        dilation=dilation, groups=groups)  # fmt: skip
    field = [2 * p + 1 for p in padding]
    padded = pad_by_mode(x, padding, "zeros")

    def compute(runs: tuple[Run, ...]) -> Tensor:
        starts = [run.first * s for run, s in zip(runs, stride, strict=True)]
        window = window_of(padded, starts, [run.count for run in runs], stride, field)
        kernel = weight[tuple(run.index for run in runs)]
        return convolve(window, kernel, bias, stride=stride, padding=[0] * len(field),
                        dilation=dilation, groups=groups)  # fmt: skip

    return assemble([displacements(*axis) for axis in axes], compute)


def _with_random_ring(
    x: Tensor, noise: Tensor | None, kernel_size: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Return the image in a buffer whose ring is local mean + local deviation * noise."""
    halves = [k // 2 for k in kernel_size]
    dilation = lattice_steps(kernel_size, dilation)
    padding = [h * d for h, d in zip(halves, dilation, strict=True)]
    if not any(padding):
        return x
    buffer = pad_by_mode(x, padding, "zeros")
    for phase in product(*(range(d) for d in dilation)):
        lattice = (..., *(slice(r, None, d) for r, d in zip(phase, dilation, strict=True)))
        ring_noise = None if noise is None else noise[lattice]
        _fill_ring(buffer[lattice], x.detach()[lattice], ring_noise, halves)
    return buffer


def _fill_ring(buffer: Tensor, x: Tensor, noise: Tensor | None, halves: list[int]) -> None:
    """Write the ring of one lattice phase: two bands per axis, each entry once.

    A band spans the axes behind its own in full and those before it inside the image.
    """
    statistics = {
        (axis, side): _deviation_and_mean(x.narrow(axis, start, half + 1).flatten(2))
        for axis, half in enumerate(halves, start=2)
        for side, start in enumerate((0, x.shape[axis] - half - 1))
        if half
    }
    for axis, half in enumerate(halves, start=2):
        for side, start in enumerate((0, x.shape[axis] + half)):
            if not half:
                continue
            band, drawn = buffer, noise
            for other in range(2, axis):
                band = band.narrow(other, halves[other - 2], x.shape[other])
                drawn = None if drawn is None else drawn.narrow(
                    other, halves[other - 2], x.shape[other])  # fmt: skip
            band = band.narrow(axis, start, half)
            spread, centre = _averaged(statistics, axis, side, band, halves)
            if drawn is not None:
                centre = centre + spread * drawn.narrow(axis, start, half)
            band.copy_(centre)


def _deviation_and_mean(rows: Tensor) -> Tensor:
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    mean = rows.mean(2, keepdim=True)
    deviation = (rows - mean).square().mean(2).sqrt_()  # `square_` is not mapped by vmap
    return torch.stack([deviation, mean.squeeze(2)])


def _averaged(
    statistics: dict[tuple[int, int], Tensor], axis: int, side: int, band: Tensor, halves: list[int]
) -> Tensor:
    """Return deviation and mean over a band, averaged with those of the sides it meets."""
    ones = [1] * (band.dim() - 2)
    total = statistics[axis, side].unflatten(2, (-1, *ones))
    count = total.new_ones(ones)
    for later in range(axis + 1, band.dim()):
        half, n = halves[later - 2], band.shape[later]
        if not half:
            continue
        shape = ones.copy()
        shape[later - 2] = n
        for other, start in enumerate((0, n - half)):
            member = total.new_zeros(n)
            member[start : start + half] = 1
            member = member.view(shape)
            count = count + member
            total = total + statistics[later, other].unflatten(2, (-1, *ones)) * member
    return total / count
