"""Rates of false alarms and of what is seen, with exact intervals."""

import math

import pytest

from harness import calibration
from harness.comparison import compare
from harness.contest import Rules
from harness.evidence import Made
from harness.results import Measurement, Status

MADE = Made(date="2026-01-31", commit="c0ffee", machine="a core", command="calibrate")


def _rows(slowdown, itself=1.0, cases=120):
    return compare(
        Measurement(
            run_id="contest", variant="calibration", implementation=name, case=str(case),
            case_name=str(case), direction="as named", dtype="float32", device="cpu", threads=1,
            placebo=placebo, process=process, block=(0, 1, 2),
            # processes differ by 0.01 %, as their scatter
            samples_ns=(round(1e7 * ratio * (1 + 1e-4 * math.sin(process + case))),) * 3,
            calls_per_sample=1, status=Status.MEASURED,
        )
        for process in range(10)
        for case in range(cases)
        for name, placebo, ratio in (
            ("plain", False, 1.0), ("plain", True, itself), (calibration.PLANTED, False, slowdown)
        )
    )  # fmt: skip


def _verdicts(rows):
    table = calibration.as_evidence("calibration", rows, Rules(10, 3), MADE)
    return dict(zip(table.column("what"), table.column("verdict"), strict=True))


def test_a_clock_that_sees_the_slowdown_and_nothing_else_meets_everything():
    rows = [row for row in _rows(1 + calibration.SLOWDOWN) if not row.placebo]
    noise = [row for row in _rows(1 + calibration.SLOWDOWN, itself=1.0) if row.placebo]
    assert set(_verdicts([*rows, *noise]).values()) == {"met"}


def test_a_clock_that_is_blind_misses_the_power():
    assert _verdicts(_rows(1.0))["slowed by 3%: seen"] == "missed"


def test_a_clock_that_cries_wolf_misses_the_rate_of_false_alarms():
    found = _verdicts(_rows(1 + calibration.SLOWDOWN, itself=1.05))
    assert found["itself: the interval excludes 1"] == "missed"
    assert found["itself: judged FASTER or SLOWER"] == "missed"


def test_what_is_planted_makes_one_call_more():
    counts = []
    for count in (calibration.UNIT, calibration.MORE):
        calls = []
        calibration._times(lambda calls=calls: calls.append(1), count)()
        counts.append(len(calls))
    assert counts == [33, 34]
    assert pytest.approx(1 / 33) == calibration.SLOWDOWN


def test_its_contests_can_be_called():
    for made, names in (
        (calibration.layer(calibration.LAYERS[0], "cpu"), ["plain"]),
        (calibration.slowed(calibration.ENTRIES[0], "cpu"), ["calls", calibration.PLANTED]),
    ):
        for run in made.values():
            run()
        assert list(made) == names
