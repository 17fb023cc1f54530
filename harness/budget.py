"""The seconds of a benchmark run: what every stage may take, and what is left to those after it.

A run is started to get times. So whatever comes first leaves what a first timing process needs, and
nothing is started that could not get anything done before its end. All of it is reckoned in starts:
how long this process took to import what it needs says how long others will, now, on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness import clock
from harness.plan import GroupKey
from harness.sampling import WARM_UP_CALLS

LEAST_BLOCKS = 3
START_S = 4.0
"""How long a process takes to start where that was not seen."""
SERVER, PROOFS, SAMPLES, PAGE, FILE = 1.0, 0.5, 1.25, 1.25, 1.25
"""What these take at least, in starts: the fork server, the oracle with a first proof, a process
that times something, the page, and pytest-benchmark's file beside it."""
LAWS_SHARE = 0.4
"""Which share laws may take of what no later stage needs."""
CEILINGS_SHARE = 0.1
PROOFS_SHARE = 0.6
BESIDE_NS = 5_000_000
"""What looking after a sample takes beside it: fresh values, the right answer, a comparison."""
ON_A_DEVICE = 4.0
"""How many times longer a block takes there: the host's clock, and a rest after either sample."""


class Budget:
    """Time left, and how many blocks it pays for.

    Args:
        seconds: From `began_s` on; None = no limit.
        began_s: Moment of `now`; the present if not given.
        start_s: How long a process takes to start; 0 = not seen.
        now: The clock.
    """

    def __init__(
        self, seconds: float | None, began_s: float | None = None, start_s: float = 0.0,
        now: Callable[[], float] = clock.monotonic_s,
    ) -> None:  # fmt: skip
        self._now = now
        self._start = now() if began_s is None else began_s
        self.seconds, self.start_s = seconds, start_s or START_S
        self._pace, self._server, self._file_s = 1.0, SERVER, 0.0

    def without_closing(self, share: float = 1.0) -> Budget:
        """Return the budget of what is measured: so much of all but what the closing takes."""
        found = Budget(None, self._start, self.start_s, self._now)
        if self.seconds is not None:
            page_s, file_s = (min(n * self.start_s, self.seconds / 4) for n in (PAGE, FILE))
            found.seconds, found._file_s = share * (self.seconds - page_s - file_s), file_s
        return found

    def borrow(self) -> None:
        """Let pytest-benchmark's file give way: it can be made later, a proof and a time cannot."""
        if self.seconds is not None:
            self.seconds, self._file_s = self.seconds + self._file_s, 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds left, None without a limit."""
        return None if self.seconds is None else self.seconds - (self._now() - self._start)

    @property
    def deadline_s(self) -> float | None:
        """Moment of `clock.monotonic_s` when the budget ends."""
        return None if self.seconds is None else self._start + self.seconds

    def stage(
        self, share: float, *, own: float = 0.0, later: float = 0.0, is_needed: bool = False
    ) -> float | None:
        """Return how many seconds a stage may take: None = any, 0 = it is not to begin.

        The first one that begins waits for the fork server, too.

        Args:
            share: Of what neither this stage needs at least nor those after it.
            own: What it needs at least, in starts.
            later: What those after it need at least, in starts.
            is_needed: Whether those after it come to nothing without it: it then begins also where
                there is less than it is reckoned to need.
        """
        if self.left_s is None:
            return None
        own_s, later_s = (own + self._server) * self.start_s, later * self.start_s
        if is_needed and self.left_s < own_s + later_s:
            self.borrow()
        spare_s = self.left_s - own_s - later_s
        if spare_s <= 0 and not is_needed:
            return 0.0
        self._server = 0.0
        return max(own_s + (share * spare_s if spare_s > 0 else spare_s), 0.0)

    def can_sample(self, cheapest_s: float) -> bool:
        """Return whether one more process could time the group that takes least."""
        return self.left_s is None or self.left_s > self._pace * (
            SAMPLES * self.start_s + cheapest_s
        )

    def blocks(
        self, calls_ns: Mapping[GroupKey, Sequence[int]], rounds: int, most: int,
        device: str = "cpu",
    ) -> int:  # fmt: skip
        """Return how many blocks a process may take when `rounds` of them are still to run."""
        if self.left_s is None:
            return most
        fixed = self.start_s + sum(fixed_s(calls, device) for calls in calls_ns.values())
        each_block = sum(block_s(calls, device) for calls in calls_ns.values())
        least = min(LEAST_BLOCKS, most)
        # processes that the time does not suffice for leave theirs to the others
        possible = int(self.left_s / self._pace / max(fixed + least * each_block, 1e-9))
        share_s = self.left_s / max(min(rounds, possible), 1)
        able = (share_s / self._pace - fixed) / max(each_block, 1e-9)
        return max(min(most, int(able)), least)

    def learn(self, expected_s: float, actual_s: float) -> None:
        """Take note how long a process took against what was expected."""
        self._pace *= min(max(actual_s / max(expected_s, 1e-9), 0.2), 5.0)


def block_s(calls_ns: Sequence[int], device: str = "cpu") -> float:
    """Return the seconds of one block of contenders with these times per call."""
    each = sum(max(clock.HEADROOM * clock.TARGET_NS, call) + BESIDE_NS for call in calls_ns) / 1e9
    return each if device == "cpu" else ON_A_DEVICE * each


def fixed_s(calls_ns: Sequence[int], device: str = "cpu") -> float:
    """Return the seconds a group takes beside its blocks: warming up, calibrating, checking."""
    return 0.02 + 2 * block_s(calls_ns, device) + (WARM_UP_CALLS + 1) * sum(calls_ns) / 1e9


def group_s(calls_ns: Sequence[int], blocks: int, device: str = "cpu") -> float:
    """Return the seconds a group takes in one process."""
    return fixed_s(calls_ns, device) + blocks * block_s(calls_ns, device)
