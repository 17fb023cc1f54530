"""Kernel masks by name: which taps of a kernel are kept, for any rank."""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from harness.api import CaseError, ConvCase, Shape

COLOURS = 3


def _offsets(kernel_size: Sequence[int]) -> list[Tensor]:
    """Return for every axis the tap's distance from the centre, shaped to broadcast."""
    rank = len(kernel_size)
    return [
        (torch.arange(k) - k // 2).view(-1, *(1,) * (rank - axis - 1))
        for axis, k in enumerate(kernel_size)
    ]


def cross(kernel_size: Sequence[int], axes: Sequence[int] | None = None) -> Tensor:
    """Keep `u` where at most one entry of `u - centre` is not 0; bool, shape `(*kernel_size)`.

    Args:
        kernel_size: Taps per axis; the centre is `kernel_size // 2`.
        axes: The axes that count, the others are free; all by default.
    """
    offsets = _offsets(kernel_size)
    chosen = range(len(offsets)) if axes is None else axes
    away = sum(((offsets[axis] != 0).int() for axis in chosen), torch.zeros((), dtype=torch.int))
    return (away <= 1).expand(tuple(kernel_size)).clone()


def centre(kernel_size: Sequence[int]) -> Tensor:
    """Keep `u = centre` alone; bool, shape `(*kernel_size)`."""
    return box(kernel_size, [k // 2 for k in kernel_size], [k // 2 + 1 for k in kernel_size])


def box(kernel_size: Sequence[int], low: Sequence[int], high: Sequence[int]) -> Tensor:
    """Keep `low <= u < high` on every axis; bool, shape `(*kernel_size)`.

    Raises:
        CaseError: the box leaves the kernel.
    """
    kept = torch.zeros(tuple(kernel_size), dtype=torch.bool)
    for lo, hi, k in zip(low, high, kernel_size, strict=True):
        if not 0 <= lo <= hi <= k:
            raise CaseError(f"low={tuple(low)}, high={tuple(high)} must be a box inside {k} taps")
    kept[tuple(slice(lo, hi) for lo, hi in zip(low, high, strict=True))] = True
    return kept


def checkerboard(kernel_size: Sequence[int]) -> Tensor:
    """Keep `u` where the entries of `u - centre` sum to an even number."""
    total = sum(_offsets(kernel_size), torch.zeros((), dtype=torch.long))
    return (total % 2 == 0).expand(tuple(kernel_size)).clone()


def lattice(kernel_size: Sequence[int], step: int = 2) -> Tensor:
    """Keep `u` where every entry is a multiple of `step`: a kernel that is dilated by it."""
    kept = torch.zeros(tuple(kernel_size), dtype=torch.bool)
    kept[tuple(slice(None, None, step) for _ in kernel_size)] = True
    return kept


def causal(kernel_size: Sequence[int], axis: int = 0) -> Tensor:
    """Keep `u` where `u[axis] <= centre[axis]`: nothing later than the output on that axis."""
    return (_offsets(kernel_size)[axis] <= 0).expand(tuple(kernel_size)).clone()


def pixelcnn(
    kernel_size: Sequence[int],
    kind: str,
    channels: tuple[int, int] | None = None,
    groups: int = 1,
    colours: int = COLOURS,
) -> Tensor:
    """Keep the taps before the centre in raster order; kind `B` keeps the centre too.

    With `channels = (C_out, C_in)` the centre follows the order of the colours: channel `c` of
    `C` has colour `c * colours // C`, and an output of colour `g` sees inputs of colour `< g`
    (kind A) or `<= g` (kind B) there.

    Returns:
        bool, shape `(*kernel_size)`; with `channels`, `(C_out, C_in/groups, *kernel_size)`.

    Raises:
        CaseError: another kind, or channels that the groups do not divide.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu, ICML 2016, arXiv 1601.06759, §3.4.
    """
    if kind not in ("A", "B"):
        raise CaseError(f"kind={kind!r} must be 'A' or 'B'")
    middle = 0
    for k in kernel_size:
        middle = middle * k + k // 2
    earlier = (torch.arange(prod(kernel_size)) < middle).view(tuple(kernel_size))
    at_centre = centre(kernel_size)
    if channels is None:
        return earlier | at_centre if kind == "B" else earlier
    c_out, c_in = channels
    if c_out % groups or c_in % groups:
        raise CaseError(f"channels={channels} must be multiples of groups={groups}")
    column = torch.arange(c_in // groups).expand(c_out, -1)
    first = torch.arange(groups).repeat_interleave(c_out // groups) * (c_in // groups)
    of_input = (first[:, None] + column) * colours // c_in
    of_output = (torch.arange(c_out) * colours // c_out)[:, None]
    sees = of_input <= of_output if kind == "B" else of_input < of_output
    ones = (1,) * len(kernel_size)
    return earlier | (at_centre & sees.view(c_out, c_in // groups, *ones))


_BY_SIZE: Mapping[str, Callable[[Sequence[int]], Tensor]] = {
    "cross": cross, "centre": centre, "checkerboard": checkerboard, "lattice": lattice,
    "causal": causal,
}  # fmt: skip
FAMILIES = (
    "ones", "bernoulli:0.5", "cross", "pixelcnn_a", "pixelcnn_b", "causal", "checkerboard", "box",
    "lattice", "centre", "zeros", "real",
)  # fmt: skip


def make_kernel_mask(case: ConvCase, shape: Shape, family: str) -> Tensor | None:
    """Return a kernel mask of a named family in float64, None for families of any mask.

    A mask that has all channels follows the order of the colours in `pixelcnn_a`, `pixelcnn_b`.
    """
    size = case.kernel_size
    if family.startswith("pixelcnn"):
        ordered = (case.c_out, case.c_in) if shape == case.weight_shape else None
        mask = pixelcnn(size, family[-1].upper(), ordered, case.groups)
    elif family == "box":
        generator = torch.Generator().manual_seed(case.seed)
        ends = [torch.randint(0, k, (2,), generator=generator).sort().values for k in size]
        mask = box(size, [int(lo) for lo, _ in ends], [int(hi) + 1 for _, hi in ends])
    elif family in _BY_SIZE:
        mask = _BY_SIZE[family](size)
    else:
        return None
    return mask.double().expand(shape).clone()
