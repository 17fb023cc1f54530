"""The convolution with masked taps as products of matrices with the kept taps alone."""

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from harness.api import ConvCase, Shape
from impls._shared.convolution import has_channels_last, pad_by_mode
from impls._shared.eager import Gradients, Rule, follow, is_eager, is_readable
from impls._shared.masks import present
from impls.kernel_masked.covers import cheapest_cover
from impls.kernel_masked.reference import multiplied_weight
from impls.kernel_masked.tap_plan import Block, Geometry, Plan, Product, make_plan

# Multiply-adds of the library's convolution in the time of one call on a small tensor.
CALL = 200_000
_AXES = ("padding", "stride", "dilation")


def tap_products(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_mask: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    bias_where: str = "all",
    padding_mode: str = "zeros",
    **geometry: Any,
) -> Tensor:
    """Return `sum over kept u of w[..., u] @ (x*m)[window(u)]` + bias term.

    What the kept taps of some rows of outputs read is copied side by side into memory that the
    cache holds, and multiplied by the kept part of the weight. Taps in one column of the kernel
    read the same copy, a row further on, where that costs less than a copy of their own.
    """
    own = None
    if bias_where == "all" and kernel_mask is not None and _serves(x, weight, bias, kernel_mask):
        sizes = x.shape, weight.shape, *(tuple(geometry[n]) for n in _AXES)
        own = _plan(tuple(kernel_mask.flatten().tolist()), *sizes, geometry["groups"])
    if own is None:
        return cheapest_cover(
            x, weight, bias, kernel_mask, mask, bias_where=bias_where, padding_mode=padding_mode,
            **geometry,
        )  # fmt: skip
    signal = x if mask is None else present(x, mask)
    if any(geometry["padding"]):
        signal = pad_by_mode(signal, geometry["padding"], padding_mode)
        geometry["padding"] = (0,) * len(geometry["padding"])
    # a copy: for derivatives of derivatives it is read after the caller may have written to it
    rule = Rule(
        partial(multiplied_weight, kernel_mask=kernel_mask.clone(), **geometry),
        partial(_forward, plan=own), partial(_backward, plan=own),
    )  # fmt: skip
    return follow(rule, signal.contiguous(), weight, bias)


def may_pay(case: ConvCase) -> bool:
    """Return whether products can cost less than a cover for any mask, as far as sizes tell."""
    return case.groups == 1 and case.taps > 1


def _serves(x: Tensor, weight: Tensor, bias: Tensor | None, kernel_mask: Tensor) -> bool:
    """Return whether the values of a mask that all filters share may be read."""
    shared = kernel_mask.numel() * weight.shape[0] * weight.shape[1] == weight.numel()
    return (
        shared and is_readable(kernel_mask) and is_eager(x, weight, bias)
        and not kernel_mask.requires_grad and not has_channels_last(x)
    )  # fmt: skip


@lru_cache(maxsize=256)
def _plan(
    mask: tuple[float, ...], x_shape: torch.Size, weight_shape: torch.Size, padding: Shape,
    stride: Shape, dilation: Shape, groups: int,
) -> Plan | None:  # fmt: skip
    """Return the plan; None where a cover serves better.

    That is with groups, with fractions in the mask, where all taps are kept or none, and where
    samples are too many and too small: the library convolves all of them in one call.
    """
    kept = tuple([value > 0 for value in mask])
    if groups > 1 or not set(mask) <= {0, 1} or all(kept) or not any(kept):
        return None
    full = tuple(s + 2 * p for s, p in zip(x_shape[2:], padding, strict=True))
    kernel_size = tuple(weight_shape[2:])
    plan = make_plan(
        kept, weight_shape[0], Geometry(weight_shape[1], full, kernel_size, stride, dilation)
    )
    calls = sum(len(block.moves) + 2 * len(plan.products) for block in plan.blocks)
    masked = (len(kept) - sum(kept)) * prod(weight_shape[:2]) * prod(plan.out_size)
    return plan if x_shape[0] * masked > (x_shape[0] - 1) * calls * CALL else None


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, *, plan: Plan) -> Tensor:
    c_out, pixels = weight.shape[0], prod(plan.out_size)
    y, memory = x.new_empty(x.shape[0], c_out, *plan.out_size), x.new_empty(plan.room)
    column = None if bias is None else bias.view(-1, 1)
    first, *further = _parts(_filters(weight, plan), plan)
    for sample, block in product(range(x.shape[0]), plan.blocks):
        _copy(x, sample, block, memory)
        begin = sample * c_out * pixels + block.first
        out = y.as_strided((c_out, block.outputs), (pixels, 1), begin)
        torch.mm(first[0], _columns(memory, first[1], block, plan), out=out)
        for taps, one in further:
            out.addmm_(taps, _columns(memory, one, block, plan))
        if column is not None:
            out.add_(column)
    return y


