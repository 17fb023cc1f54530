"""The convolution with masked taps as few dense convolutions of the taps that are kept."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api import per_channel
from impls._shared.convolution import pad_by_mode
from impls._shared.masks import present
from impls._shared.onednn import convolve_faster
from impls._shared.tap_selection import select_taps
from impls.kernel_masked.lattice_cover import Lattice, hull, partition
from impls.kernel_masked.reference import multiplied_weight

# What one more convolution costs, in multiply-adds: its call, and a pass over the output.
CALL_MACS = 3_000_000
PASS_MACS_PER_OUTPUT = 48
# Of fewer channels the library convolves only whole kernels fast.
FEW_CHANNELS = 16


class Windows(NamedTuple):
    """Where the windows lie: what all the convolutions of one call share."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int
    out_size: tuple[int, ...] = ()


def cheapest_cover(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_mask: Tensor | None = None,
    mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Return `sum over lattices L of conv(x*m shifted by L, (w*k)[L])` + bias term.

    A box of taps is a smaller kernel with a shifted padding, a lattice a dilated one. Either the
    hull of the kept taps is convolved, or disjoint lattices of them, whichever costs less.
    """
    return _covered(cheapest, (x, weight, bias, kernel_mask, mask), **options)


def disjoint_lattices(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_mask: Tensor | None = None,
    mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Return the same sum over disjoint lattices always: no masked tap is ever multiplied."""
    return _covered(_parts, (x, weight, bias, kernel_mask, mask), **options)


def cheapest(
    whole: Lattice, parts: tuple[Lattice, ...], channels: int, outputs: int, wide: bool
) -> tuple[Lattice, ...]:
    """Return the hull or its parts, by the multiply-adds that each comes to."""
    saved = (whole.taps - sum(part.taps for part in parts)) * outputs * channels
    spent = (len(parts) - 1) * (CALL_MACS + PASS_MACS_PER_OUTPUT * outputs)
    return parts if saved > spent and wide else (whole,)


def _parts(_: Lattice, parts: tuple[Lattice, ...], *__: Any) -> tuple[Lattice, ...]:
    return parts


def _covered(
    choose: Callable[..., tuple[Lattice, ...]],
    tensors: tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None],
    *,
    bias_where: str = "all",
    **geometry: Any,
) -> Tensor:
    """Convolve the lattices that `choose` takes; the mask is read on the host.

    While tracing, where that cannot be, the weight is masked instead.
    """
    x, weight, bias, kernel_mask, mask = tensors
    if kernel_mask is None or kernel_mask.is_meta or torch.compiler.is_compiling():
        return multiplied_weight(*tensors, bias_where=bias_where, **geometry)
    mode = geometry.pop("padding_mode", "zeros")
    try:
        kept, uniform = kept_taps_of(kernel_mask, weight.shape[2:].numel())
    except RuntimeError:  # no value to read: a fake tensor, or inside of vmap
        return multiplied_weight(*tensors, bias_where=bias_where, padding_mode=mode, **geometry)
    shape = tuple(x.shape), tuple(weight.shape)
    # partial sums in low precision would be rounded once per part
    wide = weight.dtype in (torch.float32, torch.float64)
    if wide and weight.shape[1] < FEW_CHANNELS:  # there the library is slow forward, not backward
        wide = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    windows = Windows(*(geometry[name] for name in Windows._fields[:4]))
    axes = tuple(windows.stride), tuple(windows.padding), tuple(windows.dilation)
    lattices, exact = _decision(choose, kept, *shape, *axes, wide)
    if lattices[0].count == shape[1][2:]:
        if bias_where != "all" or not uniform:
            return multiplied_weight(*tensors, bias_where=bias_where, padding_mode=mode, **geometry)
        signal = x if mask is None else present(x, mask)
        chosen = weight if exact else _select(weight, kernel_mask, kept)
        return convolve_faster(signal, chosen, bias, padding_mode=mode, **geometry)
    windows = windows._replace(out_size=_out_size(*shape, *axes))
    if uniform:
        filters = weight if exact else _select(weight, kernel_mask, kept)
    else:
        filters = present(weight, kernel_mask)
    signal = x if mask is None else present(x, mask)
    everywhere = bias if bias_where == "all" else None
    y = _convolve(signal, filters, everywhere, lattices, windows, mode)
    if bias is None or bias_where == "all":
        return y
    with torch.no_grad():
        seen = (x != 0) if mask is None else (mask > 0)
        support = _support(seen, weight, kernel_mask, lattices, windows, mode)
    return y + torch.where(support, per_channel(bias, y), 0.0)


