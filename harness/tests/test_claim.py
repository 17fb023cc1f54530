"""Claims are judged anew where the machine can, repeated where it cannot, and never go stale."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from harness import claim_command
from harness.__main__ import main
from harness.claim import (
    COLUMNS,
    Answer,
    Claim,
    Judgement,
    as_evidence,
    claim,
    decide,
    decide_on,
    judge,
    load_claims,
    stored_rows,
)
from harness.evidence import load_evidence
from harness.results import ResultsError
from harness.variant import Need


def _claim(answer=Answer.TRUE, **fields):
    given = {
        "id": "1.1", "source": "1 a page", "text": "It holds.", "expected": Answer.TRUE,
        "check": lambda: Judgement(answer=answer, witness=f"drawn {torch.rand(1).item():.6f}"),
    }  # fmt: skip
    return Claim(**given | fields)


TIMED = _claim(id="1.2", timed=True, text="It is fast.")
UNAVAILABLE = _claim(id="1.3", needs=frozenset({Need.CUDA}), expected=Answer.WAITS)


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """Put claims in the place of those of the documents, and a folder in that of the evidence."""

    def plant(*claims):
        known = {one.id: one for one in claims}
        monkeypatch.setattr(claim_command, "load_claims", lambda: known)
        monkeypatch.setattr(claim_command, "EVIDENCE", tmp_path / "evidence")
        monkeypatch.setattr(claim_command, "PAGE", tmp_path / "docs" / "claims.md")
        return tmp_path

    return plant


@pytest.mark.parametrize(
    ("inside", "outside", "answer"),
    [
        (True, False, Answer.TRUE_ON),
        (True, True, Answer.TRUE),
        (False, False, Answer.FALSE),
        (False, True, Answer.FALSE),
    ],
)
def test_a_domain_counts_only_where_the_claim_fails_beyond_it(inside, outside, answer):
    assert decide_on(inside, outside, "w").answer is answer


def test_what_contradicts_the_expectation_differs():
    assert not judge(_claim()).differs
    assert judge(_claim(Answer.FALSE)).differs
    assert not judge(_claim(Answer.UNRESOLVED)).differs
    assert not judge(TIMED).differs


def test_draws_are_the_same_in_every_run_and_leave_no_trace():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    witnesses = {judge(_claim()).witness for _ in range(2)}
    assert len(witnesses) == 1
    assert torch.rand(1) == expected


def test_the_clock_decides_only_when_it_is_asked():
    assert judge(TIMED).answer is Answer.WAITS
    assert judge(TIMED).witness == "waits for --timed"
    asked = judge(TIMED, timed=True)
    assert asked.answer is Answer.TRUE
    assert asked.decided_by.startswith("clock, 20")


def test_what_was_measured_before_is_repeated_with_its_date():
    row = (TIMED.id, TIMED.source, TIMED.text, "FALSE", "ratio 2", "clock, 2026-01-31, a core")
    found = judge(TIMED, stored={TIMED.id: row})
    assert (found.answer, found.witness, found.decided_by) == (Answer.FALSE, *row[4:])
    assert found.row() == row


def test_what_only_another_machine_can_tell_waits_for_it(no_cuda):
    found = judge(UNAVAILABLE, timed=True)
    assert (found.answer, found.differs) == (Answer.WAITS, False)
    assert found.witness == "waits for a machine that can tell: no CUDA device"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"expected": Answer.UNRESOLVED}, "expected=UNRESOLVED must be TRUE, FALSE or TRUE_ON"),
        ({"expected": Answer.WAITS}, "or WAITS where `needs` says for what"),
        ({"expected": Answer.TRUE_ON}, "domain='' with expected=TRUE_ON"),
        ({"domain": "here"}, "domain='here' with expected=TRUE"),
    ],
)
def test_an_expectation_that_is_none_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        _claim(**fields)


def _package(monkeypatch, tmp_path, **modules):
    folder = tmp_path / "planted_claims"
    folder.mkdir()
    package = ModuleType("planted_claims")
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "planted_claims", package)
    for name, values in modules.items():
        (folder / f"{name}.py").write_text("")
        module = ModuleType(f"planted_claims.{name}")
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return "planted_claims"


def test_claims_come_in_the_order_of_their_numbers(monkeypatch, tmp_path):
    late, early = _claim(id="001.10"), _claim(id="001.2")
    package = _package(monkeypatch, tmp_path, first={"a": late, "b": 3}, second={"c": early})
    assert list(load_claims(package)) == ["001.2", "001.10"]


def test_two_claims_with_one_number_are_refused(monkeypatch, tmp_path):
    package = _package(monkeypatch, tmp_path, first={"a": _claim()}, second={"b": _claim()})
    with pytest.raises(ValueError, match=r"two claims share the number 1\.1"):
        load_claims(package)


def test_a_function_becomes_a_claim():
    @claim("1.4", "1 a page", "It holds.", Answer.FALSE)
    def it_holds():
        return decide(False, "no")

    assert (it_holds.id, judge(it_holds).differs) == ("1.4", False)


def test_a_stored_table_of_another_shape_is_refused():
    table = as_evidence([judge(_claim())], "make")
    assert stored_rows([]) == {}
    assert list(stored_rows([table])) == ["1.1"]
    for wrong in (
        replace(table, columns=tuple(reversed(COLUMNS))),
        replace(table, rows=((*table.rows[0][:3], "PERHAPS", "", ""),)),
    ):
        with pytest.raises(ResultsError, match="stored table of claims must have the columns"):
            stored_rows([wrong])


# -- the command ---------------------------------------------------------------------------------


def test_the_command_prints_verdict_and_witness(planted, capsys):
    planted(_claim(), TIMED)
    assert main(["claims"]) == 0
    shown = capsys.readouterr().out
    assert "1.1    TRUE\n       It holds.\n       drawn " in shown
    assert "2 claims, 0 with another verdict than expected" in shown


def test_the_command_fails_where_a_verdict_differs(planted, capsys):
    planted(_claim(Answer.FALSE))
    assert main(["claims"]) == 1
    assert "expected: TRUE" in capsys.readouterr().out


def test_the_command_selects_by_number_and_by_document(planted, capsys):
    planted(_claim(), _claim(Answer.FALSE, id="2.1"))
    assert main(["claims", "1"]) == 0
    assert main(["claims", "2.1"]) == 1
    capsys.readouterr()
    assert main(["claims", "3"]) == 2
    assert "no claim '3'" in capsys.readouterr().err


def test_what_is_written_is_all_and_keeps_what_the_clock_said(planted, capsys, no_cuda):
    folder = planted(_claim(), TIMED, UNAVAILABLE)
    assert main(["claims", "1.2", "--timed", "--write"]) == 0
    before = stored_rows(load_evidence(folder / "evidence"))
    assert [row[3] for row in before.values()] == ["TRUE", "TRUE", "WAITS"]
    assert main(["claims", "--write"]) == 0
    assert stored_rows(load_evidence(folder / "evidence")) == before
    assert "| 1.2 | 1 a page | It is fast. | TRUE |" in (folder / "docs/claims.md").read_text()
    assert f"written: {folder / 'docs/claims.md'}" in capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_named(planted, capsys):
    folder = planted(_claim())
    (folder / "docs").write_text("")
    assert main(["claims", "--write"]) == 2
    assert "claims.md: cannot be written" in capsys.readouterr().err
