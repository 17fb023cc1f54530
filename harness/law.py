"""A law: a statement about every case of every variant that claims its traits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.case import DTYPES, ConvCase
from harness.variant import Ability, Need, Trait

if TYPE_CHECKING:
    from harness.check import Trial

LOW_PRECISION = ("bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A checkable statement.

    Args:
        id: As in the catalogue, e.g. `P1`.
        aliases: Ids of the catalogue that this law covers as well.
        name: A sentence without a subject, e.g. `linear_in_signal`.
        statement: The law in one line, as an equation if it has one.
        domain: Where it holds, in words.
        requires: Traits that a variant must claim.
        check: Raises `harness.truth.Refuted` where the law fails.
        within: Moves a drawn case into the law's domain; None where that cannot be.
        outside: Moves a drawn case just outside a sharp domain, where the law must fail for some
            case of every variant that claims it; None where that cannot be.
        share: Which share of a profile's cases it gets: less than 1 for a costly law.
        zero_is_right: Whether outputs that are mostly zeros are what the law is about.
        about_oracle: Whether it says something that agreement with the oracle does not, so that it
            is checked on the oracle too.
        of_layers: Whether it is about layers: it meets only implementations that have one.
        of_costs: The field of `harness.variant.Cost` that it is about: it meets only
            implementations, and cases, that declare theirs.
        ability: What it asks of an implementation, which may declare that it lacks it.
        needs: What the machine must have.
        dtypes: Those that it is judged in; `domain` says why not all.
        rounds: Whether it holds for values that low precision rounds. Most laws form new inputs
            from old ones, which must be exact: in low precision they see whole numbers alone.
    """

    id: str
    name: str
    statement: str
    check: Callable[[Trial], None]
    domain: str = "every case"
    aliases: tuple[str, ...] = ()
    requires: frozenset[Trait] = frozenset()
    within: Callable[[ConvCase], ConvCase | None] | None = None
    outside: Callable[[ConvCase], ConvCase | None] | None = None
    share: float = 1.0
    zero_is_right: bool = False
    about_oracle: bool = True
    of_layers: bool = False
    of_costs: str = ""
    ability: Ability | None = None
    needs: frozenset[Need] = frozenset()
    dtypes: tuple[str, ...] = DTYPES
    rounds: bool = False

    def place(self, case: ConvCase) -> ConvCase | None:
        """Return `case` moved into the domain, or None."""
        if case.dtype not in self.dtypes:
            return None
        inside = self.within(case) if self.within else case
        if inside is None or self.rounds or inside.is_exact or inside.dtype not in LOW_PRECISION:
            return inside
        return replace(inside, fill="exact")


def natural_order(law_id: str) -> tuple[str, int, str]:
    """Return the key that sorts ids as a reader would: G1, G1b, G2, G10."""
    match = re.fullmatch(r"(\D*)(\d*)(.*)", law_id)
    assert match is not None
    letters, number, rest = match.groups()
    return letters, int(number or 0), rest
