"""A claim: a statement of a document that this harness started from, judged by the machine.

The expected verdict stands with the claim, so that a claim cannot go stale: whoever changes what a
variant computes learns which statement about it has changed. Claims about time are decided by the
clock when somebody asks; until then the last verdict that was stored is shown, with its date.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from harness.clock import utc_now
from harness.evidence import Cell, Evidence, Made, machine_in_words
from harness.law import natural_order
from harness.results import ResultsError
from harness.variant import Need, missing

PACKAGE = "properties.claims"
COLUMNS = ("claim", "source", "statement", "verdict", "witness", "decided by")
COMPUTED = "computation"


class Answer(StrEnum):
    """What the machine says of a claim."""

    TRUE = "TRUE"
    FALSE = "FALSE"
    TRUE_ON = "TRUE_ON"
    UNRESOLVED = "UNRESOLVED"
    WAITS = "WAITS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """An answer, and the case or the figures that it was read from."""

    answer: Answer
    witness: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A statement and what decides it.

    Args:
        id: Number of the document, then of the statement, e.g. `003.2`.
        source: The document.
        text: The statement in one sentence.
        expected: TRUE, FALSE, or TRUE_ON: true on `domain` and false elsewhere. WAITS where only a
            machine that nobody has had can tell.
        check: Computes the judgement anew.
        domain: Where a claim that is TRUE_ON holds.
        needs: What the machine must have to tell.
        timed: Whether the clock decides: such a claim is judged only when it is asked for.

    Raises:
        ValueError: a domain without TRUE_ON or the other way round, or an expectation that is none.
    """

    id: str
    source: str
    text: str
    expected: Answer
    check: Callable[[], Judgement]
    domain: str = ""
    needs: frozenset[Need] = frozenset()
    timed: bool = False

    def __post_init__(self) -> None:
        if self.expected is Answer.UNRESOLVED or (self.expected is Answer.WAITS and not self.needs):
            raise ValueError(
                f"{self.id}: expected={self.expected} must be TRUE, FALSE or TRUE_ON, or WAITS "
                "where `needs` says for what"
            )
        if bool(self.domain) != (self.expected is Answer.TRUE_ON):
            raise ValueError(f"{self.id}: domain={self.domain!r} with expected={self.expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim and what is known of it; `decided_by` is the computation, or the clock and when."""

    claim: Claim
    answer: Answer
    witness: str
    decided_by: str

    @property
    def differs(self) -> bool:
        """Whether answer and expectation contradict each other: both are there and not the same."""
        open_ends = {Answer.WAITS, Answer.UNRESOLVED}
        return self.answer != self.claim.expected and not open_ends & {
            self.answer, self.claim.expected,
        }  # fmt: skip

    @property
    def verdict(self) -> str:
        """The answer with the domain that it is about."""
        stated = self.answer is Answer.TRUE_ON and self.claim.domain
        return f"{self.answer}: {self.claim.domain}" if stated else str(self.answer)

    def row(self) -> tuple[Cell, ...]:
        """Return the entries under `COLUMNS`."""
        claim = self.claim
        return (
            claim.id, claim.source, claim.text, self.verdict, self.witness, self.decided_by
        )  # fmt: skip


def claim(
    number: str, source: str, text: str, expected: Answer, **options: Any
) -> Callable[[Callable[[], Judgement]], Claim]:
    """Return a decorator that makes a function the check of a `Claim` with these fields."""

    def made(check: Callable[[], Judgement]) -> Claim:
        return Claim(id=number, source=source, text=text, expected=expected, check=check, **options)

    return made


def decide(holds: bool, witness: str) -> Judgement:
    """Return TRUE or FALSE."""
    return Judgement(answer=Answer.TRUE if holds else Answer.FALSE, witness=witness)


def decide_on(inside: bool, outside: bool, witness: str) -> Judgement:
    """Return what a claim is that holds on its domain (`inside`) and beyond it (`outside`)."""
    if inside and not outside:
        return Judgement(answer=Answer.TRUE_ON, witness=witness)
    return decide(inside, witness)


def load_claims(package: str = PACKAGE) -> dict[str, Claim]:
    """Load every claim of a package, in the order of their numbers.

    Raises:
        ValueError: two claims share a number.
    """
    claims: dict[str, Claim] = {}
    folder = importlib.import_module(package)
    for found in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{package}.{found.name}")
        for value in vars(module).values():
            if isinstance(value, Claim) and claims.setdefault(value.id, value) is not value:
                raise ValueError(f"two claims share the number {value.id}")
    return dict(sorted(claims.items(), key=lambda item: _order(item[0])))


def judge(
    claim: Claim, *, timed: bool = False, stored: Mapping[str, tuple[Cell, ...]] | None = None
) -> Judged:
    """Judge one claim, by the clock only if `timed`; else repeat what was `stored` of it."""
    lack = missing(claim.needs)
    if lack or (claim.timed and not timed):
        return _repeated(claim, (stored or {}).get(claim.id), lack)
    # whatever a check draws comes from a state of its own
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        found = claim.check()
    by = COMPUTED
    if claim.timed or claim.needs:
        means = "clock" if claim.timed else COMPUTED
        by = f"{means}, {utc_now():%Y-%m-%d}, {machine_in_words()}"
    return Judged(claim=claim, answer=found.answer, witness=found.witness, decided_by=by)


def _repeated(claim: Claim, row: tuple[Cell, ...] | None, lack: str | None) -> Judged:
    if row is not None:
        verdict, witness, by = (str(cell) for cell in row[3:])
        answer = Answer(verdict.partition(":")[0])
        if answer is not Answer.WAITS:
            return Judged(claim=claim, answer=answer, witness=witness, decided_by=by)
    reason = f"waits for a machine that can tell: {lack}" if lack else "waits for --timed"
    return Judged(claim=claim, answer=Answer.WAITS, witness=reason, decided_by="nothing yet")


def stored_rows(evidence: Iterable[Evidence]) -> dict[str, tuple[Cell, ...]]:
    """Return the rows of the stored table of claims by their number, none where it is absent.

    Raises:
        ResultsError: the table has other columns, or a verdict that is none.
    """
    table = next((one for one in evidence if one.name == "claims"), None)
    if table is None:
        return {}
    known = {str(answer) for answer in Answer}
    verdicts = {str(row[3]).partition(":")[0] for row in table.rows if len(row) > 3}
    if table.columns != COLUMNS or not verdicts <= known:
        raise ResultsError(f"the stored table of claims must have the columns {', '.join(COLUMNS)} "
                           f"and verdicts among {', '.join(sorted(known))}")  # fmt: skip
    return {str(row[0]): row for row in table.rows}


def as_evidence(judged: Iterable[Judged], command: str) -> Evidence:
    """Return the table of claims as evidence made now."""
    about = (
        "What the five documents that this harness started from say, in our words, and what the "
        "machine says of it. TRUE_ON: true on the stated domain and false beyond it. The witness "
        "is computed in the same run as the verdict. `python3 -m harness claims` judges them again."
    )
    return Evidence(
        name="claims", title="Claims", about=about, made=Made.here(command, utc_now()),
        columns=COLUMNS, rows=tuple(one.row() for one in judged),
    )  # fmt: skip


def _order(number: str) -> tuple[str, tuple[str, int, str]]:
    document, _, statement = number.partition(".")
    return document, natural_order(statement)
