"""How hard a law is tried: the profiles of a search."""

from __future__ import annotations

from dataclasses import dataclass

# A law that wants fewer cases than this share costs seconds a case: compiling, exporting.
COSTLY = 0.1


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
        thorough: Whether costly laws, too, are judged, and every law in every dtype and rank.
        evenly: Whether every law but costly ones gets as many cases as any other, whatever its
            own share.
    """

    cases: int
    seed: int | None = 0
    dtypes: tuple[str, ...] = ("float32", "float64", "bfloat16", "float16")
    values: int = 1
    shrink: bool = True
    thorough: bool = True
    evenly: bool = False


PROFILES = {
    "quick": Profile(cases=12, dtypes=("float32", "float64")),
    "dev": Profile(cases=12, seed=None, thorough=False),
    "ci": Profile(cases=60),
    "soak": Profile(cases=252, seed=None, values=4, evenly=True),
    "deep": Profile(cases=400, seed=None, values=16),
}
