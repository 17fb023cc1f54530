"""Search a variant's domain for a counterexample to a law, and shrink it.

Cases are drawn by Hypothesis once per variant, dtype and rank, and shared by every law and
implementation: drawing costs five times what judging does. A case that refutes is drawn again, by
the same seed, for Hypothesis to shrink.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import hypothesis
from hypothesis import Phase

from harness.call import declines
from harness.case import ConvCase
from harness.check import Refuted, Trial
from harness.law import Law
from harness.results import Outcome
from harness.screen import render, replay_line
from harness.strategies import BATCH, batch, draws
from harness.variant import Implementation, Variant, missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a search or a replay found. `screen` explains a counterexample on one screen.

    `counts` are the executed cases by dtype and rank, e.g. `{"float32 2d": 5}`.
    """

    outcome: Outcome
    cases: int
    case: ConvCase | None = None
    screen: str = ""
    replay: str = ""
    error_over_bound: float = 0.0
    tier: str = "T0"
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How hard to search.

    Args:
        cases: Cases per law and implementation, before a law's own share, over all dtypes and
            ranks; each of these gets as many as any other.
        seed: Of the draws; the same seed draws the same cases for every implementation, so that
            they share the oracle's results. None = whoever runs it takes a new one.
        dtypes: The dtypes drawn.
        values: How often a drawn geometry is filled, each time by another seed.
        shrink: Whether a counterexample is made smaller; without, only that there is one counts.
    """

    cases: int
    seed: int | None = 0
    dtypes: tuple[str, ...] = ("float32", "float64", "bfloat16", "float16")
    values: int = 1
    shrink: bool = True


# Fewer cases than this may all be vacuous by chance: half of the mask families leave little.
ENOUGH = 20
# A law whose domain is small sees a case drawn again and again: how many draws each case is worth.
PATIENCE = 12
PROFILES = {
    "quick": Profile(cases=6, dtypes=("float32", "float64")),
    "dev": Profile(cases=20, seed=None),
    "ci": Profile(cases=60),
    "deep": Profile(cases=2000, seed=None, values=16),
}


@dataclass(slots=True)
class _Tally:
    executed: int = 0
    placed: int = 0
    vacuous: int = 0
    reason: str = ""
    error_over_bound: float = 0.0
    tier: str = "T0"
    failing: ConvCase | None = None
    screen: str = ""
    replay: str = ""
    crashed: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    seen: set[ConvCase] = field(default_factory=set)


def search(
    law: Law, variant: Variant, implementation: Implementation, profile: Profile, *,
    device: str = "cpu", variants: Mapping[str, Variant] | None = None,
    first: Sequence[ConvCase] = (),
) -> Finding:  # fmt: skip
    """Judge `law` over `implementation` on drawn cases; a refutation comes shrunk.

    Args:
        law, variant, implementation: What to judge.
        profile: How hard to search.
        device: Where the implementation runs.
        variants: The table, for laws that relate two variants.
        first: Cases to try before any drawn one (the corpus).
    """
    if reason := _exempt(law, implementation):
        return Finding(outcome=Outcome.UNSUPPORTED, cases=0, screen=reason)
    tally = _Tally()

    def attempt(case: ConvCase) -> bool:
        return _attempt(law, variant, implementation, case, device, variants or {}, tally)

    try:
        for case in first:
            attempt(case)
        _scan(law, variant, profile, attempt)
    except Exception:
        if tally.failing is None:
            raise  # not from the implementation: a fault of the search itself
    return _finding(law, tally)


def _scan(
    law: Law, variant: Variant, profile: Profile, attempt: Callable[[ConvCase], bool]
) -> None:
    """Attempt the profile's cases, every dtype and rank in turn."""
    strata = list(product([d for d in profile.dtypes if d in law.dtypes], variant.domain.ranks))
    quota = -(-max(1, round(profile.cases * law.share)) // len(strata))
    streams = [
        _attempts(variant, profile, stratum, quota * PATIENCE, attempt) for stratum in strata
    ]
    for _ in range(quota):
        for stream in streams:
            next((True for applied in stream if applied), None)


def _attempts(
    variant: Variant, profile: Profile, stratum: tuple[str, int], most: int,
    attempt: Callable[[ConvCase], bool],
) -> Iterator[bool]:  # fmt: skip
    """Attempt up to `most` cases of a stratum; yield of each whether the law applied."""
    for index in range(most):
        number, place = divmod(index // profile.values, BATCH)
        shift = index % profile.values
        source = (variant, *stratum, f"{profile.seed}/{number}")
        case = batch(*source)[place]
        try:
            yield attempt(_refilled(case, shift))
        except Exception:
            if profile.shrink:
                _shrink(source, shift, attempt)
            raise


def _refilled(case: ConvCase, shift: int) -> ConvCase:
    return replace(case, seed=(case.seed + shift) % 2**16) if shift else case


def _shrink(
    source: tuple[Variant, str, int, str], shift: int, attempt: Callable[[ConvCase], bool]
) -> None:
    """Draw the same cases again, this time for Hypothesis to shrink what fails."""

    def test(case: ConvCase) -> None:
        if not attempt(_refilled(case, shift)):
            hypothesis.reject()

    draws(test, *source, phases=(Phase.generate, Phase.shrink))


def replay(
    law: Law, variant: Variant, implementation: Implementation, case: ConvCase, *,
    device: str = "cpu", variants: Mapping[str, Variant] | None = None,
) -> Finding:  # fmt: skip
    """Judge `law` over `implementation` on one case."""
    if reason := _exempt(law, implementation):
        return Finding(outcome=Outcome.UNSUPPORTED, cases=0, screen=reason)
    tally = _Tally()
    try:
        _attempt(law, variant, implementation, case, device, variants or {}, tally)
    except Exception:
        if tally.failing is None:
            raise
    return _finding(law, tally)


def _exempt(law: Law, implementation: Implementation) -> str | None:
    """Return why `law` does not meet `implementation` on this machine at all, or None."""
    if law.ability is not None and law.ability in implementation.lacks:
        return f"declares that it lacks: {law.ability}: {implementation.lacks[law.ability]}"
    return missing(implementation.needs | law.needs)


def _attempt(
    law: Law, variant: Variant, implementation: Implementation, case: ConvCase, device: str,
    variants: Mapping[str, Variant], tally: _Tally,
) -> bool:  # fmt: skip
    """Run the law on `case`; return whether it applied. What it found goes to `tally`."""
    inside = law.place(case)
    if inside is None:
        tally.reason = tally.reason or f"outside the law's domain: {law.domain}"
        return False
    tally.placed += 1
    if inside in tally.seen:
        return False
    if reason := declines(implementation, variant, inside):
        tally.reason = reason
        return False
    variant.check_case(inside)
    trial = Trial(variant, implementation, inside, device, variants)
    try:
        law.check(trial)
    except Exception as error:
        tally.executed += 1
        tally.failing, tally.crashed = inside, not isinstance(error, Refuted)
        tally.screen, tally.replay = render(law, trial, error), replay_line(trial, law)
        raise
    # only what holds is not tried again: shrinking must meet what fails every time
    tally.seen.add(inside)
    tally.executed += 1
    tally.counts[f"{inside.dtype} {inside.spatial_dims}d"] += 1
    note = trial.closeness
    tally.vacuous += bool(note.compared) and note.vacuous == note.compared
    tally.error_over_bound = max(tally.error_over_bound, note.error_over_bound)
    tally.tier = max(tally.tier, note.tier)
    return True


def _finding(law: Law, tally: _Tally) -> Finding:
    if tally.failing is not None:
        outcome = Outcome.CRASHED if tally.crashed else Outcome.REFUTED
        return Finding(
            outcome=outcome,
            cases=tally.executed,
            case=tally.failing,
            screen=tally.screen,
            replay=tally.replay,
            counts=tally.counts,
        )
    if not tally.executed:
        return Finding(outcome=Outcome.UNSUPPORTED, cases=0, screen=tally.reason)
    if tally.executed >= ENOUGH and tally.vacuous == tally.executed and not law.zero_is_right:
        screen = "in every case the output is mostly zeros or smaller than the allowed error"
        return Finding(outcome=Outcome.MISTRUSTED, cases=tally.executed, screen=screen)
    return Finding(
        outcome=Outcome.HOLDS, cases=tally.executed, error_over_bound=tally.error_over_bound,
        tier=tally.tier, counts=tally.counts,
    )  # fmt: skip
