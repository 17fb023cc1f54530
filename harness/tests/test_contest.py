"""Contests that begin with different names are each divided by their own first."""

import gc
import random

from harness import clock, contest
from harness.clock import CpuClock, Sample
from harness.comparison import compare
from harness.contest import Entry


def test_every_contest_is_divided_by_its_own_first():
    rows = [
        row
        for process in range(2)
        for case, names in (("one", ("a", "b")), ("two", ("b", "a")))
        for row in contest._rows(
            Entry("m:f", case), process, 1,
            {
                (names[0], False): (1, [Sample(100, 100)]),
                (names[1], False): (1, [Sample(200, 200)]),
                (names[0], True): (1, [Sample(100, 100)]),
            },
        )
    ]  # fmt: skip
    found = {(row.case, row.placebo): row for row in compare(rows)}
    assert found["one", False].baseline == "a"
    assert found["two", False].baseline == "b"
    assert [row.ratio for row in found.values()] == [2.0, 1.0, 2.0, 1.0]


def test_whichever_device_is_timed_is_burnt_in_once_a_process(monkeypatch):
    burnt = []

    class Timer(CpuClock):
        def __init__(self, device):
            super().__init__()
            self.device = device

        def burn_in(self, seconds):
            burnt.append(self.device)
            assert seconds > 0

    monkeypatch.setattr(clock, "make_clock", Timer)
    monkeypatch.setattr(contest, "contest_of", lambda _: {"a": lambda: None})
    pinned = []
    monkeypatch.setattr(contest.os, "sched_setaffinity", lambda *given: pinned.append(given))
    sample = contest.session(contest.Heat(0, contest.Rules(1, 1), 0, (7,)), None)
    for device in ("cuda", "cuda", "cpu"):
        sample(Entry("m:f", "x", device))
    assert burnt == ["cuda", "cpu"]
    assert pinned == [(0, (7,))]


def test_every_block_holds_one_sample_of_each_and_the_placebo():
    now, calls, collecting = [0], [], []

    def takes(name, ns):
        def run():
            collecting.append(gc.isenabled())
            calls.append(name)
            now[0] += ns

        return run

    pair = {"slow": takes("slow", 4_000_000), "quick": takes("quick", 2_500_000)}
    found = contest.sampled(pair, CpuClock(lambda: now[0]), 3, random.Random(0))
    slow, quick = Sample(4_000_000, 4_000_000), Sample(2_500_000, 2_500_000)
    assert found == {
        ("slow", False): (1, [slow] * 3),
        ("quick", False): (1, [quick] * 3),
        ("slow", True): (1, [slow] * 3),
    }
    assert not any(collecting[-9:])
    assert gc.isenabled()
    last = calls[-9:]
    assert all(sorted(last[i : i + 3]) == ["quick", "slow", "slow"] for i in (0, 3, 6))


def test_samples_of_short_calls_are_taken_in_turns():
    now, calls = [0], []

    def takes(name, ns, every=0, more=0):
        def run():
            calls.append(name)
            rare = every and calls.count(name) % every == 0
            now[0] += ns + (more if rare else 0)

        return run

    pair = {"slow": takes("slow", 400_000), "rarely": takes("rarely", 40_000, 30, 600_000)}
    found = contest.sampled(pair, CpuClock(lambda: now[0]), 4, random.Random(0))
    count, samples = found["slow", False]
    turns = 6  # 2.3 ms by calls of 0.4 ms, a turn each
    assert (count, samples) == (turns, [Sample(400_000, 400_000)] * 4)
    last = calls[-turns * (2 + found["rarely", False][0] // turns) :]
    assert {"slow", "rarely"} == set(last[: len(last) // turns])
    # what happens once in thirty calls is not in the middle turn, but in the whole
    count, samples = found["rarely", False]
    assert count % turns == 0
    assert max(sample.middle_ns for sample in samples) < 60_000
    assert max(sample.mean_ns for sample in samples) > 50_000
