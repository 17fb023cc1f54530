"""The definition of the convolution with a chosen way to continue the image."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from harness.api import PADDING_MODES, correlate, pad, per_channel
from impls._shared.extension import extend


def boundary(x: Tensor, weight: Tensor, *rest: Tensor | None, **keywords: Any) -> Tensor:
    """Return `y = conv_valid(the continued image, w) + b`; see `definition`."""
    return definition(x, weight, *rest, convolution=correlate, **keywords)


def magnitude(x: Tensor, weight: Tensor, *rest: Tensor | None, **keywords: Any) -> Tensor:
    """Return the definition with every weight of a continued sample replaced by its absolute."""
    return definition(x, weight, *rest, convolution=correlate, absolute=True, **keywords)


def definition(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    noise: Tensor | None = None,
    *,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    method: str = "zeros",
    convolution: Callable[..., Tensor],
    absolute: bool = False,
) -> Tensor:
    """Return `y`: the image continued by `method`, convolved with `w`, plus `b`.

    `partial` divides the zero-padded sum by the covered share of the window instead; `explicit`
    chooses the kernel by how far the window leaves the zero-padded image.

    Args:
        x: Signal, shape `(N, C_in, *S)`.
        weight: Shape `(C_out, C_in/groups, *K)`; for `explicit` `(*K, C_out, C_in/groups, *K)`.
        bias: Shape `(C_out,)`.
        noise: For `random`, shape `(N, C_in, *(S + dilation*(K-1)))`; its ring is read. None = 0.
        stride, dilation: One entry per spatial axis.
        groups: Channel groups.
        method: How the image is continued.
        convolution: What computes the sums.
        absolute: Replace extrapolation weights and deviations by what bounds their errors.

    Source: Gupta and Ramani 1978 (extrapolate), Innamorati et al. 2018 (explicit), Liu et al. 2018
    (arXiv 1811.11718, partial), Nguyen et al. 2019 (random), arXiv 2309.06370 (diff).
    """
    kernel_size = weight.shape[-len(stride) :]
    padding = [d * (k - 1) // 2 for k, d in zip(kernel_size, dilation, strict=True)]
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if method == "explicit":
        y = _chosen_kernels(x, weight, convolution, geometry)
    elif method == "partial":
        ones = x.new_ones((1, 1, *x.shape[2:]), dtype=_wide(x))
        box = ones.new_ones((1, 1, *kernel_size))
        coverage = convolution(ones, box, **{**geometry, "groups": 1})
        y = convolution(x, weight, **geometry) * (box.numel() / coverage).to(x.dtype)
    else:
        continued = continue_image(
            x, noise, kernel_size, dilation=dilation, method=method, absolute=absolute
        )
        y = convolution(continued, weight, **{**geometry, "padding": [0] * len(stride)})
    return y if bias is None else y + per_channel(bias, y)


def polynomial_degrees(kernel_size: Sequence[int], method: str) -> tuple[int, ...]:
    """Return the degree per axis: `diff` uses K samples, `extrapolate` the nearest (K+1)/2."""
    return tuple(k - 1 if method == "diff" else k // 2 for k in kernel_size)


def lattice_steps(kernel_size: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Return the distance of a lattice phase's samples per axis: one tap has no dilation."""
    return [d if k > 1 else 1 for k, d in zip(kernel_size, dilation, strict=True)]


