"""Search a variant's domain for a counterexample to a law, and shrink it.

Cases are drawn by Hypothesis once per variant, dtype and rank, and shared by every law and
implementation: drawing costs five times what judging does. A case that refutes is drawn again, by
the same seed, for Hypothesis to shrink.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import hypothesis
from hypothesis import Phase

from harness import flight
from harness.call import Declined
from harness.case import DTYPES, ConvCase
from harness.check import Refuted, Trial
from harness.counterexample import certificate, script
from harness.effort import COSTLY, Profile
from harness.law import Law
from harness.neighbours import beside, descend
from harness.results import Outcome
from harness.screen import render, replay_line
from harness.selection import declines
from harness.strategies import BATCH, batch, draws
from harness.table import reloaded
from harness.variant import Implementation, Variant, missing

# Fewer cases than this may all be vacuous by chance: half of the mask families leave little.
ENOUGH = 20
ENOUGH_OF_A_DTYPE = 12
# A law whose domain is small sees a case drawn again and again: how many draws each case is worth.
PATIENCE = 12
EVERY_CASE = "every case"
FOUND = ("found now: it is not in the corpus", "found before: it is in the corpus")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a search or a replay found. `screen` explains a counterexample on one screen.

    `counts` are the executed cases by dtype and rank, e.g. `{"float32 2d": 5}`, `gaps` the reasons
    where there are none: an empty reason is a hole in the search. `certificate` says what the
    neighbours of a counterexample do, `script` shows it in Python. `tightness` is the largest error
    over its bound by dtype, where there was a bound; `vacuous` counts the cases by dtype whose
    outputs are mostly zeros or smaller than the allowed error.
    """

    outcome: Outcome
    cases: int
    case: ConvCase | None = None
    screen: str = ""
    replay: str = ""
    error_over_bound: float = 0.0
    tier: str = "T0"
    counts: Mapping[str, int] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)
    script: str = ""
    certificate: tuple[str, ...] = ()
    tightness: Mapping[str, float] = field(default_factory=dict)
    vacuous: Mapping[str, int] = field(default_factory=dict)


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
    hunt = _Hunt(law, variant, implementation, device, variants or {})
    if reason := hunt.exempt():
        return hunt.unsupported(reason)
    try:
        for case in first:
            hunt.attempt(case)
        hunt.scan(profile)
    except Exception:
        if hunt.failing is None:
            raise  # not from the implementation: a fault of the search itself
    if not hunt.placed and hunt.failing is None:
        screen = f"no drawn case of {variant.name} is in the law's domain: {law.domain}"
        return Finding(outcome=Outcome.CRASHED, cases=0, screen=screen)
    if hunt.failing is not None and profile.shrink and law.share >= COSTLY:
        hunt.minimise(known=hunt.failing in first)
    return hunt.finding()


def replay(
    law: Law, variant: Variant, implementation: Implementation, case: ConvCase, *,
    device: str = "cpu", variants: Mapping[str, Variant] | None = None,
) -> Finding:  # fmt: skip
    """Judge `law` over `implementation` on one case."""
    hunt = _Hunt(law, variant, implementation, device, variants or {})
    if reason := hunt.exempt():
        return hunt.unsupported(reason)
    try:
        hunt.attempt(case)
    except Exception:
        if hunt.failing is None:
            raise
    return hunt.finding()


