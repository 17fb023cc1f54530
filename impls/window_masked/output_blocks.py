"""The convolution with a mask for every window, a few rows of outputs at a time."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api import ConvCase, Cost, Shape, Value
from impls._shared.convolution import has_channels_last, pad_by_mode
from impls._shared.costs import of_products
from impls._shared.eager import Gradients, Rule, follow, is_eager, is_readable
from impls.window_masked.tap_chunks import by_tap_chunks

# Entries of masked windows at a time: about twice a core's own cache, measured.
BLOCK = 1 << 19
# Outputs at a time at least: a product of fewer columns is slow.
FEWEST = 64


def by_output_blocks(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int,
) -> Tensor:  # fmt: skip
    """Return `y[q] = w @ (x[window(q)] * m[q]) + b`, each block of outputs one product.

    The masked windows of a block are written into one and the same memory, which the cache holds;
    backward they are made anew, which costs less than reading them back from the main memory.
    """
    plain = partial(by_tap_chunks, stride=stride, padding=padding, dilation=dilation, groups=groups)
    usual = is_eager(x, weight, bias) and not has_channels_last(x)
    if not (usual and is_readable(mask)) or mask.requires_grad:
        return plain(x, weight, bias, mask)
    own = _own(x.shape, weight.shape, *map(tuple, (stride, padding, dilation)), groups)
    rule = Rule(plain, partial(_forward, own=own), partial(_backward, own=own))
    return follow(rule, x, weight, bias, mask)


def count_blocks(case: ConvCase) -> int:
    """Return how many blocks a case is computed in."""
    return sum(1 for _ in _blocks(case.n, case.c_in * case.taps, case.out_size))


def of_blocks(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
    """Return the cost of the products, those of a group with one filter or entry left out."""
    single = case.groups in (case.c_out, case.c_in * case.taps)
    return Cost() if case.groups > 1 and single else of_products(case, tensors)


class _Block(NamedTuple):
    """Samples and rows of outputs, those of all axes but the first."""

    first: int
    stop: int
    top: int
    bottom: int

    def of(self, parts: Tensor, axis: int) -> Tensor:
        """Return its part of what has samples first, or one for all, and output rows at `axis`."""
        if len(parts) > 1:
            parts = parts[self.first : self.stop]
        whole = self.bottom - self.top == parts.shape[axis]
        return parts if whole else parts.narrow(axis, self.top, self.bottom - self.top)


class _Own(NamedTuple):
    """What one geometry comes to.

    Args:
        blocks: Of the outputs.
        room: Entries of the largest block.
        out_size: That of the output.
        kernel_size, padding, groups: As the call says.
        shape: Of the windows, `(N, C, *K, *S_out)`.
        strides: In a padded, contiguous signal.
    """

    blocks: tuple[_Block, ...]
    room: int
    out_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def padded(self, x: Tensor) -> Tensor:
        """Return `x` in a padded, contiguous memory."""
        return (pad_by_mode(x, self.padding, "zeros") if any(self.padding) else x).contiguous()

    def windows(self, padded: Tensor) -> Tensor:
        """Return a view of every window."""
        return padded.as_strided(self.shape, self.strides)

    def matrices(self, weight: Tensor) -> Tensor:
        """Return the filters of every group, `(groups, C_out/groups, C_in/groups * taps)`."""
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    @property
    def axis(self) -> int:
        """The first axis of the outputs among those of the windows."""
        return 2 + len(self.out_size)


@lru_cache(maxsize=256)
def _own(
    x_shape: torch.Size, weight_shape: torch.Size, stride: Shape, padding: Shape, dilation: Shape,
    groups: int,
) -> _Own:  # fmt: skip
    n, channels, *size = x_shape
    kernel_size = tuple(weight_shape[2:])
    full = [s + 2 * p for s, p in zip(size, padding, strict=True)]
    axes = zip(full, kernel_size, stride, dilation, strict=True)
    out_size = tuple((s - d * (k - 1) - 1) // step + 1 for s, k, step, d in axes)
    steps = [prod(full[axis + 1 :]) for axis in range(len(full))]
    pixels = prod(full)
    entries = channels * prod(kernel_size)
    blocks = tuple(_blocks(n, entries, out_size))
    volumes = [(b.stop - b.first) * (b.bottom - b.top) * prod(out_size[1:]) for b in blocks]
    return _Own(
        blocks, entries * max(volumes), out_size, kernel_size, padding, groups,
        (n, channels, *kernel_size, *out_size),
        (
            channels * pixels, pixels,
            *(d * step for d, step in zip(dilation, steps, strict=True)),
            *(s * step for s, step in zip(stride, steps, strict=True)),
        ),
    )  # fmt: skip


def _blocks(n: int, entries: int, out_size: Sequence[int]) -> Iterator[_Block]:
    """Yield the blocks of `n` samples, with so many `entries` in each window."""
    rows, width = out_size[0], prod(out_size[1:])
    most = max(BLOCK // (entries * width), -(-FEWEST // width), 1)
    step = -(-rows // -(-rows // most))  # blocks of about the same size
    several = max(1, BLOCK // (entries * width * rows))
    for first, top in product(range(0, n, several), range(0, rows, step)):
        yield _Block(first, min(first + several, n), top, min(top + step, rows))


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, *, own: _Own) -> Tensor:
    windows, filters = own.windows(own.padded(x)), own.matrices(weight)
    memory = x.new_empty(own.room)
    y = x.new_empty(len(x), own.groups, filters.shape[1], *own.out_size)
    for block in own.blocks:
        masked = _masked(windows, mask, block, memory, own)
        target = block.of(y, 3).flatten(3).flatten(0, 1)
        _multiply(filters, masked, target)
        if bias is not None:
            target.unflatten(0, (-1, own.groups)).add_(bias.view(own.groups, -1, 1))
    return y.view(len(x), -1, *own.out_size)


def _backward(
    dy: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor, _: Tensor | None,
    mask: Tensor, *, own: _Own,
) -> Gradients:  # fmt: skip
    padded, filters = own.padded(x), own.matrices(weight)
    windows, memory = own.windows(padded), x.new_empty(own.room)
    split = dy.contiguous().view(len(x), own.groups, -1, *own.out_size)
    dw = torch.zeros_like(filters) if needed[1] else None
    of_padded = torch.zeros_like(padded) if needed[0] else None
    for block in own.blocks:
        part = block.of(split, 3).flatten(3).flatten(0, 1)
        if dw is not None:
            masked = _masked(windows, mask, block, memory, own)
            if own.groups > 1 and filters.shape[1] == 1:
                dw += masked.mul_(part).sum(2).view(-1, *dw.shape).sum(0)
            elif len(part) == own.groups:
                dw.baddbmm_(part, masked.mT)
            else:
                dw += torch.bmm(part, masked.mT).view(-1, *dw.shape).sum(0)
        if of_padded is not None:
            into = block.of(own.windows(of_padded), own.axis)
            read = memory[: into.numel()].view(into.shape)
            # of one entry a window, it writes into what it multiplies
            given = part.clone() if filters.shape[2] == 1 else part
            _multiply(filters.mT, given, _matrix(read, own))
            read.mul_(_mask_of(mask, block, own))
            for tap in product(*map(range, own.kernel_size)):
                into[(slice(None), slice(None), *tap)] += read[(slice(None), slice(None), *tap)]
    dx = None
    if of_padded is not None:
        dx = F.pad(of_padded, [-p for p in reversed(own.padding) for _ in range(2)])
    db = dy.sum([0, *range(2, dy.dim())]) if needed[2] else None
    return dx, None if dw is None else dw.view(weight.shape), db, None


def _masked(windows: Tensor, mask: Tensor, block: _Block, memory: Tensor, own: _Own) -> Tensor:
    """Write the masked windows of a block into `memory`, a matrix per sample and group."""
    windows = block.of(windows, own.axis)
    room = memory[: windows.numel()].view(windows.shape)
    return _matrix(torch.mul(windows, _mask_of(mask, block, own), out=room), own)


def _mask_of(mask: Tensor, block: _Block, own: _Own) -> Tensor:
    return block.of(mask, own.axis).to(torch.float32)


def _matrix(windows: Tensor, own: _Own) -> Tensor:
    """Return windows as `(samples * groups, C_in/groups * taps, outputs)`."""
    outputs = prod(windows.shape[own.axis :])
    return windows.view(len(windows) * own.groups, -1, outputs)


def _multiply(filters: Tensor, others: Tensor, out: Tensor) -> None:
    """Write `filters @ others` into `out`, the filters repeated for every sample."""
    copies, apart = len(others) // len(filters), len(filters) > 1
    if copies > 1:
        filters = filters.expand(copies, *filters.shape).reshape(-1, *filters.shape[1:])
    if len(filters) == 1:
        torch.mm(filters[0], others[0], out=out[0])
    elif apart and filters.shape[2] == 1:
        torch.mul(filters, others, out=out)
    elif apart and filters.shape[1] == 1:
        torch.sum(others.mul_(filters.mT), 1, keepdim=True, out=out)
    else:
        torch.bmm(filters, others, out=out)