def continue_image(
    x: Tensor, noise: Tensor | None, kernel_size: Sequence[int], *, dilation: Sequence[int],
    method: str, absolute: bool = False,
) -> Tensor:  # fmt: skip
    """Return `x` with `dilation*(kernel_size-1)/2` more samples on both sides of every axis."""
    padding = [d * (k - 1) // 2 for k, d in zip(kernel_size, dilation, strict=True)]
    if method in PADDING_MODES:
        return pad(x, padding, method)
    if method in ("extrapolate", "diff"):
        degrees = polynomial_degrees(kernel_size, method)
        return extend(x, kernel_size, dilation, degrees, absolute=absolute)
    with torch.no_grad():  # the ring is drawn, not differentiated
        centre, spread = _local_statistics(x, kernel_size, dilation, absolute=absolute)
    ring = centre if noise is None else centre + spread * noise
    return torch.where(pad(torch.ones_like(x[:1, :1], dtype=torch.bool), padding),
                       pad(x, padding), ring.to(x.dtype))  # fmt: skip


def _wide(x: Tensor) -> torch.dtype:
    """Return the dtype of counts and statistics: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def _local_statistics(
    x: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], *, absolute: bool
) -> tuple[Tensor, Tensor]:
    """Return mean and deviation for every position of the ring, in the padded shape.

    A position beyond one side takes them from the nearest `(K+1)/2` rows of that side in its own
    lattice phase, one beyond several sides takes the average.
    """
    x, halves = x.to(_wide(x)), [k // 2 for k in kernel_size]
    dilation = lattice_steps(kernel_size, dilation)
    size = [n + 2 * h * d for n, h, d in zip(x.shape[2:], halves, dilation, strict=True)]
    centre, spread = x.new_zeros((*x.shape[:2], *size)), x.new_zeros((*x.shape[:2], *size))
    for phase in product(*(range(d) for d in dilation)):
        lattice = (..., *(slice(r, None, d) for r, d in zip(phase, dilation, strict=True)))
        part, means, deviations = x[lattice], 0.0, 0.0
        sides = part.new_zeros([n + 2 * h for n, h in zip(part.shape[2:], halves, strict=True)])
        for axis, half in enumerate(halves, start=2):
            n = part.shape[axis]
            index = torch.arange(-half, n + half).view(-1, *(1 for _ in part.shape[axis + 1 :]))
            for beyond, start in ((index < 0, 0), (index >= n, n - half - 1)):
                near = part.narrow(axis, start, half + 1).flatten(2)
                mean = near.mean(2)
                offset = near if absolute else near - mean[..., None]
                deviation = offset.square().mean(2).sqrt()
                member = beyond.to(x)
                sides += member
                means = means + _spatial(mean, part) * member
                deviations = deviations + _spatial(deviation, part) * member
        sides = sides.clamp(min=1)
        centre[lattice], spread[lattice] = means / sides, deviations / sides
    return centre, spread


def _spatial(values: Tensor, like: Tensor) -> Tensor:
    return values[(..., *(None for _ in like.shape[2:]))]


def _chosen_kernels(
    x: Tensor, weight: Tensor, convolution: Callable[..., Tensor], geometry: dict[str, Any]
) -> Tensor:
    """Return at every output the convolution with the kernel of its window's displacement."""
    rank, groups = x.dim() - 2, geometry["groups"]
    kernels = weight.flatten(0, rank - 1)  # (displacements, C_out, C_in/groups, *K)
    # one convolution: within a group the kernels of all displacements stand side by side
    filters = kernels.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 2)
    y = convolution(x, filters, **geometry).unflatten(1, (groups, len(kernels), -1))
    y = y.transpose(1, 2).flatten(2, 3)  # (N, displacements, C_out, *S_out)
    chosen = _displacement(x, weight.shape[-rank:], geometry) == torch.arange(
        len(kernels), device=x.device
    ).view(-1, *(1 for _ in range(rank)))
    return y.where(chosen[:, None], x.new_zeros(())).sum(1)


def _displacement(x: Tensor, kernel_size: Sequence[int], geometry: dict[str, Any]) -> Tensor:
    """Return at every output the number, in raster order, of its window's displacement."""
    number = torch.zeros((), dtype=torch.int64, device=x.device)
    axes = zip(
        x.shape[2:], kernel_size, geometry["stride"], geometry["dilation"], strict=True
    )  # fmt: skip
    for size, k, s, d in axes:
        position = torch.arange(0, size, s, device=x.device)
        missing_before = (k // 2 - position // d).clamp(min=0)
        missing_behind = (k // 2 - (size - 1 - position) // d).clamp(min=0)
        number = number[..., None] * k + (k // 2 - missing_before + missing_behind)
    return number