@dataclass(slots=True)
class _Hunt:
    """One law over one implementation: what is tried, and what that came to."""

    law: Law
    variant: Variant
    implementation: Implementation
    device: str
    variants: Mapping[str, Variant]
    executed: int = 0
    placed: int = 0
    vacuous: Counter[str] = field(default_factory=Counter)
    tightness: dict[str, float] = field(default_factory=dict)
    tier: str = "T0"
    failing: ConvCase | None = None
    error: Exception | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    seen: set[ConvCase] = field(default_factory=set)

    # -- trying --------------------------------------------------------------------------------

    def exempt(self) -> str | None:
        """Return why the law does not meet the implementation on this machine at all, or None."""
        ability, lacks = self.law.ability, self.implementation.lacks
        if ability is not None and ability in lacks:
            return f"declares that it lacks: {ability}: {lacks[ability]}"
        if self.law.of_costs and self.implementation.cost is None:
            return f"declares no {self.law.of_costs}"
        return self.implementation.missing() or missing(self.law.needs)

    def scan(self, profile: Profile) -> None:
        """Attempt the profile's cases, every dtype and rank in turn."""
        dtypes = [dtype for dtype in profile.dtypes if dtype in self.law.dtypes]
        strata = list(product(dtypes, self.variant.domain.ranks))
        share = 1.0 if profile.evenly and self.law.share >= COSTLY else self.law.share
        wanted = max(1, round(profile.cases * share * self.implementation.share))
        quota = -(-wanted // max(1, len(strata)))
        most = quota * len(strata)
        sparse = self.implementation.share < 1 and wanted < len(strata)
        if sparse:  # too few for every dtype and rank: which, differs from law to law
            most = wanted
            random.Random(f"{self.law.id} {profile.seed}").shuffle(strata)
        streams = {each: self._attempts(profile, each, quota) for each in strata}
        # what an implementation lacks of its quota in one stratum, it gets in the others
        while streams and self.executed < most:
            for stratum, stream in tuple(streams.items()):
                if self.executed == most:
                    break
                if next((True for applied in stream if applied), None) is None:
                    del streams[stratum]
        for stratum in streams if sparse else ():
            slow = f"{self.implementation.name} is slow to call: drawn elsewhere for this law"
            self.reasons.setdefault(_stratum(*stratum), slow)

    def _attempts(self, profile: Profile, stratum: tuple[str, int], quota: int) -> Iterator[bool]:
        """Attempt cases of a stratum, more than its quota; yield of each whether the law applied."""
        # a few cases are better of several geometries
        values = profile.values if self.implementation.share == 1 else 1
        for index in range(quota * PATIENCE):
            number, place = divmod(index // values, BATCH)
            shift = index % values
            source = (self.variant, *stratum, f"{profile.seed}/{number}")
            case = batch(*source)[place]
            try:
                yield self.attempt(_refilled(case, shift))
            except Exception:
                if profile.shrink and self.law.share >= COSTLY:
                    self._shrink(source, shift)
                raise

    def _shrink(self, source: tuple[Variant, str, int, str], shift: int) -> None:
        """Draw the same cases again, this time for Hypothesis to shrink what fails."""

        def test(case: ConvCase) -> None:
            if not self.attempt(_refilled(case, shift)):
                hypothesis.reject()

        draws(test, *source, phases=(Phase.generate, Phase.shrink))

    def attempt(self, case: ConvCase) -> bool:
        """Run the law on `case`; return whether it applied."""
        inside = self._place(case)
        drawn = _stratum(case.dtype, case.spatial_dims)
        if inside is None:
            # a domain that is every case explains nothing
            explained = self._outside() if self.law.domain != EVERY_CASE else ""
            if self.law.place(case) is not None:
                self.placed += 1
                explained = f"outside of what {self.implementation.name} computes"
            self.reasons.setdefault(drawn, explained)
            return False
        self.placed += 1
        if inside in self.seen:
            return False
        if reason := declines(self.implementation, self.variant, inside):
            self._leave(case, inside, reason)
            return False
        self.variant.check_case(inside)
        trial = self._trial(inside)
        if self.law.of_costs and trial.declared(self.law.of_costs) is None:
            self._leave(case, inside, f"declares no {self.law.of_costs}")
            return False
        self.executed += self.failing is None  # shrinking is no further evidence
        try:
            self._judge(trial)
        except Declined as reason:  # of what the law made of the case
            self.executed -= self.failing is None
            self._leave(case, inside, str(reason))
            return False
        except Exception as error:
            self.failing, self.error = inside, error
            raise
        # only what holds is not tried again: shrinking must meet what fails every time
        self.seen.add(inside)
        self.counts[_stratum(inside.dtype, inside.spatial_dims)] += 1
        note = trial.closeness
        self.vacuous[inside.dtype] += bool(note.compared) and note.vacuous == note.compared
        if note.tier != "T0":
            known = self.tightness.get(inside.dtype, 0.0)
            self.tightness[inside.dtype] = max(known, note.error_over_bound)
        self.tier = max(self.tier, note.tier)
        return True

    def _leave(self, case: ConvCase, inside: ConvCase, reason: str) -> None:
        """Keep why a case was not executed: a law may have moved it to another dtype or rank."""
        for each in (inside, case):
            self.reasons[_stratum(each.dtype, each.spatial_dims)] = reason

    def _place(self, case: ConvCase) -> ConvCase | None:
        """Return `case` moved to where both law and implementation are, or None."""
        inside = self.law.place(case)
        moved = None if inside is None else self.implementation.within(inside)
        if moved is None:
            return None
        return moved if moved == inside or self.law.place(moved) == moved else None

    def minimise(self, known: bool) -> None:
        """Step to simpler neighbours of the failing case, and keep what they say."""
        assert self.failing is not None
        kind = type(self.error)
        first = self.failing

        def fails(case: ConvCase) -> bool | None:
            if self._place(case) != case:
                return None
            if declines(self.implementation, self.variant, case):
                return None
            error = self._error(self._trial(case))
            if error is None:
                return False
            if type(error) is not kind:
                return None  # fails for another reason
            self.failing, self.error = case, error
            return True

        if self._error(self._trial(first)) is None:
            said = ["", "depends on earlier calls: in code loaded afresh this case holds"]
            self.kept = {"certificate": (*said, FOUND[known])}
            return
        case, simpler = descend(first, self.variant, fails)
        error = self.error
        said = certificate((*simpler, *beside(case, self.variant, fails)))
        self.failing, self.error = case, error
        self.kept = {
            "certificate": ("", "neighbours", *said, FOUND[known and case == first]),
            "script": script(self.law, self._trial(case)),
        }

    def _trial(self, case: ConvCase) -> Trial:
        flight.note(f"{self.variant.name}/{self.implementation.name}/{self.law.id} {case}")
        judged = self.implementation
        if self.failing is not None:  # what a plug-in remembers must not make a case fail
            judged = reloaded(judged, self.variant.name) or judged
        return Trial(self.variant, judged, case, self.device, self.variants)

    def _judge(self, trial: Trial) -> None:
        """Run the law; a plug-in's warnings are not ours to mend."""
        plugged = bool(self.implementation.origin)
        with warnings.catch_warnings(action="ignore") if plugged else nullcontext():
            self.law.check(trial)

    def _error(self, trial: Trial) -> Exception | None:
        """Return what the law raises on `trial`, or None where it holds."""
        try:
            self._judge(trial)
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything at all
            return error
        return None

    # -- telling -------------------------------------------------------------------------------

    def unsupported(self, reason: str) -> Finding:
        """Return the finding where nothing is tried."""
        gaps = {_stratum(*cell): reason for cell in product(DTYPES, self.variant.domain.ranks)}
        return Finding(outcome=Outcome.UNSUPPORTED, cases=0, screen=reason, gaps=gaps)

    def finding(self) -> Finding:
        """Return what the attempts came to."""
        if self.failing is not None:
            return self._failure(self.failing)
        gaps = self._gaps()
        if not self.executed:
            reason = next(filter(None, gaps.values()), self._outside())
            return Finding(outcome=Outcome.UNSUPPORTED, cases=0, screen=reason, gaps=gaps)
        if (loose := self._vacuous_dtypes()) and not self.law.zero_is_right:
            screen = (
                "in every case the output is mostly zeros or smaller than the allowed error: "
                + ", ".join(loose)
            )
            return Finding(outcome=Outcome.MISTRUSTED, cases=self.executed, screen=screen)
        return Finding(
            outcome=Outcome.HOLDS, cases=self.executed,
            error_over_bound=max(self.tightness.values(), default=0.0),
            tier=self.tier, counts=dict(self.counts), gaps=gaps, tightness=dict(self.tightness),
            vacuous={dtype: count for dtype, count in self.vacuous.items() if count},
        )  # fmt: skip

    def _vacuous_dtypes(self) -> list[str]:
        """Return the dtypes in which nothing was compared that could have failed."""
        executed: Counter[str] = Counter()
        for name, count in self.counts.items():
            executed[name.split()[0]] += count
        everywhere = self.executed >= ENOUGH and self.vacuous == executed
        least = 0 if everywhere else ENOUGH_OF_A_DTYPE
        return [d for d, n in executed.items() if n >= least and self.vacuous[d] == n]

    def _failure(self, case: ConvCase) -> Finding:
        assert self.error is not None
        trial = self._trial(case)
        screen = [render(self.law, trial, self.error), *self.kept.get("certificate", ())]
        return Finding(
            outcome=Outcome.REFUTED if isinstance(self.error, Refuted) else Outcome.CRASHED,
            cases=self.executed,
            case=case,
            screen="\n".join(screen),
            replay=replay_line(trial, self.law),
            counts=dict(self.counts),
            **self.kept,
        )

    def _outside(self) -> str:
        return f"outside the law's domain: {self.law.domain}"

    def _gaps(self) -> dict[str, str]:
        """Return why nothing was executed, for every dtype and rank without a case."""
        return {
            name: self._outside() if dtype not in self.law.dtypes else self.reasons.get(name, "")
            for dtype, rank in product(DTYPES, self.variant.domain.ranks)
            if not self.counts[name := _stratum(dtype, rank)]
        }


def _refilled(case: ConvCase, shift: int) -> ConvCase:
    return replace(case, seed=(case.seed + shift) % 2**16) if shift else case


def _stratum(dtype: str, rank: int) -> str:
    return f"{dtype} {rank}d"