@lru_cache(maxsize=1024)
def _decision(
    choose: Callable[..., tuple[Lattice, ...]], kept: tuple[bool, ...], x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], wide: bool,
) -> tuple[tuple[Lattice, ...], bool]:  # fmt: skip
    """Return the lattices to convolve, and whether they are just the taps that are kept."""
    size = weight_shape[2:]
    out_size = _out_size(x_shape, weight_shape, stride, padding, dilation)
    whole, parts = hull(size, kept), partition(size, kept)
    outputs = x_shape[0] * weight_shape[0] * prod(out_size)
    lattices = choose(whole, parts, weight_shape[1], outputs, wide) if parts else (whole,)
    return lattices, sum(lattice.taps for lattice in lattices) == sum(kept)


def kept_taps_of(kernel_mask: Tensor, taps: int) -> tuple[tuple[bool, ...], bool]:
    """Return which taps any filter keeps, and whether every filter keeps just these, with 1."""
    rows = kernel_mask.reshape(-1, taps)
    if rows.shape[0] == 1:
        values = rows[0].tolist()
        return tuple([v > 0 for v in values]), set(values) <= {0, 1}
    union = (rows > 0).any(0)
    return tuple(union.tolist()), bool((rows == union).all())


def _select(weight: Tensor, kernel_mask: Tensor, kept: tuple[bool, ...]) -> Tensor:
    rows = kernel_mask.numel() // len(kept)
    return select_taps(weight, kernel_mask, kept) if rows == 1 else present(weight, kernel_mask)


def _out_size(
    x_shape: Sequence[int], weight_shape: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int],
) -> tuple[int, ...]:  # fmt: skip
    axes = zip(x_shape[2:], padding, dilation, weight_shape[2:], stride, strict=True)
    return tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, p, d, k, s in axes)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, lattices: Sequence[Lattice], windows: Windows,
    mode: str,
) -> Tensor:  # fmt: skip
    """Return the sum of one convolution per lattice; the bias goes with the first."""
    if mode != "zeros" and any(windows.padding):
        x = pad_by_mode(x, windows.padding, mode)
        windows = windows._replace(padding=(0,) * len(windows.padding))
    y = None
    for lattice in lattices:
        signal, padding = _shifted(x, lattice, windows)
        dilation = [d * step for d, step in zip(windows.dilation, lattice.step, strict=True)]
        term = convolve_faster(
            signal, weight[(..., *lattice.slices)], bias if y is None else None,
            stride=windows.stride, padding=padding, dilation=dilation, groups=windows.groups,
        )  # fmt: skip
        y = term if y is None else y + term
    assert y is not None
    return y


def _shifted(x: Tensor, lattice: Lattice, windows: Windows) -> tuple[Tensor, list[int]]:
    """Return what the lattice's taps read of `x`, and the symmetric padding left to be done."""
    sides: list[int] = []
    symmetric = []
    for axis, (first, taps, step) in enumerate(zip(*lattice, strict=True)):
        s, p, d = (entries[axis] for entries in windows[:3])
        count, size = windows.out_size[axis], x.shape[2 + axis]
        start, span = first * d - p, d * step * (taps - 1) + 1
        before, low = max(-start, 0), min(max(start, 0), size)
        if (size - low + 2 * before - span) // s + 1 == count:
            x = x.narrow(2 + axis, low, size - low) if low else x
            symmetric.append(before)
            sides = [0, 0, *sides]
            continue
        length = (count - 1) * s + span
        before = min(before, length)
        high = max(min(start + length, size), low)
        x = x.narrow(2 + axis, low, high - low)
        symmetric.append(0)
        sides = [before, length - before - (high - low), *sides]
    return (F.pad(x, sides) if any(sides) else x), symmetric


def _support(
    seen: Tensor, weight: Tensor, kernel_mask: Tensor, lattices: Sequence[Lattice],
    windows: Windows, mode: str,
) -> Tensor:  # fmt: skip
    """Return whether a kept tap of the window sees something, `(N|1, C_out|1, *S_out)`.

    Where all filters and channels share the taps, one channel per group is enough. A count is
    compared with a half: a library's fast transforms leave a trace where it is 0.
    """
    kept = (kernel_mask > 0).to(weight.dtype)
    groups = windows.groups
    if kernel_mask.numel() > weight[0, 0].numel():
        channels = weight.shape[1] * groups
        seen = seen.expand(-1, channels, *seen.shape[2:]).to(weight.dtype)
        return _convolve(seen, kept.expand_as(weight), None, lattices, windows, mode) > 0.5
    if seen.shape[1] == 1:
        groups = 1
    seen = seen.unflatten(1, (groups, -1)).any(2).to(weight.dtype)
    kept = kept.reshape(1, 1, *weight.shape[2:]).expand(groups, -1, *weight.shape[2:])
    windows = windows._replace(groups=groups)
    support = _convolve(seen, kept, None, lattices, windows, mode) > 0.5
    return support.repeat_interleave(weight.shape[0] // groups, 1) if groups > 1 else support
