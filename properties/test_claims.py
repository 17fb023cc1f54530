"""What the documents claim has the verdict that is stored with the claim, and the page says so."""

from pathlib import Path

import pytest
import torch

from harness.claim import COLUMNS, Answer, judge, load_claims, stored_rows
from harness.evidence import load_evidence, markdown, read_evidence
from harness.variant import missing

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parent
CLAIMS = load_claims()
STORED = stored_rows(load_evidence(ROOT / "evidence"))
COMPUTED = [c for c in CLAIMS.values() if not c.timed and missing(c.needs) is None]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("claim", COMPUTED, ids=lambda claim: claim.id)
def test_verdict_is_the_expected_one(claim):
    judged = judge(claim)
    assert claim.expected in {judged.answer, Answer.WAITS}, f"{claim.text} {judged.witness}"
    assert judged.witness


def test_every_claim_is_in_the_stored_table_with_its_text():
    texts = {number: row[2] for number, row in STORED.items()}
    written = "python3 -m harness claims --write"
    assert texts == {claim.id: claim.text for claim in CLAIMS.values()}, f"run {written}"


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_stored_verdict_is_the_expected_one(claim):
    """What was decided when the table was written, by the clock too: no time is taken here."""
    row = dict(zip(COLUMNS, STORED[claim.id], strict=True))
    answer = Answer(row["verdict"].partition(":")[0])
    assert answer in {claim.expected, Answer.WAITS, Answer.UNRESOLVED}, row["witness"]
    waits = claim.timed or claim.needs
    assert waits or answer is claim.expected


def test_every_document_makes_claims():
    documents = {claim.source for claim in CLAIMS.values()}
    assert {source[:3] for source in documents} == {"000", "001", "002", "003", "004"}
    assert len(documents) == 5
    assert all(claim.source.startswith(number[:3]) for number, claim in CLAIMS.items())


def test_the_page_is_the_stored_table():
    table = read_evidence(ROOT / "evidence" / "claims.json")
    page = (ROOT.parent / "docs" / "claims.md").read_text(encoding="utf-8")
    assert page == markdown(table)
