"""Search a variant's domain for a counterexample to a law, and shrink it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase

from harness.call import declines
from harness.case import ConvCase
from harness.check import Refuted, Trial
from harness.law import Law
from harness.results import Outcome
from harness.screen import render, replay_line
from harness.strategies import cases
from harness.variant import Implementation, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a search or a replay found. `screen` explains a counterexample on one screen."""

    outcome: Outcome
    cases: int
    case: ConvCase | None = None
    screen: str = ""
    replay: str = ""
    error_over_bound: float = 0.0
    tier: str = "T0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How hard to search.

    Args:
        cases: Cases per law and implementation, before a law's own share.
        seed: Of the draws; the same seed draws the same cases for every implementation, so that
            they share the oracle's results. None = from Hypothesis' own entropy.
        dtypes: The dtypes drawn.
        shrink: Whether a counterexample is made smaller; without, only that there is one counts.
    """

    cases: int
    seed: int | None = 0
    dtypes: tuple[str, ...] = ("float32", "float64")
    shrink: bool = True


# Fewer cases than this may all be vacuous by chance: half of the mask families leave little.
ENOUGH = 20
PROFILES = {
    "quick": Profile(cases=8),
    "dev": Profile(cases=20, seed=None),
    "ci": Profile(cases=60),
    "deep": Profile(cases=2000, seed=None),
}


@dataclass(slots=True)
class _Tally:
    executed: int = 0
    vacuous: int = 0
    reason: str = ""
    error_over_bound: float = 0.0
    tier: str = "T0"
    failing: ConvCase | None = None
    screen: str = ""
    replay: str = ""
    crashed: bool = False


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
    if reason := implementation.missing():
        return Finding(outcome=Outcome.UNSUPPORTED, cases=0, screen=reason)
    tally = _Tally()

    def attempt(case: ConvCase) -> None:
        if not _attempt(law, variant, implementation, case, device, variants or {}, tally):
            hypothesis.reject()  # so that a declined case does not count against the profile's

    settings = hypothesis.settings(
        max_examples=max(1, round(profile.cases * law.share)),
        database=None,
        derandomize=False,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=(Phase.explicit, Phase.generate, *((Phase.shrink,) if profile.shrink else ())),
        suppress_health_check=list(HealthCheck),
    )
    test = settings(hypothesis.given(cases(variant, profile.dtypes))(attempt))
    if profile.seed is not None:
        test = hypothesis.seed(profile.seed)(test)
    for case in first:
        test = hypothesis.example(case)(test)
    try:
        test()
    except hypothesis.errors.Unsatisfiable:
        pass  # every drawn case was declined: said in the finding
    except Exception:
        if tally.failing is None:
            raise  # not from the implementation: a fault of the search itself
    return _finding(law, tally)


def replay(
    law: Law, variant: Variant, implementation: Implementation, case: ConvCase, *,
    device: str = "cpu", variants: Mapping[str, Variant] | None = None,
) -> Finding:  # fmt: skip
    """Judge `law` over `implementation` on one case."""
    if reason := implementation.missing():
        return Finding(outcome=Outcome.UNSUPPORTED, cases=0, screen=reason)
    tally = _Tally()
    try:
        _attempt(law, variant, implementation, case, device, variants or {}, tally)
    except Exception:
        if tally.failing is None:
            raise
    return _finding(law, tally)


def _attempt(
    law: Law, variant: Variant, implementation: Implementation, case: ConvCase, device: str,
    variants: Mapping[str, Variant], tally: _Tally,
) -> bool:  # fmt: skip
    """Run the law on `case`; return whether it applied. What it found goes to `tally`."""
    inside = law.within(case) if law.within else case
    if inside is None:
        tally.reason = f"outside the law's domain: {law.domain}"
        return False
    if reason := declines(implementation, variant, inside):
        tally.reason = reason
        return False
    variant.check_case(inside)
    trial = Trial(variant, implementation, inside, device, variants)
    tally.executed += 1
    try:
        law.check(trial)
    except Exception as error:
        tally.failing, tally.crashed = inside, not isinstance(error, Refuted)
        tally.screen, tally.replay = render(law, trial, error), replay_line(trial, law)
        raise
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
        )
    if not tally.executed:
        return Finding(outcome=Outcome.UNSUPPORTED, cases=0, screen=tally.reason)
    if tally.executed >= ENOUGH and tally.vacuous == tally.executed and not law.zero_is_right:
        screen = "in every case the output is mostly zeros or smaller than the allowed error"
        return Finding(outcome=Outcome.MISTRUSTED, cases=tally.executed, screen=screen)
    return Finding(
        outcome=Outcome.HOLDS, cases=tally.executed, error_over_bound=tally.error_over_bound,
        tier=tally.tier,
    )  # fmt: skip
