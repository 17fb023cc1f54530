"""Comparisons of synthetic rows whose true ratio is known."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable
from typing import Any

import pytest
from scipy import stats

from harness import inference
from harness.comparison import (
    Comparison,
    Speed,
    compare,
    deciding_row,
    summarize,
    summarize_placebo,
)
from harness.results import Measurement, Status

BLOCKS = 15


def row(samples: Iterable[int] = (), **changes: Any) -> Measurement:
    samples = tuple(samples)
    values: dict[str, Any] = {
        "run_id": "r", "variant": "partial", "implementation": "eager", "case": "n1", "case_name": "a",
        "direction": "forward", "dtype": "float32", "device": "cpu", "threads": 1,
        "status": Status.MEASURED if samples else Status.CRASHED,
        "block": tuple(range(len(samples))), "samples_ns": samples,
    }  # fmt: skip
    return Measurement(**(values | changes))


def cell(
    draw: random.Random, ratios: dict[str, float], *, processes: int = 5, **changes: Any
) -> list[Measurement]:
    """Rows of one cell: noise common to a block, a bias of the process, noise of the sample."""
    rows = []
    for process in range(processes):
        pace = [1e7 * draw.lognormvariate(0, 0.3) for _ in range(BLOCKS)]
        for name, ratio in ratios.items():
            bias = ratio * draw.lognormvariate(0, 0.004)
            samples = [round(p * bias * draw.lognormvariate(0, 0.01)) for p in pace]
            rows.append(row(samples, implementation=name, process=process, **changes))
    return rows


def only(rows: Iterable[Comparison]) -> Comparison:
    (found,) = rows
    return found


def test_a_planted_ratio_is_found_with_its_interval() -> None:
    draw = random.Random(1)
    found = only(compare(cell(draw, {"eager": 1.0, "by_taps": 0.7}), {"partial": "eager"}))
    assert found.verdict is Speed.FASTER
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    assert found.ratio_low < 0.7 < found.ratio_high
    assert found.ratio_high / found.ratio_low < 1.05
    assert (found.processes, found.samples, found.baseline) == (5, 5 * BLOCKS, "eager")
    slower = only(compare(cell(draw, {"eager": 1.0, "by_taps": 1.4}), {"partial": "eager"}))
    assert slower.verdict is Speed.SLOWER


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draw = random.Random(2)
    trials, truth = 400, 0.9
    hits = 0
    for _ in range(trials):
        found = only(compare(cell(draw, {"eager": 1.0, "b": truth}), {"partial": "eager"}))
        assert found.ratio_low is not None
        assert found.ratio_high is not None
        hits += found.ratio_low <= truth <= found.ratio_high
    low, high = stats.binom.interval(0.999, trials, 0.95)
    assert low <= hits <= high


def test_identical_code_raises_no_more_alarms_than_the_level_allows() -> None:
    draw = random.Random(3)
    trials = 400
    alarms = excluded = 0
    for _ in range(trials):
        # A wide bias of the process keeps the tests of sameness from hiding alarms.
        found = only(compare(_noisy_pair(draw), {"partial": "eager"}))
        alarms += found.verdict in (Speed.FASTER, Speed.SLOWER)
        assert found.p_value is not None
        excluded += found.p_value <= 0.05
    bound = stats.binom.ppf(0.999, trials, 0.05)
    assert 0 < excluded <= bound
    assert alarms <= bound


def _noisy_pair(draw: random.Random) -> list[Measurement]:
    return [
        row(
            [round(1e7 * draw.lognormvariate(0, 0.1)) for _ in range(3)],
            implementation=name,
            process=p,
        )
        for p in range(5)
        for name in ("eager", "b")
    ]


def test_many_rows_of_identical_code_are_adjusted_together() -> None:
    draw = random.Random(4)
    rows = []
    for number in range(200):
        pair = _noisy_pair(draw)
        rows += [row(m.samples_ns, implementation=m.implementation, process=m.process, case_name=f"{number}", case=f"n{number}") for m in pair]  # fmt: skip
    found = compare(rows, {"partial": "eager"})
    assert sum(r.p_value is not None and r.p_value <= 0.05 for r in found) > 1
    # All hypotheses are null, so the chance of even one alarm is at most 5 %; this seed has none.
    assert [r for r in found if r.verdict in (Speed.FASTER, Speed.SLOWER)] == []


def test_noise_common_to_a_block_divides_out() -> None:
    pace = [10**6 * (block % 7 + 1) for block in range(BLOCKS)]
    rows = [
        row([scale * p for p in pace], implementation=name, process=process)
        for process in range(3)
        for name, scale in (("eager", 4), ("b", 3))
    ]
    found = only(compare(rows, {"partial": "eager"}))
    assert found.ratio == pytest.approx(0.75)
    assert found.ratio_low == pytest.approx(0.75)
    assert found.ratio_high == pytest.approx(0.75)


def test_samples_pair_by_block_whatever_their_order() -> None:
    rows = []
    for process in range(3):
        rows += [
            row([100, 1000, 5000], process=process),
            row([500, 50], implementation="b", process=process, block=(1, 0)),
        ]
    found = only(compare(rows, {"partial": "eager"}))
    assert found.ratio == pytest.approx(0.5)
    assert found.samples == 6


def test_equal_times_are_the_same_within_the_margin() -> None:
    draw = random.Random(5)
    rows = cell(draw, {"eager": 1.0, "b": 1.004})
    found = only(compare(rows, {"partial": "eager"}))
    assert found.verdict is Speed.SAME
    assert "within 3% of 1" in found.why
    strict = only(compare(rows, {"partial": "eager"}, margin=0.001))
    assert strict.verdict is not Speed.SAME


def test_one_process_gives_a_ratio_but_no_interval() -> None:
    draw = random.Random(6)
    found = only(compare(cell(draw, {"eager": 1.0, "b": 0.2}, processes=1), {"partial": "eager"}))
    assert found.verdict is Speed.UNRESOLVED
    assert found.ratio == pytest.approx(0.2, rel=0.1)
    assert found.ratio_low is found.p_value is None
    assert "an interval takes two processes" in found.why


def test_wide_intervals_are_unresolved_and_say_so() -> None:
    rows = []
    for process, scale in enumerate((0.5, 1.0, 2.0)):
        rows += [
            row([10**6] * 4, process=process),
            row([round(scale * 10**6)] * 4, implementation="b", process=process),
        ]
    found = only(compare(rows, {"partial": "eager"}))
    assert found.verdict is Speed.UNRESOLVED
    assert "holds 1 and reaches beyond the margin of 3%" in found.why


def test_geometric_means_are_not_fooled_by_reciprocal_ratios() -> None:
    draw = random.Random(7)
    rows = cell(draw, {"eager": 1.0, "b": 0.5}, case="n1") + cell(
        draw, {"eager": 1.0, "b": 2.0}, case="n2", case_name="b"
    )
    (mean,) = summarize(compare(rows, {"partial": "eager"}))
    # The arithmetic mean of 0.5 and 2 is 1.25, whichever of the two is called the baseline.
    assert mean.ratio == pytest.approx(1.0, abs=0.02)
    assert (mean.faster, mean.slower, mean.counted, mean.cells) == (1, 1, 2, 2)
    (back,) = summarize(compare(rows, {"partial": "b"}))
    assert mean.ratio is not None
    assert back.ratio == pytest.approx(1 / mean.ratio)


@pytest.mark.parametrize(
    "status", [s for s in Status if s not in {Status.MEASURED, Status.THROTTLED}]
)
def test_a_cell_that_failed_is_not_counted_as_one(status: Status) -> None:
    draw = random.Random(8)
    rows = cell(draw, {"eager": 1.0, "b": 0.5})
    rows += cell(draw, {"eager": 1.0}, case="n2", case_name="b")
    rows += [
        row(case="n2", case_name="b", implementation="b", status=status, reason="for a reason")
    ]
    good, failed = compare(rows, {"partial": "eager"})
    assert failed.ratio is failed.ratio_low is failed.median_ns is None
    assert failed.verdict is Speed.UNRESOLVED
    assert failed.why == f"no ratio: {status}, for a reason"
    (mean,) = summarize([good, failed])
    assert mean.ratio == pytest.approx(good.ratio)
    assert mean.counted == 1
    assert mean.cells == (1 if status is Status.NOT_SELECTED else 2)


def test_a_cold_and_a_hot_cache_are_means_of_their_own() -> None:
    draw = random.Random(12)
    rows = [
        dataclasses.replace(one, flags=flags)
        for flags, ratio in (("l2=cold", 0.5), ("l2=hot", 2.0))
        for one in cell(draw, {"eager": 1.0, "b": ratio})
    ]
    means = {mean.place[-1]: mean.ratio for mean in summarize(compare(rows, {"partial": "eager"}))}
    assert means == pytest.approx({"l2=cold": 0.5, "l2=hot": 2.0}, rel=0.1)


def test_a_refuted_process_takes_the_ratio_from_the_others() -> None:
    rows = cell(random.Random(9), {"eager": 1.0, "b": 0.1})
    rows += [row(implementation="b", process=9, status=Status.REFUTED, reason="zeros")]
    found = only(compare(rows, {"partial": "eager"}))
    assert found.ratio is found.median_ns is found.p_value is None
    assert found.process_ratios == ()
    assert found.why == "no ratio: REFUTED, zeros"


def test_a_crashed_process_leaves_a_ratio_that_is_not_judged() -> None:
    rows = cell(random.Random(10), {"eager": 1.0, "b": 0.1})
    rows += [row(implementation="b", process=9, status=Status.CRASHED, reason="killed")]
    found = only(compare(rows, {"partial": "eager"}))
    assert found.ratio == pytest.approx(0.1, rel=0.1)
    assert found.verdict is Speed.UNRESOLVED
    assert found.p_adjusted is None
    assert found.why.startswith("ratio 0.09967 over 5 processes")
    assert found.why.endswith(", not judged: CRASHED, killed")
    (mean,) = summarize([found])
    assert mean.ratio is None
    assert "no ratio in any of 1 cells" in mean.why


def test_a_missing_baseline_is_named() -> None:
    draw = random.Random(11)
    found = only(compare(cell(draw, {"b": 1.0}), {"partial": "eager"}))
    assert found.ratio is None
    assert found.why == "no ratio: baseline eager was not measured in this cell"
    rows = [*cell(draw, {"b": 1.0}), row(status=Status.TIMED_OUT, reason="60 s")]
    assert (
        only(compare(rows, {"partial": "eager"})).why == "no ratio: baseline eager: TIMED_OUT, 60 s"
    )


def test_a_timer_too_coarse_gives_no_ratio() -> None:
    rows = [row([5, 5], process=p) for p in range(3)]
    rows += [row([0, 1], implementation="b", process=p) for p in range(3)]
    found = only(compare(rows, {"partial": "eager"}))
    assert found.ratio is None
    assert found.why == "no ratio: no block of any process holds a usable sample of both"


@pytest.mark.parametrize("name", ["eager", "eager_again"])
def test_the_placebo_bounds_what_the_run_can_tell(name: str) -> None:
    draw = random.Random(12)
    rows = cell(draw, {"eager": 1.0, "b": 0.5})
    paired = [m for m in rows if m.implementation == "eager"]
    rows += [
        row(
            [round(s * 1.02) for s in m.samples_ns],
            implementation=name,
            process=m.process,
            placebo=True,
        )
        for m in paired
    ]
    found = compare(rows, {"partial": "eager"})
    assert [r.placebo for r in found] == [False, True]
    placebo = summarize_placebo(found)
    assert placebo.worst is not None
    assert placebo.worst.ratio == pytest.approx(1.02, rel=1e-6)
    assert placebo.rows == 1
    assert placebo.detectable_worst is not None
    assert 0 < placebo.detectable_worst < 0.02
    assert [mean.implementation for mean in summarize(found)] == ["b"]


def test_without_a_choice_the_placebo_names_the_baseline() -> None:
    draw = random.Random(13)
    rows = cell(draw, {"b": 0.5, "eager": 1.0})
    rows += cell(draw, {"eager": 1.0}, placebo=True)
    assert {r.baseline for r in compare(rows)} == {"eager"}
    assert {r.baseline for r in compare(rows[:10])} == {"b"}
    assert summarize_placebo([]).worst is None


def test_a_later_row_of_the_same_process_replaces_the_earlier() -> None:
    rows = [row(implementation="b", process=p) for p in range(5)]
    rows += cell(random.Random(14), {"eager": 1.0, "b": 0.5})
    found = only(compare(rows, {"partial": "eager"}))
    assert (found.verdict, found.processes) == (Speed.FASTER, 5)


@pytest.mark.parametrize(
    "change", [{"dtype": "float16"}, {"threads": 2}, {"flags": "tf32"}, {"direction": "backward"}]
)
def test_cells_of_different_settings_are_never_compared(change: dict[str, Any]) -> None:
    draw = random.Random(15)
    rows = cell(draw, {"eager": 1.0, "b": 0.5}) + cell(draw, {"eager": 100.0, "b": 50.0}, **change)
    ratios = [r.ratio for r in compare(rows, {"partial": "eager"})]
    assert ratios == pytest.approx([0.5, 0.5], rel=0.05)


def test_memory_is_averaged_geometrically_where_both_were_measured() -> None:
    draw = random.Random(16)
    rows = []
    for name, mine in (("a", 50), ("b", 200), ("c", None)):
        rows += cell(draw, {"eager": 1.0}, case=name, case_name=name, peak_bytes=100)
        rows += cell(draw, {"b": 1.0}, case=name, case_name=name, peak_bytes=mine)
    (mean,) = summarize(compare(rows, {"partial": "eager"}))
    assert mean.memory_ratio == pytest.approx(1.0)
    assert mean.memory_cells == 2


def test_processes_that_missed_a_cell_are_left_out_of_the_interval() -> None:
    draw = random.Random(17)
    rows = cell(draw, {"eager": 1.0, "b": 0.5}) + cell(
        draw, {"eager": 1.0, "b": 0.5}, processes=3, case="n2", case_name="b"
    )
    (mean,) = summarize(compare(rows, {"partial": "eager"}))
    assert mean.processes == 3
    assert mean.ratio_low is not None
    apart = [m for m in rows if (m.process < 2) == (m.case == "n1")]
    (mean,) = summarize(compare(apart, {"partial": "eager"}))
    assert mean.ratio == pytest.approx(0.5, rel=0.05)
    assert (mean.processes, mean.ratio_low, mean.counted) == (0, None, 2)


def test_a_baseline_that_crashed_once_keeps_the_cell_out_of_the_mean() -> None:
    rows = cell(random.Random(18), {"eager": 1.0, "b": 0.5})
    found = only(compare([*rows, row(process=9, reason="killed")], {"partial": "eager"}))
    assert found.why.endswith("not judged: baseline eager: CRASHED, killed")
    (mean,) = summarize([found])
    assert (mean.counted, mean.cells, mean.ratio) == (0, 1, None)


def test_the_deciding_row_is_a_failure_if_there_is_one() -> None:
    measured, crashed = row([1, 2]), row(reason="killed")
    skipped = row(status=Status.NOT_SELECTED)
    assert deciding_row([measured, crashed, skipped]) is crashed
    assert deciding_row([skipped, measured]) is measured


def test_ratios_are_never_averaged_arithmetically() -> None:
    rows = []
    for process, scale in enumerate((1, 4, 16)):
        rows += [row([100] * 3, process=process)]
        rows += [row([100 * scale] * 3, implementation="b", process=process)]
    found = only(compare(rows, {"partial": "eager"}))
    assert found.ratio == pytest.approx(4.0)
    assert math.sqrt((found.ratio_low or 0) * (found.ratio_high or 0)) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("mean", "half", "needed"),
    [(0.01, 0.05, 33), (0.0, 0.02, 6), (0.1, 0.11, 7)],
)
def test_an_unresolved_row_says_how_many_processes_would_tell(mean, half, needed):
    estimate = inference.Estimate(mean=mean, count=5, half=half)
    assert inference.processes_needed(estimate, margin=0.03) == needed


def _uneven(rare: float, processes: int = 5) -> Comparison:
    """Compare what is as quick in its middle turns, and by `rare` slower in whole samples."""
    draw, rows = random.Random(3), []
    for found in cell(draw, {"eager": 1.0, "lazy": 0.8}, processes=processes):
        extra = rare if found.implementation == "lazy" else 1.0
        means = tuple(round(ns * extra * draw.lognormvariate(0.1, 0.02)) for ns in found.samples_ns)
        rows.append(dataclasses.replace(found, mean_ns=means))
    return only(compare(rows, {"partial": "eager"}))


def test_work_that_only_some_calls_do_is_judged_by_whole_samples() -> None:
    even, lazy = _uneven(1.0), _uneven(1.5)
    assert (even.verdict, lazy.verdict) == (Speed.FASTER, Speed.SLOWER)
    assert even.ratio == pytest.approx(0.8, rel=0.02)
    assert "uneven" not in even.why
    assert lazy.ratio == pytest.approx(1.2, rel=0.02)
    assert "by whole samples, as calls cost unevenly: 0.7996" in lazy.why
    assert lazy.median_ns
    assert even.median_ns
    assert lazy.median_ns / even.median_ns > 1.4  # what is shown is what was judged


def test_rows_without_whole_samples_are_judged_by_what_they_have() -> None:
    draw = random.Random(1)
    rows = cell(draw, {"eager": 1.0, "lazy": 0.8})
    mixed = [
        dataclasses.replace(r, mean_ns=r.samples_ns) if r.implementation == "lazy" else r
        for r in rows
    ]
    plain, some = (only(compare(r, {"partial": "eager"})) for r in (rows, mixed))
    assert (plain.ratio, plain.why) == (some.ratio, some.why)
