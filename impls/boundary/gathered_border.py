"""A kernel per displacement: the interior convolved, the windows at the border gathered."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from harness.api import ConvCase
from impls._shared.convolution import has_channels_last
from impls._shared.eager import Gradients, Rule, follow, is_eager
from impls._shared.onednn import Geometry
from impls._shared.onednn import backward as convolution_backward
from impls._shared.onednn import forward as convolution_forward
from impls.boundary.border_apart import border_apart
from impls.boundary.border_plan import Batch, Plan, border_plan, channel_plan

# Multiply-adds of a convolution in the time in which one result is copied.
MACS_PER_COPY = 16
# Entries at the border up to which the place of each is kept, not only that of each pixel.
MOST_PLACES = 1 << 17
# Entries at the border beyond which gathering them takes too much memory: 128 MiB.
MOST_GATHERED = 1 << 25


def explicit_alone(case: ConvCase) -> ConvCase:
    """Return `case` with the method that this computes, in an image that is large enough for it."""
    size = tuple(max(n, 2 * p) for n, p in zip(case.in_size, case.padding, strict=True))
    return replace(case.with_options(method="explicit"), in_size=size)


def may_pay(case: ConvCase) -> bool:
    """Return whether what the windows at the border read is little enough to be gathered."""
    inner = prod(max(0, n - 2 * p) for n, p in zip(case.in_size, case.padding, strict=True))
    columns = (prod(case.in_size) - inner) // prod(case.stride)
    return case.n * case.c_in * case.taps * columns <= MOST_GATHERED


def gathered_border(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, noise: Tensor | None = None, *,
    stride: Sequence[int], dilation: Sequence[int], groups: int, method: str = "explicit",
) -> Tensor:  # fmt: skip
    """Return `y`: one convolution inside, and one product per row of border kernels.

    The windows at the border are gathered as columns, once; kernels that lie evenly in the stack
    and have equally many columns are multiplied together, where they lie.
    """
    plain = partial(
        border_apart, noise=noise, stride=stride, dilation=dilation, groups=groups, method=method
    )
    is_one_tap = prod(weight.shape[: len(stride)]) == 1
    if is_one_tap or not is_eager(x, weight, bias) or has_channels_last(x):
        return plain(x, weight, bias)
    x, weight = x.contiguous(), weight.contiguous()
    own = _own(x.shape, weight.shape, tuple(stride), tuple(dilation), groups)
    return follow(
        Rule(plain, partial(_forward, own=own), partial(_backward, own=own)), x, weight, bias
    )


class _Own(NamedTuple):
    """What one geometry comes to.

    Args:
        plan: Its border.
        places: `read` and `bits` of every channel where they are few.
        filters: The shape of one kernel.
        matrix: The rows and columns of one kernel as a matrix, for one group.
        groups: Channel groups.
        is_copied: Whether the interior alone is convolved, then copied to where it belongs, in
            place of convolving the border in vain.
        padded, valid: Convolutions of everything, and of the interior.
    """

    plan: Plan
    places: tuple[Tensor, Tensor] | None
    filters: torch.Size
    matrix: tuple[int, int]
    groups: int
    is_copied: bool
    padded: Geometry
    valid: Geometry


@lru_cache(maxsize=64)
def _own(
    x_shape: torch.Size, weight_shape: torch.Size, stride: tuple[int, ...],
    dilation: tuple[int, ...], groups: int,
) -> _Own:  # fmt: skip
    rank, channels = len(stride), x_shape[1]
    taps, filters = tuple(weight_shape[:rank]), weight_shape[rank:]
    padding = tuple([d * (k - 1) // 2 for k, d in zip(taps, dilation, strict=True)])
    places = (tuple(x_shape[2:]), taps, stride, dilation)
    columns = prod(filters[1:])
    with torch.device("cpu"):  # whatever the default one is: they are shared by all calls
        plan = border_plan(*places)
        few = channels * plan.read.numel() <= MOST_PLACES
        wide = channel_plan(channels, *places) if few else None
    dear = len(plan.written) * columns > MACS_PER_COPY * prod(plan.out_size)
    return _Own(
        plan,
        wide,
        filters,
        (filters[0] // groups, columns),
        groups,
        not plan.has_interior or (dear and max(stride) == 1),
        Geometry(stride, padding, dilation, groups),
        Geometry(stride, (0,) * rank, dilation, groups),
    )


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, *, own: _Own) -> Tensor:
    plan, n, c_out = own.plan, x.shape[0], own.filters[0]
    stack = weight.view(-1, *own.filters)
    middle = stack[len(stack) // 2]
    if own.is_copied:
        y = x.new_empty(n, c_out, *plan.out_size)
        if plan.has_interior:
            y[plan.inner] = convolution_forward(x, middle, bias, own.valid)
    else:
        y = convolution_forward(x, middle, bias, own.padded)
    seen, border = _gather(x, own), x.new_empty(len(plan.written) * n, c_out)
    # columns as rows: few of them are multiplied several times as fast as lying
    for batch in plan.batches:
        filters = _kernels(stack, batch, own).mT
        _multiply(_rows(seen, batch, n, own), filters, _rows(border, batch, n, own))
    if bias is not None:
        border.add_(bias)
    target, index = y.view(n, c_out, -1), plan.written.expand(n, c_out, -1)
    return target.scatter_(2, index, border.view(-1, n, c_out).permute(1, 2, 0)).view(y.shape)


def _backward(
    dy: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor, _: Tensor | None, *, own: _Own
) -> Gradients:
    plan, n, c_out, dy = own.plan, x.shape[0], own.filters[0], dy.contiguous()
    stack, flat = weight.view(-1, *own.filters), dy.view(n, c_out, -1)
    middle = len(stack) // 2
    dx, of_middle, db = None, None, None
    if plan.has_interior:
        if max(own.valid.stride) == 1:
            geometry, inside = own.valid, dy[plan.inner].contiguous()
        else:
            geometry = own.padded
            inside = flat.clone().index_fill_(2, plan.written, 0).view(dy.shape)
        dx, of_middle, db = convolution_backward(inside, needed, x, stack[middle], geometry)
    border = flat.index_select(2, plan.written).permute(2, 0, 1).contiguous().view(-1, c_out)
    if needed[2]:
        db = border.sum(0) if db is None else db + border.sum(0)
    dw = None
    if needed[1]:
        dw, seen = torch.empty_like(stack), _gather(x, own)
        for kernel in plan.unused:
            dw[kernel] = 0
        if of_middle is not None:
            dw[middle] = of_middle
        for batch in plan.batches:
            filters = _rows(border, batch, n, own).mT
            _multiply(filters, _rows(seen, batch, n, own), _kernels(dw, batch, own))
        dw = dw.view(weight.shape)
    if needed[0]:
        read = x.new_empty(len(border), own.matrix[1] * own.groups)
        for batch in plan.batches:
            filters = _kernels(stack, batch, own)
            _multiply(_rows(border, batch, n, own), filters, _rows(read, batch, n, own))
        dx = _scatter(read, x.new_zeros(x.shape) if dx is None else dx.contiguous(), own)
    return dx, dw, db


def _kernels(stack: Tensor, batch: Batch, own: _Own) -> Tensor:
    """Return the kernels of a batch as matrices, `(kernels, [groups,] rows, columns)`."""
    rows, columns = own.matrix
    size = own.groups * rows * columns
    if own.groups == 1:
        shape, strides = (batch.kernels, rows, columns), (batch.step * size, columns, 1)
    else:
        shape = (batch.kernels, own.groups, rows, columns)
        strides = (batch.step * size, rows * columns, columns, 1)
    return stack.as_strided(shape, strides, stack.storage_offset() + batch.first * size)


def _rows(columns: Tensor, batch: Batch, copies: int, own: _Own) -> Tensor:
    """Return the columns of each kernel of a batch as rows, `(kernels, [groups,] rows, -1)`."""
    width, count = columns.shape[1], batch.columns * copies
    first = batch.start * copies * width
    if own.groups == 1:
        shape, strides = (batch.kernels, count, width), (count * width, width, 1)
    else:
        shape = (batch.kernels, own.groups, count, width // own.groups)
        strides = (count * width, width // own.groups, width, 1)
    return columns.as_strided(shape, strides, first)


def _multiply(one: Tensor, other: Tensor, out: Tensor) -> None:
    """Write `one @ other` into `out`, each `(kernels, [groups,] rows, columns)`."""
    if one.dim() == 3:
        torch.bmm(one, other, out=out)
    else:
        for pair in zip(one, other, out, strict=True):
            torch.bmm(*pair[:2], out=pair[2])


def _gather(x: Tensor, own: _Own) -> Tensor:
    """Return what every column reads, 0 beyond the image: `(columns * samples, C * taps)`."""
    n, channels, (columns, taps) = x.shape[0], x.shape[1], own.plan.read.shape
    if own.places is not None:
        index, bits = own.places
        seen = _anded(x.view(n, -1).index_select(1, index), bits).view(n, columns, -1)
    else:
        index, bits = own.plan.read.view(-1), own.plan.bits.view(-1)
        seen = _anded(x.view(n * channels, -1).index_select(1, index), bits)
        seen = seen.view(n, channels, columns, taps).transpose(1, 2)
    return seen.transpose(0, 1).contiguous().view(columns * n, -1)


def _scatter(read: Tensor, dx: Tensor, own: _Own) -> Tensor:
    """Add to every pixel what columns have read of it."""
    n, channels, (columns, taps) = dx.shape[0], dx.shape[1], own.plan.read.shape
    read = read.view(columns, n, -1).transpose(0, 1)
    if own.places is not None:
        index, bits = own.places
        dx.view(n, -1).scatter_add_(1, index.expand(n, -1), _anded(read.reshape(n, -1), bits))
    else:
        index, bits = own.plan.read.view(-1), own.plan.bits.view(-1)
        read = read.reshape(n, columns, channels, taps).transpose(1, 2).reshape(n * channels, -1)
        rows = dx.view(n * channels, -1)
        rows.scatter_add_(1, index.expand(n * channels, -1), _anded(read, bits))
    return dx


def _anded(values: Tensor, bits: Tensor) -> Tensor:
    """Set `values` to 0 where there are no bits: a product would leave NaN as it is."""
    values.view(torch.int32).bitwise_and_(bits)
    return values
