"""What a variant and its implementations declare about themselves, in words."""

from __future__ import annotations

from dataclasses import replace

from harness.case import DTYPES, ConvCase
from harness.variant import Implementation, Variant


def domain_in_words(variant: Variant) -> str:
    """Return for which cases a variant is defined."""
    domain = variant.domain
    limits = [f"{', '.join(map(str, domain.ranks))} spatial axes"]
    limits += ["odd kernels"] * domain.odd_kernels
    limits += ["no padding argument: the output has the input's size"] * domain.same_size
    limits += ["stride 1"] * (not domain.strides) + ["dilation 1"] * (not domain.dilations)
    limits += ["one source per subset of the axes"] * domain.sources
    return "; ".join(limits)


def limits_of(variant: Variant, one: Implementation) -> tuple[str, ...]:
    """Return why it declines the benchmark's cases in some dtype, and what it declares to lack."""
    drawn = [ConvCase.parse(line) for line in variant.cases.values()]
    cases = [replace(case, dtype=dtype) for case in drawn for dtype in DTYPES]
    try:
        reasons = dict.fromkeys(filter(None, map(one.unsupported, cases)))
    except Exception as error:  # noqa: BLE001 - a stranger's code must not end the run
        reasons = dict.fromkeys((f"its limits cannot be told: {type(error).__name__}: {error}",))
    lacks = (f"not {ability.name.lower()}: {reason}" for ability, reason in one.lacks.items())
    flags = ["no gradients"] * (not one.differentiable) + ["not deterministic"] * (
        not one.deterministic
    )
    return (*flags, *reasons, *lacks)
