"""Which lattices of taps make up a kernel mask: plain Python, worked out once per mask."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, reduce
from itertools import pairwise, product
from math import gcd, prod
from operator import or_
from typing import NamedTuple

# Above so many candidates the search for lattices is not worth its time.
MOST_CANDIDATES = 100_000


class Lattice(NamedTuple):
    """Taps `first + step * j` with `0 <= j < count`, per axis: a kernel cropped and dilated."""

    first: tuple[int, ...]
    count: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def taps(self) -> int:
        """How many taps it holds."""
        return prod(self.count)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Its taps as an index of a kernel's spatial axes."""
        axes = zip(self.first, self.count, self.step, strict=True)
        return tuple(slice(f, f + (c - 1) * s + 1, s) for f, c, s in axes)


@lru_cache(maxsize=512)
def hull(kernel_size: tuple[int, ...], kept: tuple[bool, ...]) -> Lattice:
    """Return the smallest lattice that holds every kept tap; one tap where none is kept."""
    taps = [t for t, k in zip(_all_taps(kernel_size), kept, strict=True) if k]
    axes = [sorted({t[axis] for t in taps}) or [0] for axis in range(len(kernel_size))]
    steps = [gcd(*(b - a for a, b in pairwise(line))) or 1 for line in axes]
    return Lattice(
        first=tuple(line[0] for line in axes),
        count=tuple((line[-1] - line[0]) // s + 1 for line, s in zip(axes, steps, strict=True)),
        step=tuple(steps),
    )


@lru_cache(maxsize=512)
def partition(kernel_size: tuple[int, ...], kept: tuple[bool, ...]) -> tuple[Lattice, ...]:
    """Return disjoint lattices of kept taps only that make up the mask, the largest first.

    Greedy: few lattices, not always the fewest. Falls back to single taps for huge kernels.
    """
    left = reduce(or_, (1 << i for i, k in enumerate(kept) if k), 0)
    lines = [list(_progressions(k)) for k in kernel_size]
    if prod(map(len, lines)) > MOST_CANDIDATES:
        lines = [[(i, 1, 1) for i in range(k)] for k in kernel_size]
    candidates = sorted(
        (Lattice(*zip(*line, strict=True)) for line in product(*lines)),
        key=lambda lattice: (-lattice.taps, lattice.step),
    )
    found = []
    for lattice in candidates:
        if not left:
            break
        bits = _bits(kernel_size, lattice)
        if bits & ~left == 0:
            found.append(lattice)
            left &= ~bits
    return tuple(found)


def _all_taps(kernel_size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return product(*(range(k) for k in kernel_size))


def _progressions(side: int) -> Iterator[tuple[int, int, int]]:
    """Yield `(first, count, step)` of every arithmetic progression in `range(side)`."""
    for first in range(side):
        yield first, 1, 1
        for step in range(1, side - first):
            for count in range(2, (side - first - 1) // step + 2):
                yield first, count, step


def _bits(kernel_size: tuple[int, ...], lattice: Lattice) -> int:
    """Return the lattice's taps as a set of bits in raster order.

    Its places are sums of one place per axis, so the set is a product: no two sums are equal, and
    nothing is carried.
    """
    bits, width = 1, prod(kernel_size)
    for side, first, count, step in zip(kernel_size, *lattice, strict=True):
        width //= side
        bits *= reduce(or_, (1 << (first + step * j) * width for j in range(count)))
    return bits
