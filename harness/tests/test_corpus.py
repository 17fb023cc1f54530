"""The corpus is read whole, or the file that is wrong is named."""

from pathlib import Path

import pytest

from harness.corpus import load_corpus
from harness.results import ResultsError
from harness.table import load_table

CORPUS = Path(__file__).parents[2] / "properties" / "corpus"


def test_every_entry_names_a_law_of_its_variant_and_a_valid_case():
    table = load_table()
    entries = load_corpus(CORPUS)
    assert entries
    for name, law, case in entries:
        variant = table.variant(name)
        variant.check_case(case)
        assert table.law(law) in table.laws_of(variant)


@pytest.mark.parametrize("text", ["{", "[]", '{"variant": "plain"}'])
def test_a_damaged_entry_is_named(tmp_path, text):
    (tmp_path / "wrong.json").write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=r"wrong.json: is no counterexample"):
        load_corpus(tmp_path)
