"""A loss is drawn, confirmed in a second run and made small; the clock is played by a function."""

import argparse
import itertools
from datetime import UTC, datetime

import pytest

from harness import clock, gate, hunt, losses
from harness.case import ConvCase
from harness.comparison import compare
from harness.evidence import Made, load_evidence
from harness.losses import Suspect
from harness.results import Measurement, Status
from harness.table import load_table

TABLE = load_table()
VARIANT = TABLE.variant("tile_concat")
LINE = (
    "n1 c0+0+1+0>1 i29x32 k1x2 s2x1 p1x2 d1x1 g1 b0 float32 contiguous real seed2 "
    "padding_mode=replicate"
)
MADE = Made(date=f"{datetime(2026, 1, 31, tzinfo=UTC):%Y-%m-%d}", commit="c0ffee", machine="a core",
            command="losses")  # fmt: skip


def _row(suspect, ratio):
    (row,) = compare(
        Measurement(
            run_id="contest", variant="losses", implementation=name, case=suspect.entry.case,
            case_name="x", direction="as named", dtype="float32", device="cpu", threads=1,
            process=process, block=(0, 1), samples_ns=(time + process,) * 2, calls_per_sample=1,
            status=Status.MEASURED,
        )
        for process in range(3)
        for name, time in (("concatenated", 10**6), ("short_tiles", round(ratio * 10**6)))
    )  # fmt: skip
    return row


def _run(*words):
    parser = argparse.ArgumentParser()
    losses.add_arguments(parser)
    return losses.run(parser.parse_args(words), TABLE)


@pytest.fixture
def plays_clock(monkeypatch):
    """Let a function of the case decide how often a suspect loses; note what is asked."""
    asked = []

    def play(ratio):
        def judge(some, rules, seed):
            asked.append((some[0].case, rules, seed))
            return [_row(one, ratio(ConvCase.parse(one.case), seed)) for one in some]

        monkeypatch.setattr(losses, "judge", judge)
        monkeypatch.setattr(losses, "_chosen", lambda *_: "short_tiles")
        monkeypatch.setattr(losses, "unproved", lambda _: {})
        return asked

    return play


def test_drawn_layers_are_those_where_the_table_chooses_something_else():
    found = losses.suspects(TABLE.variant("partial"), seed=0, count=4)
    assert len(found) == 4
    for variant, direction, line in found:
        case = ConvCase.parse(line)
        assert (variant, case.dtype, case.fill) == ("partial", "float32", "real")
        assert direction in {"forward", "backward"}
        assert case.macs <= losses.MOST_MACS


def test_a_loss_is_made_as_small_as_it_stays_one(plays_clock):
    asked = plays_clock(lambda case, _: 1.5 if case.in_size[0] >= 5 else 1.0)
    suspect = Suspect("tile_concat", "forward", LINE)
    loss = losses.confirmed(TABLE, suspect, seed=7, deadline_s=1e18, wrong={})
    case = ConvCase.parse(loss.suspect.case)
    assert case.in_size[0] == 5
    assert (case.in_size[1], case.stride, case.padding) == (1, (1, 1), (0, 0))
    assert loss.implementation == "short_tiles"
    assert asked[0] == (LINE, losses.CONFIRM, 8)
    assert asked[-1][1:] == (losses.CONFIRM, 10)


def test_what_does_not_recur_is_no_loss(plays_clock):
    plays_clock(lambda *_: 1.02)
    assert losses.confirmed(TABLE, Suspect("tile_concat", "forward", LINE), 0, 1e18, {}) is None


def test_a_walk_that_went_too_far_falls_back_to_what_was_confirmed(plays_clock):
    seeds_of_small = {2}  # the walk's own runs are fooled
    plays_clock(lambda case, seed: 1.5 if str(case) == LINE or seed in seeds_of_small else 1.0)
    loss = losses.confirmed(TABLE, Suspect("tile_concat", "forward", LINE), 0, 1e18, {})
    assert loss.suspect.case == LINE


def test_a_loss_is_kept_with_the_line_that_repeats_it(plays_clock):
    plays_clock(lambda *_: 1.5)
    suspect = Suspect("tile_concat", "forward", LINE)
    loss = losses.confirmed(
        TABLE, suspect, 0, deadline_s=0.0, wrong={}
    )  # no time to make it smaller
    table = losses.as_evidence([loss], {}, looked=9, seed=0, made=MADE)
    assert table.column("smallest case") == (LINE,)
    assert table.column("replay")[0].endswith(f"--direction forward --case '{LINE}'")
    assert "9 layers drawn from seed 0" in table.about
    assert "LOSES tile_concat/short_tiles forward: 1.50 times" in losses.line_of(loss)


