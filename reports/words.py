"""Words, marks and numbers as the page writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from harness.comparison import Speed
from harness.results import Outcome, Status

ICONS: Mapping[str, str] = {
    Speed.FASTER: "◂", Speed.SLOWER: "▸", Speed.SAME: "■", Speed.UNRESOLVED: "○",
    Outcome.HOLDS: "✓", Outcome.REFUTED: "✗", Outcome.UNSUPPORTED: "–",
    Outcome.MISTRUSTED: "?", Outcome.CRASHED: "!",
    Status.MEASURED: "✓", Status.NOT_SELECTED: "·", Status.TIMED_OUT: "…",
    Status.OUT_OF_MEMORY: "▣", Status.THROTTLED: "≈", Status.NO_TIME: "·",
}  # fmt: skip
Place = tuple[str, int, str]
"""Where and how something ran: a device, a number of threads, and flags."""

DIRECTIONS = {"forward": "forward", "backward": "forward + backward"}


def format_time(nanoseconds: float | None) -> str:
    """Return a duration with three significant digits and its unit."""
    if nanoseconds is None or math.isnan(nanoseconds):
        return ""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{_three(nanoseconds / size)} {unit}"
    return f"{nanoseconds:.0f} ns"


def format_bytes(count: float | None) -> str:
    """Return a size with three significant digits and its unit, in powers of 1024."""
    if count is None or math.isnan(count):
        return ""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{_three(count / size)} {unit}"
    return f"{count:.0f} B"


def format_ratio(ratio: float | None) -> str:
    """Return a ratio with three significant digits, never fewer than two decimals below 10."""
    if ratio is None or math.isnan(ratio):
        return ""
    if ratio >= 1e4:
        return f"{ratio:.1e}"
    return f"{ratio:.3f}" if ratio < 2 else f"{ratio:.2f}" if ratio < 10 else _three(ratio)


def format_percent(fraction: float | None) -> str:
    """Return a fraction as per cent with two significant digits."""
    if fraction is None or math.isnan(fraction):
        return ""
    return f"{100 * fraction:.2g} %" if abs(fraction) < 0.1 else f"{100 * fraction:.0f} %"


def direction(name: str) -> str:
    """Return the words for a direction."""
    return DIRECTIONS.get(name, name)


def threads(counts: Iterable[int]) -> str:
    """Return the words for the numbers of threads that something ran with."""
    *few, most = sorted(set(counts))
    joined = f"{', '.join(map(str, few))} and {most}" if few else str(most)
    return f"{joined} thread{'s' * (bool(few) or most != 1)}"


def place_labels(places: Iterable[Place]) -> dict[Place, str]:
    """Return the words that tell places apart, empty where there is only one.

    They name device and threads, and those flags in which places of equal ones differ.
    """
    found = {place: set(place[2].split(",")) - {""} for place in places}
    if len(found) < 2:
        return dict.fromkeys(found, "")
    alike: dict[tuple[str, int], list[set[str]]] = {}
    for (device, count, _), flags in found.items():
        alike.setdefault((device, count), []).append(flags)
    common = {where: set.intersection(*sets) for where, sets in alike.items()}
    return {
        place: ", ".join([place[0], threads([place[1]]), *sorted(flags - common[place[:2]])])
        for place, flags in found.items()
    }


def word(name: str) -> str:
    """Return a member of an enumeration as words."""
    return name.lower().replace("_", " ")


def no_claim(doubt: str, baseline_doubt: str) -> str:
    """Return in words why a comparison claims nothing, empty where it may.

    Args:
        doubt: The outcome that keeps the implementation itself from claiming, if any.
        baseline_doubt: The same of what it is compared with.
    """
    return word(doubt) if doubt else f"baseline {word(baseline_doubt)}" if baseline_doubt else ""


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
