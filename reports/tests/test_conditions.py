"""Curves block by block are in the order of time, and say what the machine does not tell."""

from __future__ import annotations

import dataclasses
import re

import pytest

from harness.results import LoadedRun, Measurement, Status, load_run
from reports.conditions import MOST, blocks_frame, curve, proofs, traces
from reports.page import render
from reports.tests.sample_run import make_run


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    folder = tmp_path_factory.mktemp("results") / "run-1"
    return load_run(make_run(folder, variants=1, processes=2, blocks=4))


def row(case: str, process: int, *samples: int, clock: int = 0, steal: float = 0.0) -> Measurement:
    count = len(samples)
    return Measurement(
        run_id="run", variant="partial", implementation="eager", case=case, case_name=case,
        direction="forward", dtype="float32", device="cpu", threads=1, process=process,
        block=tuple(range(count)), samples_ns=samples, status=Status.MEASURED,
        block_clock_hz=(clock,) * count if clock else (), block_steal_share=(steal,) * count,
    )  # fmt: skip


def test_blocks_of_one_number_in_groups_taken_one_after_another_are_different_moments() -> None:
    rows = [row("a", 0, 10, 10), row("b", 0, 40, 40), row("a", 1, 30, 30), row("b", 1, 80, 120)]
    found = blocks_frame(rows)
    assert list(found["process"]) == [0, 0, 0, 0, 1, 1, 1, 1]
    # the usual time of a: 20, of b: 70; a slow process shows, whatever is timed in it
    expected = [0.5, 0.5, 40 / 70, 40 / 70, 1.5, 1.5, 80 / 70, 120 / 70]
    assert list(found["relative"]) == pytest.approx(expected)
    assert found["clock_ghz"].isna().all()


def test_a_clock_that_is_read_becomes_a_curve_and_one_that_is_not_a_sentence() -> None:
    read = [row("a", 0, 10, 10, clock=2_000_000_000), row("a", 1, 10, 10, clock=2_500_000_000)]
    clock, silent = (
        next(t for t in traces(blocks_frame(rows)) if t.name == "Clock")
        for rows in (read, [row("a", 0, 10, 10)])
    )
    assert clock.words == "2.00 to 2.50 GHz, median 2.25 GHz"
    assert [len(line.split()) for line in clock.lines] == [2, 2]
    low, high = (float(line.split()[0].split(",")[1]) for line in clock.lines)
    assert low > high  # coordinates count downwards
    assert not silent.lines
    assert silent.words.startswith("not measurable here")


def test_stolen_time_is_counted_block_by_block() -> None:
    rows = [row("a", 0, 10, 10, steal=0.25), row("a", 1, 10, 10)]
    words = next(t.words for t in traces(blocks_frame(rows)) if t.name == "Stolen time")
    assert words == "at most 25 % of a block; above 0.5 % in 2 of 4 blocks"


def test_many_blocks_share_places_and_their_range_stays() -> None:
    rows = [row("a", process, *[100] * 999, 500) for process in range(3)]
    points = curve(blocks_frame(rows), "relative")
    assert len(points) <= MOST + 3
    assert points["high"].max() == pytest.approx(5.0)
    assert points["middle"].max() == pytest.approx(1.0)
    assert list(points["place"]) == sorted(points["place"])


def test_the_page_draws_what_was_read_and_says_what_was_not(loaded: LoadedRun) -> None:
    text = render(loaded)
    assert "the system does not tell its frequency" in text
    assert "Clock of the machine in time order" not in text
    rows = [
        dataclasses.replace(
            one,
            block_clock_hz=tuple(2_100_000_000 + 10**6 * b for b in one.block),
            block_power_w=tuple(300.0 + b for b in one.block),
        )
        for one in loaded.measurements
    ]
    text = render(dataclasses.replace(loaded, measurements=tuple(rows)))
    assert "Clock of the machine in time order" in text
    assert "2.10 to 2.10 GHz" in text
    assert "300 to 303 W, median" in text
    # pace, clock and power; no steal was read
    assert len(re.findall(r'<svg class="spark"', text)) == 3


def test_what_was_checked_is_counted(loaded: LoadedRun) -> None:
    said = proofs(loaded)
    assert "44 of 44 timed results agree with the oracle" in said
    assert any("1 mistrusted" in one for one in said)
    assert "no law was judged in this run" in proofs(dataclasses.replace(loaded, verdicts=()))


def test_a_result_that_one_process_refuted_does_not_agree(loaded: LoadedRun) -> None:
    first = next(one for one in loaded.measurements if one.samples_ns and not one.placebo)
    refuted = dataclasses.replace(
        first, process=99, status=Status.REFUTED, reason="wrong", block=(), samples_ns=(),
        block_clock_hz=(), block_steal_share=(),
    )  # fmt: skip
    spoiled = dataclasses.replace(loaded, measurements=(*loaded.measurements, refuted))
    assert "43 of 44 timed results agree with the oracle" in proofs(spoiled)
