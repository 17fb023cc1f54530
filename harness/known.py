"""Failures that are known: they must go on failing as they are written down, or leave the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.case import ConvCase
from harness.results import Outcome, ResultsError

Key = tuple[str, str, str]
"""Variant, implementation, id of the law."""
FIELDS = ("variant", "implementation", "law", "outcome", "case", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFailure:
    """One pair that fails, how, on which minimal case, and why that is left so."""

    outcome: Outcome
    case: ConvCase
    reason: str


def load_known(path: Path) -> Mapping[Key, KnownFailure]:
    """Read the list of `FIELDS` objects in `path`, sorted by variant, implementation and law.

    Raises:
        ResultsError: what is wrong, with the entry's place.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: is no list of known failures: {error}") from error
    known: dict[Key, KnownFailure] = {}
    for number, entry in enumerate(entries):
        place = f"{path}: entry {number}"
        if not isinstance(entry, dict) or sorted(entry) != sorted(FIELDS):
            raise ResultsError(f"{place} must have exactly {', '.join(FIELDS)}")
        key = (entry["variant"], entry["implementation"], entry["law"])
        if known and key <= list(known)[-1]:
            raise ResultsError(
                f"{place}: {'/'.join(key)} must come after {'/'.join(list(known)[-1])}"
            )
        try:
            known[key] = KnownFailure(
                outcome=Outcome(entry["outcome"]),
                case=ConvCase.parse(entry["case"]),
                reason=entry["reason"],
            )
        except ValueError as error:
            raise ResultsError(f"{place}: {error}") from error
        if known[key].outcome not in {Outcome.REFUTED, Outcome.CRASHED} or not entry["reason"]:
            raise ResultsError(f"{place} must be REFUTED or CRASHED, and say why it is left so")
    return known
