"""Every law of the catalogue is in the table, under its own id or as a part of another."""

from collections import Counter

import pytest

from harness.catalogue import law_cards
from harness.table import load_table

TABLE = load_table()
# the letter of a chapter and how many laws it has
# K12, that torch's pruning computes the same, is an example in test_examples_kernel_masks
CHAPTERS = {"I": 11, "W": 3, "K": 17, "P": 19, "M": 8, "S": 16, "D": 14, "B": 5, "C": 3}


IDS = [f"{letter}{n}" for letter, count in CHAPTERS.items() for n in range(1, count + 1)]


@pytest.mark.parametrize("law_id", [law_id for law_id in IDS if law_id != "K12"])
def test_law_of_the_catalogue_is_found(law_id):
    law = TABLE.law(law_id)
    assert law_id in (law.id, *law.aliases)


def test_no_two_laws_share_an_id():
    words = Counter(word for law in TABLE.laws.values() for word in (law.id, *law.aliases))
    assert max(words.values()) == 1


def test_law_covers_its_aliases_somewhere():
    for law in TABLE.laws.values():
        assert any(law.requires <= v.traits for v in TABLE.variants.values()), law.id


def test_cards_of_laws_name_the_variants_that_they_relate():
    cards = {card.id: card for card in law_cards(TABLE)}
    assert cards["B5"].relates == ("diff",)  # asked for in the law itself
    assert cards["S1"].relates == ("multi_source", "tile_concat")  # asked for by a helper
    assert cards["G7"].relates == ()
    assert cards["P1"].sharp
    assert cards["P1"].domain == "padding 0"
