"""Sources: one signal per subset of the spatial axes, and the sum of what each contributes."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api import (
    Arg,
    CaseError,
    ConvCase,
    Role,
    Shape,
    Variant,
    call,
    named_padding,
    per_axis,
)
from impls._shared.cases import network_cases
from impls._shared.convolution import convolve

NAMES: dict[int, tuple[str, ...]] = {
    1: ("line", "scalar"),
    2: ("image", "row", "column", "scalar"),
    3: (
        "volume", "depth_height", "depth_width", "height_width", "depth", "height", "width",
        "scalar",
    ),
}  # fmt: skip

Sources = Sequence[Tensor | None]


# The axes of every source: most first, then by axis. A constant, since a cache stops compilers.
_SPANS: dict[int, tuple[Shape, ...]] = {
    rank: tuple(axes for n in range(rank, -1, -1) for axes in combinations(range(rank), n))
    for rank in NAMES
}


def source_axes(rank: int) -> tuple[Shape, ...]:
    """Return the axes that every source spans: most axes first, then by axis.

    >>> source_axes(2)
    ((0, 1), (0,), (1,), ())
    """
    return _SPANS[rank]


def on_axes(values: Sequence[int], axes: Shape) -> Shape:
    """Return the entries of `values` for `axes`."""
    return tuple(values[axis] for axis in axes)


def source_shapes(case: ConvCase) -> tuple[Shape | None, ...]:
    """Return `(N, C_i, *sizes of the axes it spans)` per source, None where it is absent."""
    return tuple(
        (case.n, channels, *on_axes(case.in_size, axes)) if channels else None
        for channels, axes in zip(case.sources, source_axes(case.spatial_dims), strict=True)
    )


def weight_shapes(case: ConvCase) -> tuple[Shape | None, ...]:
    """Return `(C_out, C_i/groups, *kernel sizes of the axes it spans)` per source, or None."""
    return tuple(
        (case.c_out, channels // case.groups, *on_axes(case.kernel_size, axes))
        if channels
        else None
        for channels, axes in zip(case.sources, source_axes(case.spatial_dims), strict=True)
    )


SOURCES = Arg(name="x", role=Role.SIGNAL, shape=source_shapes)


def roundings_of_sums(case: ConvCase) -> int:
    """Return the additions that join the sources: one for each, and one for the bias."""
    return sum(map(bool, case.sources)) + 1


def source_cases() -> dict[str, str]:
    """Return the layers of `network_cases` with metadata beside the image: `name -> descriptor`."""
    cases = {}
    for name, line in network_cases().items():
        case = ConvCase.parse(line)
        if case.groups == 1:
            some = max(4, case.c_in // 2)
            middle = (some,) * (2**case.spatial_dims - 2)
            channels = "+".join(map(str, (case.c_in, *middle, max(4, case.c_in))))
            cases[name] = line.replace(f"c{case.c_in}>", f"c{channels}>")
    return cases


# -- computing ---------------------------------------------------------------------------------


def spread(term: Tensor, axes: Shape, rank: int) -> Tensor:
    """Return `term (N, C, *sizes of axes)` with an axis of size 1 for every axis not in `axes`."""
    for axis in range(rank):
        if axis not in axes:
            term = term.unsqueeze(2 + axis)
    return term


def out_size_of(
    size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int],
) -> Shape:  # fmt: skip
    """Return `floor((size + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1` per axis."""
    axes = zip(size, kernel_size, stride, padding, dilation, strict=True)
    return tuple((s + 2 * p - d * (k - 1) - 1) // step + 1 for s, k, step, p, d in axes)


def over_output(y: Tensor, out_size: Shape) -> Tensor:
    """Return `y` with every axis of size 1 repeated to `out_size`, in memory of its own."""
    return y if y.shape[2:] == out_size else y.expand(*y.shape[:2], *out_size).contiguous()


def convolve_source(
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: Shape,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str = "zeros",
    convolution: Callable[..., Tensor] = convolve,
) -> Tensor:
    """Return the convolution of one source over the axes that it spans, `(N, C_out, *sizes)`."""
    if axes:
        return convolution(
            source, weight, bias, stride=on_axes(stride, axes), padding=on_axes(padding, axes),
            dilation=on_axes(dilation, axes), groups=groups, padding_mode=padding_mode,
        )  # fmt: skip
    if groups == 1:
        return F.linear(source, weight, bias)
    split = source.unflatten(1, (groups, -1)).unsqueeze(-1)
    y = torch.matmul(weight.unflatten(0, (groups, -1)), split).flatten(1)
    return y if bias is None else y + bias


def sum_small_first(
    terms: Iterable[tuple[Shape, Tensor]], rank: int, fit: Any = lambda term, _: term
) -> tuple[Shape, Tensor]:
    """Return the axes and the sum of `terms`, each joined to the smallest that spans its axes.

    Small terms meet before they are spread, so that few passes go over the whole output; the last
    sums are written into the widest source's own result, which saves its copies.

    Args:
        terms: `(axes, term)`, fewest axes first, each term with all `rank` axes.
        rank: Number of spatial axes.
        fit: `fit(term, axes)` makes the term ready to broadcast along `axes`, which it lacks.
    """
    left = list(terms)
    while len(left) > 1:
        (axes, term), *left = left
        wider = [i for i, (others, _) in enumerate(left) if set(axes) < set(others)]
        # no source spans both: their sum spans the axes of the two
        at = wider[0] if wider else 0
        others, total = left[at]
        union = tuple(sorted({*axes, *others}))
        term = fit(term, tuple(a for a in others if a not in axes))
        total = fit(total, tuple(a for a in axes if a not in others))
        added = add_into(total, term) if len(others) == rank else total + term
        left[at] = (union, added)
        left.sort(key=lambda entry: len(entry[0]))
    return left[0]


def add_into(total: Tensor, term: Tensor) -> Tensor:
    """Return `total + term`, in the memory of `total` where that can be."""
    try:
        return total.add_(term)
    except RuntimeError:  # under vmap only `term` may have the mapped axis
        return total + term


# -- calling -----------------------------------------------------------------------------------


def call_with_sources(
    variant: Variant,
    x: Sources,
    weight: Any,
    bias: Tensor | None,
    *,
    size: Sequence[int] | None,
    kernel_size: Sequence[int],
    padding: int | str | Sequence[int] = 0,
    **options: Any,
) -> Tensor:
    """Call the functional form of `variant`; `padding='same'` takes even kernels too.

    Raises:
        CaseError: sources that disagree, a size that none of them tells, or a geometry that
            cannot be.
    """
    rank = len(kernel_size)
    if _is_single(x, rank):
        sample = call_with_sources(
            variant, tuple(None if s is None else s.unsqueeze(0) for s in x), weight, bias,
            size=size, kernel_size=kernel_size, padding=padding, **options,
        )  # fmt: skip
        return sample.squeeze(0)
    size = resolve_size(x, rank, size)
    uneven: list[int] = []
    if padding == "same":
        stride, dilation = (
            per_axis(name, options.get(name, 1), rank) for name in ("stride", "dilation")
        )
        sides = named_padding(padding, kernel_size, stride, dilation)
        # one sample too many in front gives one output too many in front
        uneven = [axis for axis, (before, behind) in enumerate(sides, 2) if before < behind]
        padding = tuple(behind for _, behind in sides)
    y = call(
        variant, (tuple(x), weight, bias), size=size, kernel_size=kernel_size, padding=padding,
        **options,
    )  # fmt: skip
    for axis in uneven:
        y = y.narrow(axis, 1, y.shape[axis] - 1)
    return y.contiguous() if uneven else y


def _is_single(x: Sources, rank: int) -> bool:
    """Whether every source that is given has all its axes but that of the batch."""
    if rank not in NAMES or len(x) != len(NAMES[rank]):
        return False
    pairs = [(s, axes) for s, axes in zip(x, source_axes(rank), strict=True) if s is not None]
    return bool(pairs) and all(source.dim() == 1 + len(axes) for source, axes in pairs)


def resolve_size(x: Sources, rank: int, size: Sequence[int] | None = None) -> Shape:
    """Return the spatial size that the sources and `size` agree on.

    Raises:
        CaseError: too many or too few sources, one of another rank, batch or size than the rest,
            or an axis whose size nothing tells.
    """
    if rank not in NAMES:
        raise CaseError(f"weight has {rank} spatial axes and needs 1 to 3")
    names, spans = NAMES[rank], source_axes(rank)
    if len(x) != len(spans):
        raise CaseError(
            f"x has {len(x)} sources and needs {len(spans)}, one per subset of the {rank} spatial "
            f"axes: {', '.join(names)}"
        )
    known: dict[int, tuple[int, str]] = {}
    if size is not None:
        if len(size) != rank:
            raise CaseError(f"size={tuple(size)} needs {rank} entries, one per spatial axis")
        known = {axis: (entry, f"size={tuple(size)}") for axis, entry in enumerate(size)}
    batch: tuple[int, str] | None = None
    for name, axes, source in zip(names, spans, x, strict=True):
        if source is None:
            continue
        told = f"{name}.shape={tuple(source.shape)}"
        if source.dim() != 2 + len(axes):
            raise CaseError(
                f"{told} needs {2 + len(axes)} axes: batch, channels, {len(axes)} spatial"
            )
        batch = batch or (source.shape[0], told)
        if source.shape[0] != batch[0]:
            raise CaseError(f"{told} must have batch size {batch[0]}, as {batch[1]} has")
        for axis, entry in zip(axes, source.shape[2:], strict=True):
            expected, teller = known.setdefault(axis, (entry, told))
            if entry != expected:
                raise CaseError(
                    f"{told} must have size {expected} on spatial axis {axis}, as {teller} says"
                )
    if batch is None:
        raise CaseError("x=None: every source is absent, at least one must be given")
    for axis in range(rank):
        if axis not in known:
            raise CaseError(f"size=None must be given: no source spans spatial axis {axis}")
    return tuple(known[axis][0] for axis in range(rank))


def resolve_kernel_size(
    x: Sources, weights: Sources, kernel_size: Sequence[int] | None = None
) -> Shape:
    """Return the kernel size that the weights of the sources and `kernel_size` agree on.

    Raises:
        CaseError: another number of weights than of sources, a source without a weight or a
            weight without a source, or weights that disagree.
    """
    rank = next((rank for rank, names in NAMES.items() if len(names) == len(x)), 0)
    if not rank:
        raise CaseError(f"x has {len(x)} sources and needs 2, 4 or 8: one per subset of the axes")
    if len(weights) != len(x):
        raise CaseError(f"weight has {len(weights)} entries and needs {len(x)}, one per source")
    known: dict[int, int] = {}
    if kernel_size is not None:
        if len(kernel_size) != rank:
            raise CaseError(
                f"kernel_size={tuple(kernel_size)} needs {rank} entries, one per spatial axis"
            )
        known = dict(enumerate(kernel_size))
    for name, axes, source, weight in zip(NAMES[rank], source_axes(rank), x, weights, strict=True):
        check_presence(name, source, None if weight is None else weight.shape[1])
        if weight is None:
            continue
        told = f"weight of {name}: shape={tuple(weight.shape)}"
        if weight.dim() != 2 + len(axes):
            raise CaseError(f"{told} needs {2 + len(axes)} axes")
        for axis, entry in zip(axes, weight.shape[2:], strict=True):
            if known.setdefault(axis, entry) != entry:
                raise CaseError(f"{told} must have {known[axis]} taps on spatial axis {axis}")
    for axis in range(rank):
        if axis not in known:
            raise CaseError(f"kernel_size=None must be given: no weight spans spatial axis {axis}")
    return tuple(known[axis] for axis in range(rank))


def check_presence(name: str, source: Tensor | None, channels: int | None) -> None:
    """Raise CaseError where a source is given that has no channels, or one is missing that has."""
    if source is not None and not channels:
        raise CaseError(f"{name}.shape={tuple(source.shape)} must be absent: it has no channels")
    if source is None and channels:
        raise CaseError(f"{name}=None must be given: it has {channels} channels per group")
