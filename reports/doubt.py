"""What may not claim: implementations that a law, or a cell of this run, found wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.results import LoadedRun, Outcome, Status

_WORST = (Outcome.REFUTED, Outcome.CRASHED, Outcome.MISTRUSTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Why an implementation is no headline: the worst outcome, and what found it."""

    outcome: Outcome
    found_by: tuple[str, ...]

    def __str__(self) -> str:
        named = ", ".join(self.found_by[:6])
        more = len(self.found_by) - 6
        return f"{named} and {more} more" if more > 0 else named


Doubts = Mapping[tuple[str, str], Doubt]


def doubts(loaded: LoadedRun) -> Doubts:
    """Return the doubt about every implementation of the run that has one.

    A law that is refuted, crashes, or was judged on values that prove nothing; a cell whose result
    was wrong or that crashed. `found_by` holds what led to the worst of these outcomes alone.
    """
    found: dict[tuple[str, str], dict[Outcome, dict[str, None]]] = {}
    for verdict in loaded.verdicts:
        if verdict.status in _WORST:
            found.setdefault((verdict.variant, verdict.implementation), {}).setdefault(
                verdict.status, {}
            )[verdict.law] = None
    outcomes = {Status.REFUTED: Outcome.REFUTED, Status.CRASHED: Outcome.CRASHED}
    for row in loaded.measurements:
        if row.status in outcomes:
            case = f"case {row.case_name or row.case}"
            found.setdefault((row.variant, row.implementation), {}).setdefault(
                outcomes[row.status], {}
            )[case] = None
    doubtful = {}
    for key, by_outcome in found.items():
        worst = min(by_outcome, key=_WORST.index)
        doubtful[key] = Doubt(outcome=worst, found_by=tuple(by_outcome[worst]))
    return doubtful
