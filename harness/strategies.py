"""Hypothesis strategies: valid cases by construction, drawn from a variant's domain."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from harness.case import FILLS, LAYOUTS, ConvCase
from harness.variant import Variant

# Largest kernel side and spare pixels per rank: a case stays below a few thousand multiply-adds.
_KERNEL = {1: (1, 2, 3, 4, 5), 2: (1, 2, 3, 4), 3: (1, 2, 3)}
_ODD_KERNEL = {1: (1, 3, 5, 7), 2: (1, 3, 5), 3: (1, 3)}
_SPARE = {1: 6, 2: 4, 3: 2}
# Cases drawn at once: Hypothesis' start costs as much as a few of them.
BATCH = 16
MOST_BATCHES = 4096


@st.composite
def cases(
    draw: st.DrawFn, variant: Variant, dtypes: Sequence[str] = ("float32", "float64"),
    ranks: Sequence[int] = (),
) -> ConvCase:  # fmt: skip
    """Draw a case of `variant`; shrinks towards `n1 c1>1 i1 k1 s1 p0 d1 g1`.

    Args:
        draw: Given by Hypothesis.
        variant: Whose domain the case is drawn from.
        dtypes: The dtypes to draw from, the simplest first.
        ranks: The numbers of spatial axes to draw from; none = all of the domain.
    """
    domain = variant.domain
    rank = draw(st.sampled_from(tuple(ranks) or domain.ranks))
    sides = (_ODD_KERNEL if domain.odd_kernels else _KERNEL)[rank]
    kernel = _per_axis(draw, rank, st.sampled_from(sides))
    dilation = _per_axis(draw, rank, st.integers(1, 3 if rank < 3 and domain.dilations else 2))
    stride = _per_axis(draw, rank, st.integers(1, 3 if domain.strides else 1))
    if domain.same_size:
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    else:
        padding = _per_axis(draw, rank, st.integers(0, 2))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    if domain.sources:
        counts = st.sampled_from((0, 1, 2)) if rank < 3 else st.sampled_from((0, 0, 1))
        drawn = [draw(counts) * groups for _ in range(2**rank)]
        sources = tuple(drawn) if any(drawn) else (groups, *drawn[1:])
    else:
        sources = ()
    chosen = {name: draw(st.sampled_from(words)) for name, words in variant.options.items()}
    changed = {name: word for name, word in chosen.items() if word != variant.options[name][0]}
    case = ConvCase(
        n=draw(st.integers(1, 3)),
        c_in=sum(sources) or draw(st.integers(1, 3)) * groups,
        c_out=draw(st.integers(1, 3)) * groups,
        in_size=tuple(1 + d * (k - 1) for d, k in zip(dilation, kernel, strict=True)),
        kernel_size=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from(tuple(dtypes))),
        layout=draw(st.sampled_from(LAYOUTS)),
        fill=draw(st.sampled_from(("exact", "ones", "arange", *FILLS[3:]))),
        seed=draw(st.integers(0, 2**16 - 1)),
        options=tuple(sorted(changed.items())),
        sources=sources,
    )  # fmt: skip
    case = domain.settle(case) if domain.settle else case
    spare = _per_axis(draw, rank, st.integers(0, _SPARE[rank]))
    return replace(
        case, in_size=tuple(a + b for a, b in zip(_least(variant, case), spare, strict=True))
    )


def _least(variant: Variant, case: ConvCase) -> tuple[int, ...]:
    """Return the smallest legal `in_size` for the other fields of `case`."""
    fits = tuple(max(1, f - 2 * p) for f, p in zip(case.receptive_field, case.padding, strict=True))
    return tuple(map(max, fits, variant.domain.least(case)))


def _per_axis(draw: st.DrawFn, rank: int, entry: st.SearchStrategy[int]) -> tuple[int, ...]:
    return tuple(draw(entry) for _ in range(rank))


def draws(
    test: Callable[[ConvCase], None], variant: Variant, dtype: str, rank: int, seed: str,
    phases: Sequence[Phase] = (Phase.generate,),
) -> None:  # fmt: skip
    """Run `test` on a batch of cases of one dtype and rank; the same seed draws the same cases."""
    settings = hypothesis.settings(
        max_examples=BATCH,
        database=None,
        derandomize=False,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    drawn = cases(variant, (dtype,), (rank,))
    hypothesis.seed(f"{seed}/{dtype}/{rank}")(settings(hypothesis.given(drawn)(test)))()


def batch(variant: Variant, dtype: str, rank: int, seed: str) -> tuple[ConvCase, ...]:
    """Return `BATCH` cases of one dtype and rank; drawn once for all that share domain and options."""
    # by value: a mutant is another variant, whose cases are the same
    key = (variant.domain, tuple(variant.options.items()), dtype, rank, seed)
    if key not in _batches:
        if len(_batches) >= MOST_BATCHES:
            _batches.clear()
        _batches[key] = _drawn(variant, dtype, rank, seed)
    return _batches[key]


_batches: dict[Hashable, tuple[ConvCase, ...]] = {}


def _drawn(variant: Variant, dtype: str, rank: int, seed: str) -> tuple[ConvCase, ...]:
    found: list[ConvCase] = []
    draws(lambda case: found.append(case), variant, dtype, rank, seed)  # noqa: PLW0108
    while len(found) < BATCH:  # a domain that holds fewer: the same ones again
        found += found
    # Hypothesis begins with the simplest case, which says the least
    return (*found[1:BATCH], found[0])
