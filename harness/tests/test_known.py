"""The file of known failures is read strictly."""

import json

import pytest

from harness.known import load_known
from harness.results import Outcome, ResultsError

ENTRY = {
    "variant": "plain", "implementation": "theirs", "law": "G1", "outcome": "REFUTED",
    "case": "n1 c1>1 i1 k1", "reason": "rounds to float16",
}  # fmt: skip


def _write(path, *entries):
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_an_entry_says_what_fails_and_why(tmp_path):
    known = load_known(_write(tmp_path / "known.json", ENTRY))
    found = known["plain", "theirs", "G1"]
    assert (found.outcome, str(found.case).split()[0]) == (Outcome.REFUTED, "n1")
    assert found.reason == "rounds to float16"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (({**ENTRY, "outcome": "HOLDS"},), "must be REFUTED or CRASHED"),
        (({**ENTRY, "outcome": "BROKEN"},), "'BROKEN' is not a valid Outcome"),
        (({**ENTRY, "reason": ""},), "say why it is left so"),
        (({**ENTRY, "case": "n1"},), "has no c token"),
        (({"variant": "plain"},), "must have exactly variant, implementation"),
        ((ENTRY, ENTRY), "plain/theirs/G1 must come after plain/theirs/G1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, entries, message):
    path = _write(tmp_path / "known.json", *entries)
    with pytest.raises(ResultsError, match=message) as caught:
        load_known(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "known.json"
    path.write_text("[", encoding="utf-8")
    with pytest.raises(ResultsError, match="is no list of known failures"):
        load_known(path)
