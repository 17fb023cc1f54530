"""The convolution with masked taps as one product per kept tap, added up where it lies."""

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api import ConvCase, Shape, per_channel
from impls._shared.convolution import has_channels_last, pad_by_mode
from impls._shared.eager import Gradients, Rule, follow, is_eager, is_readable
from impls._shared.masks import present
from impls.kernel_masked.covers import (
    CALL_MACS,
    PASS_MACS_PER_OUTPUT,
    cheapest,
    cheapest_cover,
    decision,
    kept_taps_of,
)
from impls.kernel_masked.reference import multiplied_weight

# In multiply-adds of the library's convolution, measured on one core: one of a product of matrices,
# the call of one, moving a weight to where products read it, and cutting a signal to a smaller hull.
PRODUCT, CALL, MOVE, CUT = 1.1, 100_000, 100, 1_500_000
# Entries of signal and output beyond which every product reads them from outside of the cache.
MOST_ENTRIES = 1 << 18
# A product over fewer channels is bound by the output that it adds to.
FEWEST_CHANNELS = 16


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
    """Return `sum over kept u of w[..., u] @ (x*m)[. + u*d]` + bias term.

    In a padded signal whose pixels lie in one row a tap is an offset: its product reads the signal
    and adds to the output where they lie, and what falls between the rows is cut off at last.
    Where the cheapest cover costs less it is taken.
    """
    tensors = x, weight, bias, kernel_mask, mask
    plain = partial(cheapest_cover, bias_where=bias_where, padding_mode=padding_mode, **geometry)
    usual = kernel_mask is not None and kernel_mask.numel() == weight[0, 0].numel()
    if bias_where != "all" or not usual or not is_readable(kernel_mask):
        return plain(*tensors)
    if max(geometry["stride"]) > 1 or not is_eager(x, weight, bias) or has_channels_last(x):
        return plain(*tensors)
    kept, is_exact = kept_taps_of(kernel_mask, kernel_mask.numel())
    own = _own(
        kept, x.shape, weight.shape, *(tuple(geometry[n]) for n in ("padding", "dilation")),
        geometry["groups"],
    ) if is_exact else None  # fmt: skip
    if own is None:
        return plain(*tensors)
    signal = x if mask is None else present(x, mask)
    if any(own.padding):
        signal = pad_by_mode(signal, own.padding, padding_mode)
    unpadded = {**geometry, "padding": (0,) * len(own.padding)}
    rule = Rule(
        partial(multiplied_weight, kernel_mask=kernel_mask, **unpadded),
        partial(_forward, own=own), partial(_backward, own=own),
    )  # fmt: skip
    return follow(rule, signal.contiguous(), weight, bias)


def may_pay(case: ConvCase) -> bool:
    """Return whether products can cost less than a cover for any mask, as far as sizes tell."""
    full = [s + 2 * p for s, p in zip(case.in_size, case.padding, strict=True)]
    pixels = case.n * prod(full)
    return (
        case.groups == 1
        and max(case.stride) == 1
        and case.c_in >= FEWEST_CHANNELS
        and case.taps > 1
        and 2 * MOVE <= pixels <= 2 * MOST_ENTRIES / (case.c_in + case.c_out)
    )


class _Own(NamedTuple):
    """The kept taps of one geometry.

    Args:
        places: Of the taps in a kernel, flat.
        offsets: Where each begins in the row of the padded signal's pixels.
        span: From the first output to the last in that row.
        rows: The axes of the padded signal, the first cut to that of the outputs.
        out_size: The outputs.
        padding: Of the signal.
    """

    places: Tensor
    offsets: tuple[int, ...]
    span: int
    rows: tuple[int, ...]
    out_size: tuple[int, ...]
    padding: Shape


@lru_cache(maxsize=256)
def _own(
    kept: tuple[bool, ...], x_shape: torch.Size, weight_shape: torch.Size, padding: Shape,
    dilation: Shape, groups: int,
) -> _Own | None:  # fmt: skip
    """Return the kept taps, None where the cheapest cover costs less."""
    if groups > 1 or weight_shape[1] < FEWEST_CHANNELS or not any(kept):
        return None
    full = [s + 2 * p for s, p in zip(x_shape[2:], padding, strict=True)]
    steps = [prod(full[axis + 1 :]) for axis in range(len(full))]
    kernel = tuple(weight_shape[2:])
    axes = zip(full, kernel, dilation, strict=True)
    out_size = tuple(s - d * (k - 1) for s, k, d in axes)
    span = 1 + sum((o - 1) * step for o, step in zip(out_size, steps, strict=True))
    places = [place for place, is_kept in enumerate(kept) if is_kept]
    taps = list(product(*map(range, kernel)))
    strides = [d * step for d, step in zip(dilation, steps, strict=True)]
    offsets = [sum(u * s for u, s in zip(taps[place], strides, strict=True)) for place in places]
    if not _pays(kept, x_shape, weight_shape, padding, dilation, span, out_size):
        return None
    with torch.inference_mode(False):  # it is shared by all modes
        where = torch.tensor(places, device="cpu")
    return _Own(where, tuple(offsets), span, (out_size[0], *full[1:]), out_size, padding)


