"""A law: a statement about every case of every variant that claims its traits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.case import ConvCase
from harness.variant import Trait

if TYPE_CHECKING:
    from harness.check import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A checkable statement.

    Args:
        id: As in the catalogue, e.g. `P1`.
        name: A sentence without a subject, e.g. `linear_in_signal`.
        statement: The law in one line, as an equation if it has one.
        domain: Where it holds, in words.
        requires: Traits that a variant must claim.
        check: Raises `harness.check.Refuted` where the law fails.
        within: Moves a drawn case into the law's domain; None where that cannot be.
        share: Which share of a profile's cases it gets: less than 1 for a costly law.
        zero_is_right: Whether outputs that are mostly zeros are what the law is about.
        about_oracle: Whether it says something that agreement with the oracle does not, so that it
            is checked on the oracle too.
    """

    id: str
    name: str
    statement: str
    check: Callable[[Trial], None]
    domain: str = "every case"
    requires: frozenset[Trait] = frozenset()
    within: Callable[[ConvCase], ConvCase | None] | None = None
    share: float = 1.0
    zero_is_right: bool = False
    about_oracle: bool = True


def natural_order(law_id: str) -> tuple[str, int, str]:
    """Return the key that sorts ids as a reader would: G1, G1b, G2, G10."""
    match = re.fullmatch(r"(\D*)(\d*)(.*)", law_id)
    assert match is not None
    letters, number, rest = match.groups()
    return letters, int(number or 0), rest
