"""Instructions are counted where the machine counts them; where it does not there is no number."""

import pytest
import torch

from harness.instructions import PROCESSOR_NS, Counter, Event, open_counter


@pytest.fixture
def counter():
    try:
        found = Counter(PROCESSOR_NS)
    except OSError as error:
        pytest.skip(f"this system lets nobody count: {error}")
    yield found
    found.close()


def test_more_work_counts_more(counter):
    little, much = (torch.rand(size, size) for size in (32, 512))
    small = counter.per_call(lambda m: m @ m, [little] * 20)
    large = counter.per_call(lambda m: m @ m, [much] * 20)
    assert 0 < small < large


def test_the_count_of_a_call_is_the_mean_over_its_batch(counter, monkeypatch):
    readings = iter([100, 400])
    monkeypatch.setattr(Counter, "read", lambda _: next(readings))
    called = []
    assert counter.per_call(called.append, ["a", "b", "c"]) == 100
    assert called == ["a", "b", "c"]


def test_an_event_that_nobody_counts_is_an_error_with_its_reason():
    with pytest.raises(OSError, match=r"perf_event_open: |no counters on"):
        Counter(Event(kind=0, number=2**20))


def test_without_counters_there_is_none(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "abacus")
    with pytest.raises(OSError, match=r"no counters on .* abacus"):
        Counter()
    assert open_counter() is None


def test_instructions_are_counted_where_the_hardware_is_passed_on():
    found = open_counter()
    if found is None:
        pytest.skip("this machine passes no hardware counter on")
    matrix = torch.rand(256, 256)
    counts = [found.per_call(lambda m: m @ m, [matrix] * 10) for _ in range(3)]
    found.close()
    assert min(counts) > 256**3 / 64
    assert max(counts) < 1.2 * min(counts)