def _pays(
    kept: tuple[bool, ...], x_shape: torch.Size, weight_shape: torch.Size, padding: Shape,
    dilation: Shape, span: int, out_size: Sequence[int],
) -> bool:  # fmt: skip
    """Return whether products cost less than the cheapest cover, in its multiply-adds."""
    ones = (1,) * len(padding)
    lattices, _ = decision(
        cheapest, kept, tuple(x_shape), tuple(weight_shape), ones, padding, dilation, True
    )
    n, filters = x_shape[0], weight_shape[0] * weight_shape[1]
    outputs = n * prod(out_size)
    covered = sum(lattice.taps for lattice in lattices) * outputs * filters
    passes = CALL_MACS + PASS_MACS_PER_OUTPUT * outputs * weight_shape[0]
    products = sum(kept) * (PRODUCT * n * span * filters + MOVE * filters + CALL)
    apart = (len(lattices) - 1) * passes + CUT * (lattices[0].count != tuple(weight_shape[2:]))
    fits = n * span * (weight_shape[0] + weight_shape[1]) <= MOST_ENTRIES
    return fits and products < covered + apart


def _filters(weight: Tensor, own: _Own) -> Tensor:
    """Return the filters of every kept tap, `(taps, C_out, C_in)`."""
    rows = weight.reshape(-1, prod(weight.shape[2:])).t().index_select(0, own.places)
    return rows.view(-1, *weight.shape[:2])


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, *, own: _Own) -> Tensor:
    filters, row, n = _filters(weight, own), x.view(*x.shape[:2], -1), len(x)
    wide = x.new_empty(n, weight.shape[0], prod(own.rows))
    y = wide[..., : own.span]
    if n == 1:  # a product of two matrices starts sooner than one of two stacks
        row, y = row[0], y[0]
    begin, add = (torch.mm, y.addmm_) if n == 1 else (torch.bmm, y.baddbmm_)
    stack = filters if n == 1 else filters.unsqueeze(1).expand(-1, n, -1, -1)
    for offset, one in zip(own.offsets, stack.unbind(), strict=True):
        read = row.narrow(-1, offset, own.span)
        if offset == own.offsets[0]:
            begin(one, read, out=y)
        else:
            add(one, read)
    y = _cut(wide.view(n, -1, *own.rows), own)
    return y.contiguous() if bias is None else y + per_channel(bias, y)


def _cut(wide: Tensor, own: _Own) -> Tensor:
    for axis, size in enumerate(own.out_size[1:], start=3):
        wide = wide.narrow(axis, 0, size)
    return wide


def _backward(
    dy: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor, _: Tensor | None, *, own: _Own
) -> Gradients:
    n, row = len(x), x.view(*x.shape[:2], -1)
    behind = [r - o for r, o in zip(own.rows[1:], own.out_size[1:], strict=True)]
    wide = F.pad(dy, [side for b in reversed(behind) for side in (0, b)]).contiguous()
    wide = wide.view(n, weight.shape[0], -1)[..., : own.span]
    dx, dw, db = None, None, None
    if needed[0]:
        dx, filters = torch.zeros_like(x), _filters(weight, own).mT
        total = dx.view(row.shape)
        for offset, one in zip(own.offsets, filters, strict=True):
            total[..., offset : offset + own.span].baddbmm_(one.expand(n, -1, -1), wide)
    if needed[1]:
        found = weight.new_empty(len(own.offsets), *weight.shape[:2])
        for offset, one in zip(own.offsets, found, strict=True):
            read = row[..., offset : offset + own.span].mT
            if n == 1:
                torch.mm(wide[0], read[0], out=one)
            else:
                torch.sum(torch.bmm(wide, read), 0, out=one)
        dw = weight.new_zeros(weight.shape)
        dw.view(-1, prod(weight.shape[2:])).t().index_copy_(0, own.places, found.flatten(1))
    if needed[2]:
        db = dy.sum([0, *range(2, dy.dim())])
    return dx, dw, db
