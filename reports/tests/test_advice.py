"""What the page advises: only what is faster for sure, never what is in doubt, and what is not known."""

from __future__ import annotations

import re

import pytest

from harness.comparison import Speed
from harness.results import load_run
from reports.advice import case_by_case, knowledge, use
from reports.facts import Facts
from reports.headlines import headline
from reports.page import render
from reports.tests.sample_run import BREAKOUT, make_run


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return Facts.of(load_run(make_run(tmp_path_factory.mktemp("results") / "run-1", blocks=6)))


def told(facts: Facts, name: str):
    card = next(card for card in facts.cards if card.name == name)
    return headline(card, facts.means, facts.cells, facts.doubtful, facts.places)


def test_what_is_faster_for_sure_is_used_and_else_the_baseline(facts: Facts) -> None:
    (one,) = told(facts, "sound")["use"]
    assert (one["name"], one["is_baseline"], one["where"]) == ("by_taps", False, "")
    # by_taps is faster there too, and a law refutes it
    (one,) = told(facts, "masked")["use"]
    assert (one["name"], one["is_baseline"]) == ("eager", True)
    assert told(facts, "diff")["use"] == []


def test_directions_that_differ_are_named(facts: Facts) -> None:
    entries = [dict(entry) for entry in told(facts, "sound")["entries"]]
    entries[1]["verdict"] = Speed.SAME
    first, second = use(entries, 2)
    assert (first["name"], first["where"]) == ("by_taps", "forward")
    assert (second["name"], second["where"]) == ("eager", "forward + backward")
    assert second["is_baseline"]
    (one,) = use(entries[:1], 2)
    assert one["where"] == "forward"  # the other direction was not answered


def test_what_was_not_timed_or_judged_is_said(facts: Facts) -> None:
    cards = {card.name: card for card in facts.cards}
    partial = knowledge(cards["partial"], facts.cells, facts.laws)
    assert partial["checked"][0].startswith("44 of 44 timed results")
    assert "1 mistrusted, law by implementation" in partial["checked"]
    assert "triton is not available: no CUDA device" in partial["unknown"]
    crashed = next(one for one in partial["unknown"] if one.startswith("compiled: crashed"))
    assert "in 2 rows (RuntimeError" in crashed
    nothing = knowledge(cards["diff"], facts.cells, facts.laws)
    assert nothing["checked"] == []
    assert "no law was judged in this run" in nothing["unknown"]


def test_case_by_case_nobody_in_doubt_is_the_fastest(facts: Facts) -> None:
    cards = {card.name: card for card in facts.cards}
    lines = case_by_case(cards["sound"], facts.cells)
    assert len(lines) == 6
    assert {row["implementation"] for line in lines for row in line["cells"]} == {"by_taps"}
    lines = case_by_case(cards["masked"], facts.cells)
    named = {row["implementation"] for line in lines for row in line["cells"] if row}
    assert "by_taps" not in named
    assert BREAKOUT in named


def test_the_page_begins_with_the_advice(facts: Facts) -> None:
    text = re.sub(r"<[^>]+>|\s+", " ", render(facts.run))
    text = re.sub(r" +", " ", text)
    assert "Use by_taps ." in text
    assert "Stay with eager ." in text
    assert text.index("Use by_taps") < text.index("Where the numbers come from")
    assert re.search(r"faster : by_taps 1\.\d+× \[1\.\d+,&nbsp;1\.\d+\] as fast as", text)
