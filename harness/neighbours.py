"""The simpler neighbours of a case: each is one step away, and together they certify a minimum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from harness.case import CaseError, ConvCase
from harness.variant import Variant

PER_AXIS = ("in_size", "kernel_size", "stride", "padding", "dilation")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A case one step from another, what the step was, and whether the law fails there too.

    `fails` is None where there is no such case, or the law does not apply to it.
    """

    step: str
    case: ConvCase
    fails: bool | None


def descend(
    case: ConvCase, variant: Variant, fails: Callable[[ConvCase], bool | None]
) -> tuple[ConvCase, tuple[Neighbour, ...]]:
    """Step to simpler neighbours that fail too, until none does; return the last, and those.

    Every step makes one number smaller or one word plainer, so that the way down ends.
    """
    while True:
        known = []
        for step, candidate in _simpler(case, variant):
            known.append(Neighbour(step, candidate, fails(candidate)))
            if known[-1].fails:
                case = candidate
                break
        else:
            return case, tuple(known)


def beside(
    case: ConvCase, variant: Variant, fails: Callable[[ConvCase], bool | None]
) -> tuple[Neighbour, ...]:
    """Return neighbours that are no simpler, only different: what fails there does not matter."""
    return tuple(Neighbour(step, c, fails(c)) for step, c in _different(case, variant))


def _simpler(case: ConvCase, variant: Variant) -> Iterator[tuple[str, ConvCase]]:
    """Yield the steps that make one thing smaller, each with its case, where there is one."""
    options = {name: None for name, _ in case.options}
    changes: list[tuple[str, dict[str, object]]] = []
    if case.n > 1:
        changes.append((f"n {case.n}->{case.n - 1}", {"n": case.n - 1}))
    changes += _fewer_channels(case)
    for letter, name in zip("ikspd", PER_AXIS, strict=True):
        least = int(name != "padding")
        sizes = getattr(case, name)
        step = 2 if name == "kernel_size" and variant.domain.odd_kernels else 1
        for axis, size in enumerate(sizes):
            if size - step >= least:
                smaller = (*sizes[:axis], size - step, *sizes[axis + 1 :])
                label = f"{letter}[{axis}] " if len(sizes) > 1 else f"{letter} "
                changes.append((f"{label}{size}->{size - step}", {name: smaller}))
    if case.spatial_dims - 1 in variant.domain.ranks and not case.sources:
        for axis in range(case.spatial_dims):
            sizes = {name: getattr(case, name) for name in PER_AXIS}
            fewer = {name: (*size[:axis], *size[axis + 1 :]) for name, size in sizes.items()}
            changes.append((f"without axis {axis}", dict(fewer)))
    if case.bias:
        changes.append(("b 1->0", {"bias": False}))
    if case.layout != "contiguous":
        changes.append((f"{case.layout}->contiguous", {"layout": "contiguous"}))
    for fill in ("ones", "exact"):
        if case.fill not in {"ones", fill}:
            changes.append((f"{case.fill}->{fill}", {"fill": fill}))
    for name in options:
        left = tuple(entry for entry in case.options if entry[0] != name)
        changes.append((f"without {name}", {"options": left}))
    yield from _built(case, variant, changes)


def _fewer_channels(case: ConvCase) -> Iterator[tuple[str, dict[str, object]]]:
    g = case.groups
    if case.sources:
        for i, count in enumerate(case.sources):
            if count and case.c_in > g:
                fewer = (*case.sources[:i], count - g, *case.sources[i + 1 :])
                step = f"c[{i}] {count}->{count - g}"
                yield step, {"sources": fewer, "c_in": case.c_in - g}
    elif case.c_in > g:
        yield f"c_in {case.c_in}->{case.c_in - g}", {"c_in": case.c_in - g}
    if case.c_out > g:
        yield f"c_out {case.c_out}->{case.c_out - g}", {"c_out": case.c_out - g}
    if g > 1:
        yield f"g {g}->1", {"groups": 1}


def _different(case: ConvCase, variant: Variant) -> Iterator[tuple[str, ConvCase]]:
    """Yield what is neither simpler nor harder: other values, another dtype, a bias."""
    other = "float32" if case.dtype == "float64" else "float64"
    changes: list[tuple[str, dict[str, object]]] = [
        (f"{case.dtype}->{other}", {"dtype": other}),
        (f"seed {case.seed}->{case.seed + 1}", {"seed": case.seed + 1}),
    ]
    if not case.bias:
        changes.append(("b 0->1", {"bias": True}))
    yield from _built(case, variant, changes)


def _built(
    case: ConvCase, variant: Variant, changes: list[tuple[str, dict[str, object]]]
) -> Iterator[tuple[str, ConvCase]]:
    for step, change in changes:
        try:
            candidate = replace(case, **change)  # type: ignore[arg-type]
            if variant.domain.same_size:
                fields = candidate.receptive_field
                candidate = replace(candidate, padding=tuple((f - 1) // 2 for f in fields))
            variant.check_case(candidate)
        except CaseError:
            continue
        if candidate != case:
            yield step, candidate
