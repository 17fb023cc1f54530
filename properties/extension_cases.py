"""The image beyond its border, by another road than the implementations', and moves of cases."""

from collections.abc import Sequence
from dataclasses import replace
from math import comb

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Outputs, Trial


def degrees(case: ConvCase) -> tuple[int, ...]:
    """Return the degree of the polynomials per axis."""
    word = case.option("degree", "None")
    return tuple(k - 1 if word == "None" else min(int(word), k - 1) for k in case.kernel_size)


def newton_rows(steps: int, degree: int) -> list[list[int]]:
    """Return the weights of samples `0..degree` in the values at `-1, -2, ...`.

    Each value makes the `degree + 1`-st difference of its window vanish:
    `x[-m] = sum_{t=1}^{degree+1} (-1)^(t+1) C(degree+1, t) x[-m+t]`.
    """
    known = [[int(s == t) for s in range(degree + 1)] for t in range(degree + 1)]
    signed = [(-1) ** (t + 1) * comb(degree + 1, t) for t in range(1, degree + 2)]
    for _ in range(steps):
        window = zip(signed, known, strict=False)
        scaled = [[factor * weight for weight in row] for factor, row in window]
        known.insert(0, [sum(column) for column in zip(*scaled, strict=True)])
    return known[:steps][::-1]


def extension_matrix(size: int, kernel: int, dilation: int, degree: int) -> Tensor:
    """Return `E (size + dilation*(kernel-1), size)` with `E x` the continued axis."""
    half = kernel // 2
    ring = half * dilation
    matrix = torch.zeros(size + 2 * ring, size, dtype=torch.float64)
    matrix[ring : ring + size] = torch.eye(size, dtype=torch.float64)
    for m, row in enumerate(newton_rows(half, degree), start=1):
        for phase in range(dilation):
            for t, weight in enumerate(row):
                matrix[ring - m * dilation + phase, phase + t * dilation] = weight
                matrix[-1 - (ring - m * dilation + phase), -1 - (phase + t * dilation)] = weight
    return matrix


def continued(x: Tensor, case: ConvCase, *, absolute: bool = False) -> Tensor:
    """Return the image continued by polynomials along every axis, in float64."""
    x = x.double()
    axes = zip(case.in_size, case.kernel_size, case.dilation, degrees(case), strict=True)
    for axis, (size, k, d, q) in enumerate(axes, start=2):
        matrix = extension_matrix(size, k, d, q if k > 1 else 0)
        matrix = matrix.abs() if absolute else matrix
        x = torch.tensordot(x, matrix, ([axis], [1])).movedim(-1, axis)
    return x


def valid(t: Trial, padded: Tensor) -> Tensor:
    """Return the plain oracle of an image that is padded already."""
    return t.other("plain")(
        padded, t.wide("weight"), t.wide("bias"), stride=t.case.stride,
        padding=(0,) * t.case.spatial_dims, dilation=t.case.dilation, groups=t.case.groups,
    )  # fmt: skip


def plain(t: Trial, **keywords: object) -> Tensor:
    """Return the plain oracle of the case, padded by itself."""
    geometry = {name: t.keywords[name] for name in ("stride", "dilation", "groups")}
    geometry |= {"padding": t.case.padding} | keywords
    return t.other("plain")(t.wide("x"), t.wide("weight"), t.wide("bias"), **geometry)


def inside(case: ConvCase) -> Tensor:
    """Return which outputs have their window inside the image, shape `S_out`."""
    here = torch.ones((), dtype=torch.bool)
    for size, p, s in zip(case.in_size, case.padding, case.stride, strict=True):
        position = torch.arange(0, size, s)
        here = here[..., None] & (position >= p) & (position < size - p)
    return here


def compared_where(got: Tensor, expected: Tensor, where: Tensor) -> tuple[Outputs, Outputs]:
    """Return both sides with the outputs that are not compared set to 0."""
    zero = torch.zeros((), dtype=torch.float64)
    return {"output": got.double().where(where, zero)}, {"output": expected.where(where, zero)}


def one_kernel(case: ConvCase) -> ConvCase:
    """Leave out the kernel of border outputs."""
    return case.with_options(edge_kernel=None)


def with_edge_kernel(case: ConvCase) -> ConvCase:
    """Give border outputs a kernel of their own."""
    return case.with_options(edge_kernel="yes")


def sized(case: ConvCase, least: Sequence[int]) -> ConvCase:
    """Return `case` with images of at least that size."""
    return replace(case, in_size=tuple(map(max, case.in_size, least)))


def with_kernel(case: ConvCase, kernel: Sequence[int], dilation: Sequence[int]) -> ConvCase:
    """Return `case` with another kernel and dilation, its padding and size following."""
    padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    size = tuple(d * k for k, d in zip(kernel, dilation, strict=True))
    changed = replace(case, kernel_size=tuple(kernel), dilation=tuple(dilation), padding=padding,
                      in_size=tuple(map(max, case.in_size, size)))  # fmt: skip
    degree, largest = case.option("degree", "None"), min(kernel) - 1
    fits = degree == "None" or max(kernel) == 1 or int(degree) <= largest
    return changed if fits else changed.with_options(degree=None)


def has_interior(case: ConvCase) -> ConvCase:
    """Return `case` with an image that holds at least one whole window of an output."""
    axes = zip(case.receptive_field, case.stride, strict=True)
    return sized(case, [field + s - 1 for field, s in axes])
