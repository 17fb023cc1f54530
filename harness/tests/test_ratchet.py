"""What is kept of the errors is read back, compared and refused where it is damaged."""

import pytest

from harness import ratchet
from harness.results import ResultsError

KEPT = {"plain/library": {"float32": 0.4, "float16": 0.8}}


def test_growth_beyond_a_quarter_is_named():
    measured = {"plain/library": {"float32": 0.51, "float16": 0.99}}
    assert ratchet.grown(measured, KEPT) == [
        "plain/library float32: error over bound 0.51, was 0.4"
    ]


def test_what_is_not_kept_yet_is_told_apart():
    measured = {"plain/library": {"float64": 0.2}, "plain/other": {"float32": 0.1}}
    assert ratchet.grown(measured, KEPT) == []
    assert [line.split(":")[0] for line in ratchet.new(measured, KEPT)] == [
        "plain/library float64", "plain/other float32"
    ]  # fmt: skip


def test_one_line_tells_the_tightness():
    assert ratchet.tightness(KEPT) == "error over bound: float16 0.80, float32 0.40"


def test_what_is_written_is_read_back_beside_other_machines(tmp_path):
    path = tmp_path / "ratchet.json"
    path.write_text('{"cpu OTHER": {"plain/library": {"float32": 0.1}}}')
    ratchet.write(KEPT, path)
    assert ratchet.load(path) == {
        "cpu OTHER": {"plain/library": {"float32": 0.1}}, ratchet.backend(): KEPT
    }  # fmt: skip


@pytest.mark.parametrize("text", ["[", "[1]", '{"cpu": {"plain/library": {"float32": "x"}}}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "ratchet.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"ratchet\.json"):
        ratchet.load(path)