def test_a_contest_is_between_the_reference_and_what_the_table_chooses():
    (suspect,) = losses.suspects(TABLE.variant("partial"), seed=1, count=1)
    runs = losses.contest(suspect.entry.case, "cpu")
    assert next(iter(runs)) == TABLE.variant("partial").reference.name
    for run in runs.values():
        run()


def test_what_is_timed_is_proved_before_as_far_as_children_know_it():
    (suspect,) = losses.suspects(TABLE.variant("partial"), seed=1, count=1)
    cells = losses.cells_of(TABLE, suspect)
    assert cells[0].implementation == TABLE.variant("partial").reference.name
    assert len({cell.implementation for cell in cells}) == 2
    assert gate.unproved({suspect: cells}) == {}
    wrong = cells[1]._replace(implementation="no_such")
    assert "no_such" in gate.unproved({suspect: [cells[0], wrong]})[suspect]


def test_who_is_wrong_is_neither_timed_nor_a_loser_nor_a_winner(
    plays_clock, monkeypatch, tmp_path, capsys
):
    asked = plays_clock(lambda *_: 0.5)
    monkeypatch.setattr(losses, "_chosen", lambda *_: "box_filter")
    guilty = []

    def unproved(needed):
        guilty.append(next(iter(needed)))
        return {guilty[-1]: "box_filter on it: output differs"}

    monkeypatch.setattr(hunt, "unproved", unproved)
    monkeypatch.setattr(losses, "EVIDENCE", tmp_path)
    ticks = itertools.count(step=10)
    monkeypatch.setattr(clock, "monotonic_s", lambda: next(ticks))
    words = ["--variant", "partial", "--budget-s", "45", "--seed", "3", "--write"]
    assert _run(*words) == 1
    said = capsys.readouterr().out
    assert "UNPROVED partial " in said
    assert "LOSES" not in said
    assert asked
    assert not {case for case, *_ in asked} & {one.case for one in guilty}
    (kept,) = load_evidence(tmp_path)
    assert kept.column("ratio") == ("UNPROVED",) * len(set(guilty))
    assert "output differs" in kept.column("replay")[0]
    assert {case for *_, case in losses._kept()} == {one.case for one in guilty}


def test_a_loss_where_the_table_has_come_to_take_the_reference_is_said_and_kept_but_not_timed(
    plays_clock, monkeypatch, tmp_path, capsys
):
    asked = plays_clock(lambda *_: 1.5)
    suspect = Suspect("tile_concat", "forward", LINE)
    loss = losses.Loss(suspect, "short_tiles", _row(suspect, 1.6))
    losses.as_evidence([loss], {}, 1, 0, MADE).save(tmp_path)
    monkeypatch.setattr(losses, "EVIDENCE", tmp_path)
    monkeypatch.setattr(losses, "_chosen", lambda *_: "")
    words = ["--variant", "tile_concat", "--budget-s", "0", "--write"]
    for _ in range(2):  # the second search reads what the first has kept
        assert _run(*words) == 0
        assert f"MENDED tile_concat forward {LINE}" in capsys.readouterr().out
        (kept,) = load_evidence(tmp_path)
        assert kept.column("since") == ("the table takes concatenated",)
        assert kept.column("ratio") == (pytest.approx(1.6),)
        assert "1 of earlier searches were mended since" in kept.about
    assert not asked


def test_a_loss_that_is_none_any_more_is_kept_with_what_it_takes_now(
    plays_clock, monkeypatch, tmp_path
):
    asked = plays_clock(lambda *_: 0.9)
    suspect = Suspect("tile_concat", "forward", LINE)
    loss = losses.Loss(suspect, "short_tiles", _row(suspect, 1.6))
    losses.as_evidence([loss], {}, 1, 0, MADE).save(tmp_path)
    monkeypatch.setattr(losses, "EVIDENCE", tmp_path)
    monkeypatch.setattr(hunt, "unproved", lambda _: {})
    ticks = itertools.count(step=10)
    monkeypatch.setattr(clock, "monotonic_s", lambda: next(ticks))
    words = ["--variant", "tile_concat", "--budget-s", "25", "--seed", "3", "--write"]
    assert _run(*words) == 0
    assert asked[0][0] == LINE  # what was found before comes first
    (kept,) = load_evidence(tmp_path)
    assert kept.column("smallest case") == (LINE,)
    assert kept.column("since") == ("takes 0.90 times as long",)
