"""What won a measured case is taken near it, on the machine that measured it, and nowhere else."""

import json
from dataclasses import asdict

import pytest

from harness import choice, choose_command
from harness.case import ConvCase
from harness.choice import Choice
from harness.comparison import compare
from harness.results import Measurement, ResultsError, Status
from harness.selection import explanation_of, fastest
from harness.table import load_table

VARIANT = load_table().variant("partial")
LINE = "n1 c8>8 i16x16 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0 mask=bernoulli:0.5"
CASE = ConvCase.parse(LINE)


def _choice(**changes):
    values = {
        "variant": "partial", "case": LINE, "device": "cpu", "implementation": "box_filter",
        "ratio": 0.8, "baseline": "convolved_mask", "run": "run",
    }  # fmt: skip
    return Choice(**(values | changes))


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Keep choices in a folder of the test's own."""
    monkeypatch.setattr(choice, "FOLDER", tmp_path)

    def keep(*choices):
        path = tmp_path / f"{choice.machine_key('cpu')}.json"
        path.write_text(json.dumps([asdict(one) for one in choices]), encoding="utf-8")
        choice.loaded.cache_clear()

    yield keep
    choice.loaded.cache_clear()


def test_the_nearest_measured_case_is_found_and_explained(kept):
    far = _choice(case=LINE.replace("i16x16", "i64x64"), implementation="convolved_mask")
    kept(far, _choice())
    near = choice.nearest(VARIANT, ConvCase.parse(LINE.replace("i16x16", "i16x32")), "cpu")
    assert near.choice.implementation == "box_filter"
    assert str(near).startswith("won a measured case 1.0 doublings away: n1 c8>8")
    assert str(near).endswith("0.80 times the time of convolved_mask")


@pytest.mark.parametrize(
    "other",
    [
        LINE.replace("float32", "float64"),
        LINE.replace("s1x1", "s2x2"),
        LINE.replace("g1", "g8"),
        LINE.replace("mask=", "mask_channels=one mask="),
        LINE.replace("i16x16", "i256x256"),
    ],
)
def test_a_case_of_another_kind_or_far_away_says_nothing(kept, other):
    kept(_choice())
    assert choice.nearest(VARIANT, ConvCase.parse(other), "cpu") is None


def test_how_a_mask_is_filled_makes_no_difference_since_a_call_does_not_tell(kept):
    kept(_choice())
    case = ConvCase.parse(LINE.replace(" mask=bernoulli:0.5", ""))
    assert choice.nearest(VARIANT, case, "cpu").distance == 0


def test_without_a_file_nothing_is_near(kept):
    assert choice.nearest(VARIANT, CASE, "cpu") is None


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    path = tmp_path / "choices.json"
    path.write_text('[{"variant": "partial"}]', encoding="utf-8")
    with pytest.raises(ResultsError, match="holds no choices"):
        choice.read(path)


def _rows(times):
    return compare(
        Measurement(
            run_id="run", variant="partial", implementation=name, case=LINE, case_name="x",
            direction=direction, dtype="float32", device="cpu", threads=1, process=process,
            block=(0, 1), samples_ns=(time + process,) * 2, calls_per_sample=1,
            status=Status.MEASURED,
        )
        for direction, of in times.items()
        for name, time in of.items()
        for process in range(3)
    )  # fmt: skip


def test_the_winner_is_the_quickest_that_loses_nowhere():
    rows = _rows({
        "forward": {"convolved_mask": 1000_000, "mixed": 200_000, "steady": 800_000},
        "backward": {"convolved_mask": 1000_000, "mixed": 1500_000, "steady": 800_000},
    })  # fmt: skip
    (winner,) = choose_command.choices_of(rows, "run")
    assert (winner.implementation, winner.ratio) == ("steady", 0.8)


def test_where_all_are_slower_the_baseline_wins():
    (winner,) = choose_command.choices_of(
        _rows({"forward": {"convolved_mask": 10**6, "a": 2 * 10**6}}), ""
    )
    assert (winner.implementation, winner.ratio) == ("convolved_mask", 1.0)


def test_fresh_choices_take_the_place_of_kept_ones_of_the_same_case():
    other = _choice(case=LINE.replace("i16x16", "i8x8"))
    fresh = _choice(implementation="convolved_mask", ratio=1.0)
    assert set(choose_command.merged([_choice(), other], [fresh])) == {fresh, other}


def test_a_call_takes_what_won_near_it_and_says_so(kept):
    assert fastest(VARIANT, CASE).name != "convolved_mask"
    kept(_choice(implementation="convolved_mask", ratio=1.0))
    assert fastest(VARIANT, CASE).name == "convolved_mask"
    told = explanation_of(VARIANT, CASE, "cpu", None)
    assert told.reason.startswith("won a measured case 0.0 doublings away")


def test_a_winner_that_cannot_compute_a_case_is_passed_over(kept):
    kept(_choice(implementation="gone"))
    assert fastest(VARIANT, CASE).name != "gone"
