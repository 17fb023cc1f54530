"""Continuing an image by polynomials: Lagrange extrapolation, one axis after the other."""

from collections.abc import Iterator, Sequence
from math import comb, prod

import torch
from torch import Tensor

from harness.api import CaseError, Shape

Rows = list[list[int]]


def lagrange(steps: int, degree: int) -> Rows:
    """Return `L[m-1][t]`, the weight of sample `t` in the value `m` samples before sample 0.

    The polynomial of `degree` through samples `0..degree` has at `-m` the value
    `sum_t L[m-1][t] x[t]`, `L[m-1][t] = prod_{s != t} (-m-s)/(t-s)`. Every weight is an integer:
    `(-1)^t C(m+degree, degree) C(degree, t) m/(m+t)`.

    Args:
        steps: How many values are wanted, `m = 1..steps`.
        degree: Of the polynomial.
    """
    return [
        [
            (-1) ** t * comb(m + degree, degree) * comb(degree, t) * m // (m + t)
            for t in range(degree + 1)
        ]
        for m in range(1, steps + 1)
    ]


def degrees_of(kernel_size: Sequence[int], degree: int | None) -> Shape:
    """Return the degree per axis: `degree`, or `kernel_size - 1` where it is None."""
    return tuple(k - 1 if degree is None else min(degree, k - 1) for k in kernel_size)


def least_size(
    kernel_size: Sequence[int], dilation: Sequence[int], degrees: Sequence[int]
) -> Shape:
    """Return the smallest image whose every lattice phase holds `degree + 1` samples."""
    axes = zip(kernel_size, dilation, degrees, strict=True)
    return tuple((q + 1) * d if k > 1 else 1 for k, d, q in axes)


def check_size(
    size: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int], degrees: Sequence[int]
) -> None:
    """Raise CaseError where an axis of an image of `size` has too few samples to be continued."""
    least = least_size(kernel_size, dilation, degrees)
    if any(have < need for have, need in zip(size, least, strict=True)):
        raise CaseError(
            f"in_size={tuple(size)} must be at least {least} to be continued by polynomials of "
            f"degree {tuple(degrees)}"
        )


def extend(
    x: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    degrees: Sequence[int],
    *,
    absolute: bool = False,
) -> Tensor:
    """Return `P x`: `x` with `dilation*(kernel_size-1)/2` more samples on both sides of each axis.

    Along an axis the new samples lie on the polynomial through the nearest `degree + 1` samples of
    their own lattice phase.

    Args:
        x: Shape `(N, C, *S)`.
        kernel_size, dilation, degrees: One entry per spatial axis.
        absolute: Use the absolute values of the weights, for error bounds.

    Raises:
        CaseError: an axis has too few samples.
    """
    for axis, steps, d, q in extended_axes(x.shape[2:], kernel_size, dilation, degrees):
        before, behind = _continuation(x, axis, steps, d, q, absolute=absolute)
        x = torch.cat([before, x, behind], dim=axis)
    return x


def extended_axes(
    size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    degrees: Sequence[int],
) -> Iterator[tuple[int, int, int, int]]:
    """Yield `(axis, steps, dilation, degree)` of every axis that is extended."""
    check_size(size, kernel_size, dilation, degrees)
    for axis, (k, d, q) in enumerate(zip(kernel_size, dilation, degrees, strict=True), start=2):
        if k > 1:
            yield axis, (k - 1) // 2, d, q


def _continuation(
    x: Tensor, axis: int, steps: int, dilation: int, degree: int, *, absolute: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the `steps * dilation` samples before `x` along `axis`, and those behind it."""
    reach = (degree + 1) * dilation
    sides = x.narrow(axis, 0, reach), x.narrow(axis, x.shape[axis] - reach, reach)
    matrices = side_rows(steps, degree, absolute=absolute)
    before, behind = (
        weigh(near, axis, dilation, rows) for near, rows in zip(sides, matrices, strict=True)
    )
    return before, behind


def side_rows(steps: int, degree: int, *, absolute: bool = False) -> tuple[Rows, Rows]:
    """Return the weights of the nearest samples in those before the image, and in those behind."""
    rows = lagrange(steps, degree)
    if absolute:
        rows = [[abs(weight) for weight in row] for row in rows]
    return rows[::-1], [row[::-1] for row in rows]


def weigh(near: Tensor, axis: int, dilation: int, rows: Rows) -> Tensor:
    """Return `sum_t rows[j][t] near[t]` for every lattice phase, the phases interleaved again."""
    # weights and sums in float32 at least: the former do not fit into bfloat16, the latter cancel
    wide = torch.promote_types(near.dtype, torch.float32)
    if len(rows) == 1:  # 3 taps: so few terms that a matrix product costs more than they do
        terms = near.to(wide).split(dilation, axis)
        mixed = terms[0] * rows[0][0]
        for weight, term in zip(rows[0][1:], terms[1:], strict=True):
            mixed = torch.add(mixed, term, alpha=weight)
        return mixed.to(near.dtype)
    matrix = torch.tensor(rows, dtype=wide, device=near.device)
    before, behind = near.shape[:axis], near.shape[axis + 1 :]
    # sample t of phase r is entry t * dilation + r: phases and the axes behind are one operand
    phases = near.reshape(prod(before), len(rows[0]), dilation * prod(behind)).to(wide)
    mixed = torch.matmul(matrix, phases).to(near.dtype)
    return mixed.reshape(*before, len(rows) * dilation, *behind)
