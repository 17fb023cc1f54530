import math
import random
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import clock

ROOT = Path(clock.__file__).resolve().parent.parent


class FakeClock:
    """Takes `cost_ns` per call; `disturbed` holds what single samples take longer."""

    def __init__(self, cost_ns: int, disturbed: Sequence[int] = ()) -> None:
        self.cost_ns, self.disturbed = cost_ns, list(disturbed)
        self.lengths: list[int] = []

    def sample(self, call: clock.Call, batch: Sequence[Any]) -> tuple[int, Any]:
        """Call nothing."""
        del call
        self.lengths.append(len(batch))
        extra = self.disturbed.pop(0) if self.disturbed else 0
        return self.cost_ns * len(batch) + extra, None

    def burn_in(self, seconds: float) -> None:
        """Refuse."""
        raise AssertionError(f"{seconds} s of burn-in were not asked for")


def _batch(count: int) -> list[None]:
    return [None] * count


def test_a_sample_is_the_time_of_the_whole_batch_and_keeps_the_last_result():
    readings = iter([1000, 5500])
    timer = clock.CpuClock(lambda: next(readings))
    assert timer.sample(lambda number: number + 1, [1, 2, 3]) == (4500, 4)


@pytest.mark.parametrize("cost_ns", [20, 700, 50_000, 1_999_999])
def test_calibration_makes_samples_long_enough_and_hardly_longer(cost_ns):
    count = clock.calibrate(FakeClock(cost_ns), lambda _: None, _batch)
    assert clock.TARGET_NS <= count * cost_ns <= clock.HEADROOM * clock.TARGET_NS + cost_ns


def test_a_long_call_is_a_sample_of_its_own():
    timer = FakeClock(clock.TARGET_NS)
    assert clock.calibrate(timer, lambda _: None, _batch) == 1
    assert timer.lengths == [1] * clock.CONFIRMATIONS


def test_a_disturbed_sample_does_not_make_the_others_too_short():
    disturbed = FakeClock(10_000, disturbed=[0, 40_000_000, 0, 9_000_000])
    count = clock.calibrate(disturbed, lambda _: None, _batch)
    assert count * 10_000 >= clock.TARGET_NS


def test_calibration_ends_where_the_clock_stands_still():
    assert clock.calibrate(FakeClock(0), lambda _: None, _batch) >= clock.MOST_CALLS / 10


def test_a_replaced_timer_is_noticed_and_not_used(monkeypatch):
    assert not clock.is_tampered()
    monkeypatch.setattr(time, "perf_counter_ns", lambda: 0)
    assert clock.is_tampered()
    assert clock.CpuClock().sample(lambda _: sum(range(1000)), [None])[0] > 0


def test_only_the_clock_reads_clocks():
    reading = re.compile(
        r"^\s*(import time\b|from time import)|perf_counter|monotonic\(|cuda\.Event"
        r"|process_time",
        re.MULTILINE,
    )
    sources = [
        path
        for package in ("harness", "impls", "properties", "reports")
        for path in (ROOT / package).rglob("*.py")
        if "tests" not in path.parts and path.name not in {"clock.py", "cuda_clock.py"}
    ]
    assert [str(p) for p in sources if reading.search(p.read_text(encoding="utf-8"))] == []


def test_samples_are_parted_into_as_many_turns_by_the_slowest():
    assert clock.turns_of([1, 5_000]) == 1
    assert clock.turns_of([2, 5_000]) == 2
    assert clock.turns_of([23]) == 23  # of 100 us, each longer than a turn has to be
    assert clock.turns_of([2_300]) == 39  # of 1 us, 58 calls in each
    assert clock.turns_of([46], target_ns=4 * clock.TARGET_NS) == 46


def test_in_every_turn_comes_everybody_once():
    found = list(clock.in_turns("abc", 40, random.Random(0)))
    assert [turn for turn, _ in found] == [turn for turn in range(40) for _ in range(3)]
    orders = {"".join(key for _, key in found[i : i + 3]) for i in range(0, 120, 3)}
    assert {"".join(sorted(order)) for order in orders} == {"abc"}
    assert len(orders) == 6


def test_a_disturbed_turn_is_in_the_mean_and_not_in_the_middle():
    assert clock.samples_of([[100, 100, 900], [100, 100, 100]], [10, 5]) == [(10, 37), (20, 20)]


def test_what_slows_a_turn_for_all_divides_out():
    order, pace = random.Random(0), [1.0, 1.2, 1.6, 2.2, 3.0]
    for _ in range(20):
        order.shuffle(pace)  # the middle of each alone would jump with whose turn is hit
        slow, quick = [round(3e5 * p) for p in pace], [round(2e5 * p) for p in pace]
        quick[order.randrange(5)] *= 7
        middles = [sample.middle_ns for sample in clock.samples_of([slow, quick], [1, 1])]
        assert middles[0] / middles[1] == pytest.approx(1.5, rel=1e-5)
        assert min(pace) * 3e5 <= middles[0] <= max(pace) * 3e5


def test_of_two_in_turns_it_is_the_median_of_the_ratios_of_their_turns():
    order = random.Random(1)
    for turns in (1, 2, 7, 40):
        one, two = ([round(1e6 * order.lognormvariate(0, 1)) for _ in range(turns)] for _ in "ab")
        first, second = clock.samples_of([one, two], [1, 1])
        ratios = [math.log(a / b) for a, b in zip(one, two, strict=True)]
        found = math.log(first.middle_ns / second.middle_ns)
        assert found == pytest.approx(statistics.median(ratios), abs=1e-5)


def test_one_turn_is_a_sample_as_it_is():
    assert clock.samples_of([[999], [70], [0]], [9, 7, 5]) == [(111, 111), (10, 10), (0, 0)]
    assert clock.samples_of([], []) == []
