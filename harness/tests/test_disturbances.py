"""What went on beside a sample is recorded and flagged, and nothing is dropped for it."""

import json
from dataclasses import asdict, fields, replace

import pytest

from harness.comparison import compare
from harness.disturbances import Watch, flagged, frequency_hz, ticks
from harness.results import PER_BLOCK, Measurement, Status, read_record

STATISTICS = """cpu  100 0 50 800 0 0 0 50 7 7
cpu0 90 0 10 400 0 0 0 0 7 7
cpu1 10 0 40 400 0 0 0 50 7 7
intr 12345
"""
ROW = Measurement(
    run_id="r", variant="plain", implementation="library", case="n1", case_name="a",
    direction="forward", dtype="float32", device="cpu", threads=1, status=Status.MEASURED,
    block=(0, 1, 2, 3), samples_ns=(10, 11, 12, 13), block_steal_share=(0.0, 0.005, 0.0051, 1.0),
    block_load=(0.5, 1.0, 1.0, 2.0), block_involuntary_switches=(0, 1, 0, 9),
)  # fmt: skip


def test_stolen_ticks_are_those_of_the_processors_that_matter():
    assert ticks(STATISTICS) == (50, 1000)
    assert ticks(STATISTICS, (0,)) == (0, 500)
    assert ticks(STATISTICS, (1,)) == (50, 500)
    assert ticks(STATISTICS, (0, 1)) == (50, 1000)
    assert ticks("cpu0 1 2 3 4\n", (0,)) == (0, 10)
    assert ticks("") == ticks(STATISTICS, (7,)) == (0, 0)


def test_guests_are_not_counted_twice():
    assert ticks("cpu 1 1 1 1 1 1 1 1 100 100\n") == (1, 8)


def test_a_watch_says_what_went_on_since_it_was_last_asked(monkeypatch, tmp_path):
    statistics = tmp_path / "stat"
    monkeypatch.setattr("harness.disturbances.STATISTICS", statistics)
    statistics.write_text("cpu3 0 0 0 100 0 0 0 0\n", encoding="ascii")
    watch = Watch((3,))
    statistics.write_text("cpu3 30 0 0 160 0 0 0 10\n", encoding="ascii")
    assert watch.since().steal_share == 0.1
    assert watch.since().steal_share == 0.0
    statistics.unlink()
    assert Watch((3,)).since().steal_share == 0.0


def test_a_watch_reads_this_machine():
    found = Watch().since()
    assert 0 <= found.steal_share <= 1
    assert found.load >= 0
    assert found.involuntary_switches >= 0
    assert found.clock_hz is None or found.clock_hz > 10**8


def test_a_frequency_is_that_of_the_slowest_processor_or_none(tmp_path):
    for number, kilohertz in enumerate((3_000_000, 2_000_000)):
        (tmp_path / f"{number}").write_text(f"{kilohertz}\n", encoding="ascii")
    path = f"{tmp_path}/{{}}"
    assert frequency_hz((0, 1), path) == 2_000_000_000
    assert frequency_hz((), path) == 3_000_000_000
    assert frequency_hz((5,), path) is None


def test_blocks_with_stolen_time_are_flagged_counted_and_kept():
    assert ROW.stolen_blocks == (2, 3)
    other = replace(ROW, implementation="other", block_steal_share=(0.0,) * 4)
    (row,) = compare([ROW, other], {"plain": "other"})
    assert row.samples == 4
    assert flagged([ROW, other]) == ["2 of 8 sampled blocks saw more than 0.5% of steal"]
    off = replace(other, off_clock_blocks=(1,))
    assert flagged([off]) == ["1 of 4 sampled blocks ran at another frequency than the run"]
    assert flagged([other]) == []


@pytest.mark.parametrize("name", PER_BLOCK)
def test_what_is_recorded_per_block_is_as_long_as_the_blocks(name):
    with pytest.raises(ValueError, match=f"{name} has 1 entries, block 4"):
        replace(ROW, **{name: (1,)})


def test_rows_of_earlier_versions_are_read():
    names = [f.name for f in fields(Measurement)]
    earlier = names[: names.index("proof") + 1]
    data = {name: value for name, value in asdict(ROW).items() if name in earlier}
    found = read_record(Measurement, json.loads(json.dumps(data)), "here")
    assert found.samples_ns == ROW.samples_ns
    assert found.stolen_blocks == found.block_steal_share == ()
    assert found.instructions is found.useful_flop is None


def test_a_row_comes_back_with_everything_that_was_recorded():
    whole = replace(
        ROW, processors=(1,), wall_ns=(1, 2, 3, 4), kernels=("a", "b"), kernel_ns=5,
        useful_flop=2**40, instructions=7,
    )  # fmt: skip
    assert read_record(Measurement, json.loads(json.dumps(asdict(whole))), "here") == whole
