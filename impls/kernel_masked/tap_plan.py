"""Which products of matrices make up a convolution with kept taps: worked out once per geometry."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from harness.api import ConvCase
from impls.kernel_masked.lattice_cover import Lattice, partition

# Entries of copied signal and of outputs at a time, measured.
BLOCK = 1 << 19
# Outputs at a time at least: a product of fewer columns is slow.
FEWEST = 64


class Move(NamedTuple):
    """Views between which pixels are copied: sizes, and strides and first entry of both sides."""

    size: tuple[int, ...]
    to_strides: tuple[int, ...]
    to: int
    from_strides: tuple[int, ...]
    start: int


class Block(NamedTuple):
    """Outputs that are computed at a time.

    Args:
        first: The first of them.
        outputs: How many.
        moves: What is copied for them, a lattice of taps each.
        single: The same one by one: what two taps read alike cannot be added to at once.
    """

    first: int
    outputs: int
    moves: tuple[Move, ...]
    single: tuple[Move, ...]


class Product(NamedTuple):
    """Taps whose pixels stand side by side: one product of matrices.

    Args:
        column: The first of their columns among those of all kept taps.
        columns: How many: taps times channels.
        start: Where the pixels of the first begin in memory.
    """

    column: int
    columns: int
    start: int


class Plan(NamedTuple):
    """The products of one geometry, of one sample.

    Args:
        blocks: Of outputs.
        products: Their sum is the output, the widest first.
        room: Entries of memory.
        line: From one row of a product to the next in memory.
        out_size: The outputs.
        taken: Where in a filter the columns lie.
        given: Of every entry of a filter its column, counted from 1; 0 where it is masked.
    """

    blocks: tuple[Block, ...]
    products: tuple[Product, ...]
    room: int
    line: int
    out_size: tuple[int, ...]
    taken: Tensor
    given: Tensor


class _Group(NamedTuple):
    """Taps that read the same copies of the signal, each of them a shift by whole rows.

    Args:
        phase: The row at which the copies begin.
        shifts: By how many of their rows output 0 reads further, for each row of the kernel.
        lattices: What is copied, in order.
    """

    phase: int
    shifts: dict[int, int]
    lattices: tuple[Lattice, ...]

    @property
    def copies(self) -> int:
        """How many copies of each channel it holds."""
        return sum(lattice.taps for lattice in self.lattices)


class Geometry(NamedTuple):
    """Where the windows lie in a padded signal."""

    channels: int
    full: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def out_size(self) -> tuple[int, ...]:
        """The outputs."""
        axes = zip(self.full, self.kernel_size, self.stride, self.dilation, strict=True)
        return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in axes)

    @property
    def steps(self) -> tuple[int, ...]:
        """How far apart pixels lie, per axis."""
        return tuple(prod(self.full[axis + 1 :]) for axis in range(len(self.full)))


def make_plan(kept: tuple[bool, ...], filters: int, geometry: Geometry) -> Plan:
    """Return the plan of a mask that keeps a tap.

    Args:
        kept: Of the taps in raster order.
        filters: How many outputs share what is copied.
        geometry: The windows.
    """
    groups, channels = _groups(kept, filters, geometry), geometry.channels
    width = prod(geometry.out_size[1:])
    span = max(max(group.shifts.values()) for group in groups)
    copied = channels * sum(group.copies for group in groups)
    count = _count(geometry.out_size[0], width, copied + filters, span)
    rows = -(-geometry.out_size[0] // count)  # blocks of about the same size
    line = (rows + span) * width
    products, taps = _products(groups, channels, line, width, geometry)
    with torch.inference_mode(False), torch.device("cpu"):  # they are shared by all calls
        entries = torch.tensor(taps)[:, None] + torch.arange(channels) * prod(geometry.kernel_size)
        taken = entries.flatten()
        given = torch.zeros(channels * prod(geometry.kernel_size), dtype=torch.long)
        given[taken] = torch.arange(1, len(taken) + 1)
    return Plan(
        tuple(_blocks(groups, rows, line, geometry)),
        tuple(sorted(products, key=lambda one: -one.columns)),
        copied * line, line, geometry.out_size, taken, given,
    )  # fmt: skip


def most_blocks(case: ConvCase) -> int:
    """Return how many blocks a case is computed in at most, those of all samples."""
    width, held = prod(case.out_size[1:]), case.c_in * case.taps + case.c_out
    span = case.dilation[0] * (case.kernel_size[0] - 1)
    return case.n * _count(case.out_size[0], width, held, span)


def _count(rows: int, width: int, held: int, span: int) -> int:
    """Return in how many blocks rows of outputs are computed, so many entries held for each."""
    return -(-rows // max(BLOCK // (width * held) - span, -(-FEWEST // width), 1))


def _groups(kept: tuple[bool, ...], filters: int, geometry: Geometry) -> list[_Group]:
    """Return what is copied: every kept tap, or, where it costs less, what kernel rows share.

    A further product adds to every output, a further copy moves a pixel of every channel; the two
    take about the same time, measured.
    """
    apart = _Group(0, {0: 0}, partition(geometry.kernel_size, kept))
    shared = list(_by_rows(kept, geometry))
    fewer = apart.copies - sum(group.copies for group in shared)
    further = len({row for group in shared for row in group.shifts}) - 1
    pays = fewer * geometry.channels > further * filters
    return shared if pays else [apart]


def _by_rows(kept: tuple[bool, ...], geometry: Geometry) -> Iterator[_Group]:
    """Yield the groups: taps of the further axes that are kept in the same rows of the kernel."""
    rows, *further = geometry.kernel_size
    line = prod(further)
    step, apart = geometry.stride[0], geometry.dilation[0]
    alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for place in range(line):
        for phase in range(step):
            pattern = tuple(
                u for u in range(rows) if kept[u * line + place] and u * apart % step == phase
            )
            if pattern:
                alike.setdefault((phase, pattern), []).append(place)
    for (phase, pattern), places in sorted(alike.items()):
        flags = tuple(place in places for place in range(line))
        lattices = partition((1, *further), flags)
        yield _Group(phase, {u: u * apart // step for u in pattern}, lattices)


def _products(
    groups: Sequence[_Group], channels: int, line: int, width: int, geometry: Geometry
) -> tuple[list[Product], list[int]]:
    """Return the products, and the taps in the order of their columns."""
    firsts, slot = [], 0
    for group in groups:
        firsts.append(slot)
        slot += group.copies
    found, taps = [], []
    for row in sorted({row for group in groups for row in group.shifts}):
        runs = [
            (first, first + group.copies, group)
            for first, group in zip(firsts, groups, strict=True) if row in group.shifts
        ]  # fmt: skip
        begin = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(runs)) if a[1] != b[0]), len(runs)]
        for low, high in pairwise(begin):
            part = runs[low:high]
            start = part[0][0] * channels * line + part[0][2].shifts[row] * width
            columns = (part[-1][1] - part[0][0]) * channels
            found.append(Product(len(taps) * channels, columns, start))
            taps += [
                place + row * prod(geometry.kernel_size[1:])
                for *_, group in part for lattice in group.lattices
                for place in _places(lattice, geometry.kernel_size)
            ]  # fmt: skip
    return found, taps


def _places(lattice: Lattice, kernel_size: Sequence[int]) -> Iterator[int]:
    """Yield the place of every tap of a lattice, in its order."""
    lines = (range(f, f + c * s, s) for f, c, s in zip(*lattice, strict=True))
    for tap in product(*lines):
        place = 0
        for u, k in zip(tap, kernel_size, strict=True):
            place = place * k + u
        yield place


def _blocks(groups: Sequence[_Group], rows: int, line: int, geometry: Geometry) -> Iterator[Block]:
    channels, steps, out_size = geometry.channels, geometry.steps, geometry.out_size
    width, pixels = prod(out_size[1:]), prod(geometry.full)
    within = [prod(out_size[axis + 1 :]) for axis in range(len(out_size))]
    strides = tuple(s * step for s, step in zip(geometry.stride, steps, strict=True))
    apart = [d * step for d, step in zip(geometry.dilation, steps, strict=True)]
    for top in range(0, out_size[0], rows):
        count, to, moves = min(rows, out_size[0] - top), 0, []
        for group in groups:
            read = count + max(group.shifts.values())
            for lattice in group.lattices:
                start = group.phase * steps[0] + top * strides[0]
                start += sum(f * a for f, a in zip(lattice.first, apart, strict=True))
                behind = [prod(lattice.count[axis + 1 :]) for axis in range(len(out_size))]
                moves.append(Move(
                    (*lattice.count, channels, read, *out_size[1:]),
                    (*(b * channels * line for b in behind), line, *within),
                    to,
                    (*(s * a for s, a in zip(lattice.step, apart, strict=True)), pixels, *strides),
                    start,
                ))  # fmt: skip
                to += lattice.taps * channels * line
        single = tuple(one for move in moves for one in _single(move, len(out_size)))
        yield Block(top * width, count * width, tuple(moves), single)


def _single(move: Move, rank: int) -> Iterator[Move]:
    """Yield a move of each tap."""
    size, to_strides, from_strides = (
        move.size[rank:],
        move.to_strides[rank:],
        move.from_strides[rank:],
    )
    for tap in product(*map(range, move.size[:rank])):
        to = move.to + sum(i * s for i, s in zip(tap, move.to_strides, strict=False))
        start = move.start + sum(i * s for i, s in zip(tap, move.from_strides, strict=False))
        yield Move(size, to_strides, to, from_strides, start)
