"""What the border of one geometry reads, multiplies and writes: worked out once."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise, product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from impls._shared.border import Run, displacements


class Batch(NamedTuple):
    """Kernels that lie evenly in the flat stack, each with as many columns behind one another.

    Args:
        first: Its first kernel.
        step: The distance to the next.
        kernels: How many.
        start: The first column of the first kernel.
        columns: How many each kernel has.
    """

    first: int
    step: int
    kernels: int
    start: int
    columns: int


class Plan(NamedTuple):
    """The border of one geometry; a column is a window at the border.

    Args:
        batches: All kernels that are used there.
        read: The pixel that a tap of a column reads, shape `(columns, taps)`.
        bits: All bits where it lies in the image, none elsewhere.
        written: The output of every column.
        inner: The other outputs of all samples and channels.
        out_size: That of the output.
        unused: Kernels that no output has.
    """

    batches: tuple[Batch, ...]
    read: Tensor
    bits: Tensor
    written: Tensor
    inner: tuple[slice, ...]
    out_size: tuple[int, ...]
    unused: tuple[int, ...]

    @property
    def has_interior(self) -> bool:
        """Whether any window lies inside the image."""
        return all(line.stop > line.start for line in self.inner[2:])


@lru_cache(maxsize=64)
def border_plan(
    size: Sequence[int], taps: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Plan:
    """Return the plan of a same-size convolution with a kernel per displacement."""
    axes = list(zip(size, taps, stride, dilation, strict=True))
    runs = [displacements(*axis) for axis in axes]
    out_size = tuple((n - 1) // s + 1 for n, _, s, _ in axes)
    batches, places, start = [], [torch.empty(0, len(axes), dtype=torch.long)], 0
    unused = set(range(prod(taps)))
    for row in _even_rows(runs, taps):
        flat, columns = [_flat(chosen, taps) for chosen in row], _pixels(row[0])
        step = flat[1] - flat[0] if len(flat) > 1 else 1
        batches.append(Batch(flat[0], step, len(flat), start, columns))
        places += [_outputs(chosen) for chosen in row]
        start += len(flat) * columns
        unused -= set(flat)
    inner = [
        [run for run in line if run.index == k // 2] for line, k in zip(runs, taps, strict=True)
    ]
    if all(inner):
        unused.discard(prod(taps) // 2)
    with torch.inference_mode(False):  # they are shared by all modes
        outputs = torch.cat(places)
        read, inside = _reads(outputs, size, taps, stride, dilation)
        return Plan(
            batches=tuple(batches),
            read=read,
            bits=-inside.int(),
            written=_raveled(outputs, out_size),
            inner=(slice(None), slice(None), *(_slice(line) for line in inner)),
            out_size=out_size,
            unused=tuple(sorted(unused)),
        )


@lru_cache(maxsize=16)
def channel_plan(
    channels: int, size: Sequence[int], taps: Sequence[int], stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return `read` and `bits` of every channel of a sample, flat, each `(columns, C, taps)`."""
    plan = border_plan(size, taps, stride, dilation)
    with torch.inference_mode(False):
        firsts = torch.arange(channels)[:, None] * prod(size)
        read = (plan.read[:, None] + firsts).flatten()
        return read, plan.bits[:, None].expand(-1, channels, -1).flatten()


def _even_rows(
    runs: Sequence[Sequence[Run]], taps: Sequence[int]
) -> Iterator[list[tuple[Run, ...]]]:
    """Yield runs of border outputs, equally many each, whose kernels lie evenly in the stack."""
    alike: dict[tuple[int, ...], list[tuple[Run, ...]]] = {}
    for chosen in product(*runs):
        if _flat(chosen, taps) != prod(taps) // 2:
            alike.setdefault(tuple(run.count for run in chosen), []).append(chosen)
    for members in alike.values():
        row, step = members[:1], 0
        for one, other in pairwise(members):
            gap = _flat(other, taps) - _flat(one, taps)
            if step not in (0, gap):
                yield row
                row, gap = [], 0
            row, step = [*row, other], gap
        yield row


def _flat(chosen: Sequence[Run], taps: Sequence[int]) -> int:
    """Return the place of the kernel of `chosen` in the flat stack."""
    place = 0
    for run, k in zip(chosen, taps, strict=True):
        place = place * k + run.index
    return place


def _slice(line: Sequence[Run]) -> slice:
    return slice(line[0].first, line[0].first + line[0].count) if line else slice(0, 0)


def _pixels(chosen: Sequence[Run]) -> int:
    return prod(run.count for run in chosen)


def _outputs(chosen: Sequence[Run]) -> Tensor:
    """Return the outputs of one kernel, shape `(pixels, rank)`."""
    lines = [torch.arange(run.first, run.first + run.count) for run in chosen]
    return torch.cartesian_prod(*lines).view(-1, len(lines))


def _reads(
    outputs: Tensor, size: Sequence[int], taps: Sequence[int], stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the pixel of every column and tap, moved into the image, and whether it was there."""
    offsets = torch.cartesian_prod(*(torch.arange(k) - k // 2 for k in taps)).view(-1, len(taps))
    pixels = offsets * torch.tensor(dilation) + (outputs * torch.tensor(stride))[:, None]
    last = torch.tensor(size) - 1
    inside = ((pixels >= 0) & (pixels <= last)).all(2)
    return _raveled(pixels.clamp(min=0).minimum(last), size), inside


def _raveled(places: Tensor, size: Sequence[int]) -> Tensor:
    flat = places.new_zeros(places.shape[:-1])
    for axis, n in enumerate(size):
        flat = flat * n + places[..., axis]
    return flat
