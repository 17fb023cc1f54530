"""Who is proved may be timed; who is not has a reason, and costs nobody else anything."""

import pytest

from harness.gate import answered, cell_for, examine, in_children, refusals
from harness.isolation import End
from harness.plan import Cell
from harness.proof import Question, load_answer
from harness.table import UnknownName, load_table

CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
TABLE = load_table()


def test_every_cell_is_proved_or_has_a_reason():
    good = cell_for(TABLE, "plain", "library", CASE, "backward")
    missing = Cell("plain", "no_such", CASE, "", "forward")
    found = examine([missing, good, good])
    assert list(refusals(found)) == [missing]
    assert "no_such" in found[missing].reason
    assert found[good].proof.startswith("T")
    assert found[good].call_ns > 0


def test_answers_are_there_while_they_are_needed():
    question = Question("plain", CASE)
    with answered([question]) as common:
        assert load_answer(common.answers, *question).truth["output"].shape == (1, 3, 6, 6)
        folder = common.answers
    assert not folder.exists()


def test_a_session_that_fails_is_a_report_of_every_unit():
    with answered([]) as common:
        found = list(in_children("harness.gate:no_such_session", common, ["a", "b"]))
    assert [unit for unit, _ in found] == ["a", "b"]
    assert all(report.end is End.CRASHED for _, report in found)
    assert "no_such_session" in found[0][1].text


def test_a_cell_of_nobody_is_refused_with_the_names_there_are():
    with pytest.raises(UnknownName, match="library"):
        cell_for(TABLE, "plain", "no_such", CASE, "forward")