def _backward(
    dy: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor, _: Tensor | None, *, plan: Plan
) -> Gradients:
    c_out, dy, memory = weight.shape[0], dy.contiguous(), x.new_empty(plan.room)
    dx = torch.zeros_like(x) if needed[0] else None
    filters = _filters(weight, plan).t()
    # before the columns a 0, for all masked taps
    found = weight.new_zeros(c_out, 1 + len(plan.taken)) if needed[1] else None
    for sample, block in product(range(x.shape[0]), plan.blocks):
        part = dy[sample].flatten(1).narrow(1, block.first, block.outputs)
        if found is not None:
            _copy(x, sample, block, memory)
            for of_taps, one in _parts(found.narrow(1, 1, len(plan.taken)), plan):
                of_taps.addmm_(part, _columns(memory, one, block, plan).t())
        if dx is not None:
            _multiply_back(filters, part, block, memory, plan)
            _add_back(memory, sample, block, dx)
    dw = None if found is None else found.index_select(1, plan.given).view(weight.shape)
    return dx, dw, dy.sum([0, *range(2, dy.dim())]) if needed[2] else None


def _filters(weight: Tensor, plan: Plan) -> Tensor:
    """Return the kept part of every filter, `(C_out, taps * C_in)`."""
    return weight.reshape(weight.shape[0], -1).index_select(1, plan.taken)


def _parts(columns: Tensor, plan: Plan) -> list[tuple[Tensor, Product]]:
    """Return the columns of every product beside it."""
    if len(plan.products) == 1:
        return [(columns, plan.products[0])]
    return [(columns.narrow(1, one.column, one.columns), one) for one in plan.products]


def _columns(memory: Tensor, one: Product, block: Block, plan: Plan) -> Tensor:
    """Return what the taps of a product read, `(taps * C_in, outputs)`."""
    return memory.as_strided((one.columns, block.outputs), (plan.line, 1), one.start)


def _copy(x: Tensor, sample: int, block: Block, memory: Tensor) -> None:
    """Copy what the taps of a block read into `memory`."""
    first = x.storage_offset() + sample * prod(x.shape[1:])
    for size, to_strides, to, from_strides, start in block.moves:
        read = x.as_strided(size, from_strides, first + start)
        memory.as_strided(size, to_strides, to).copy_(read)


def _multiply_back(
    filters: Tensor, part: Tensor, block: Block, memory: Tensor, plan: Plan
) -> None:  # fmt: skip
    """Write into `memory` the gradient of everything that has been copied there."""
    first, *further = plan.products
    if not further:
        torch.mm(filters, part, out=_columns(memory, first, block, plan))
        return
    memory.zero_()
    for one in plan.products:
        taps = filters.narrow(0, one.column, one.columns)
        _columns(memory, one, block, plan).addmm_(taps, part)


def _add_back(memory: Tensor, sample: int, block: Block, dx: Tensor) -> None:
    """Add what lies in `memory` to where it was copied from."""
    first = sample * prod(dx.shape[1:])
    for size, to_strides, to, from_strides, start in block.single:
        into = dx.as_strided(size, from_strides, first + start)
        into.add_(memory.as_strided(size, to_strides, to))
