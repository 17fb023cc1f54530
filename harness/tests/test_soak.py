"""What long runs and rates come to, as tables."""

import argparse
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness import ledger, rates, soak
from harness.evidence import Made
from harness.judge import as_verdict
from harness.machine import Code, describe_code
from harness.results import Outcome, ResultsError
from harness.search import Finding
from harness.table import load_table

TABLE = load_table()
PLAIN, LAW = TABLE.variant("plain"), TABLE.law("G1")
MADE = Made(date=f"{datetime(2026, 1, 31, tzinfo=UTC):%Y-%m-%d}", commit="c0ffee", machine="a core",
            command="nox -s soak")  # fmt: skip


def _row(outcome, cases):
    finding = Finding(outcome=outcome, cases=cases)
    return as_verdict("run", LAW, PLAIN, PLAIN.reference, finding)


def test_cases_of_all_rounds_add_up_and_a_refutation_is_counted_once_a_pair():
    found = {
        ("plain", "library", "G1"): [_row(Outcome.HOLDS, 60), _row(Outcome.REFUTED, 7)],
        ("plain", "onednn", "G1"): [_row(Outcome.HOLDS, 60), _row(Outcome.MISTRUSTED, 60)],
        ("plain", "library", "G4"): [_row(Outcome.UNSUPPORTED, 0)],
    }
    evidence = soak._evidence(TABLE, found, MADE, seed=3)
    assert evidence.rows == (("G1", LAW.name, 2, 187, 67, 1),)
    assert "187 cases over 2 of 3 pairs" in evidence.about
    assert "from seed 3 on: 1 pairs refuted" in evidence.about


def test_a_round_keeps_every_verdict_and_ends_in_time(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "ROOT", tmp_path)
    monkeypatch.setattr(soak, "pairs", lambda *_: [(LAW, PLAIN, PLAIN.reference)])
    moments = iter((0.0, 1.0, 1e9))
    monkeypatch.setattr(soak.clock, "monotonic_s", lambda: next(moments, 1e9))
    monkeypatch.setattr(soak, "judge", lambda *_, **__: iter([_row(Outcome.HOLDS, 120)]))
    assert soak.run(_options(), TABLE) == 0
    assert "120 cases over 1 of 1 pairs" in capsys.readouterr().out
    assert len(list(tmp_path.glob("results/*/verdicts.jsonl"))) == 1


def _options(**changes):
    return argparse.Namespace(**{
        "minutes": 1.0, "least": 1000, "processes": 1, "variant": ["plain"], "device": "cpu",
        "seed": 5, "write": False, "resume": None, **changes,
    })  # fmt: skip


def test_a_soak_goes_on_where_it_ended(capsys, tmp_path, monkeypatch):
    seeds = []

    def judge(_, court, units, *, run_id, **__):
        seeds.append((court.seed, len(units)))
        yield replace(_row(Outcome.HOLDS, 400), run_id=run_id)

    monkeypatch.setattr(soak, "ROOT", tmp_path)
    monkeypatch.setattr(soak, "pairs", lambda *_: [(LAW, PLAIN, PLAIN.reference)])
    monkeypatch.setattr(soak, "judge", judge)
    moments = iter((0.0, 1.0, 1e9))
    monkeypatch.setattr(soak.clock, "monotonic_s", lambda: next(moments, 1e9))
    assert soak.run(_options(), TABLE) == 0
    (folder,) = tmp_path.glob("results/*")
    monkeypatch.setattr(soak, "describe_code", lambda _: describe_code(ledger.ROOT))
    monkeypatch.setattr(soak.clock, "monotonic_s", lambda: 0.0)
    assert soak.run(_options(resume=folder, seed=None), TABLE) == 0
    assert seeds == [(5, 1), (6, 1), (7, 1)]
    assert "1,200 cases over 1 of 1 pairs" in capsys.readouterr().out
    assert len((folder / "verdicts.jsonl").read_text().splitlines()) == 3

    monkeypatch.setattr(soak, "describe_code", lambda _: Code(commit="f" * 40, dirty="abc"))
    with pytest.raises(ResultsError, match="here is commit ffffffffffff with changes abc"):
        soak.run(_options(resume=folder), TABLE)


def test_a_pair_that_had_its_cases_is_left_out_of_the_next_round(monkeypatch):
    slow, quick, idle = (("plain", name, "G1") for name in ("slow", "quick", "idle"))
    cases = {slow: 120, quick: 600, idle: 0}
    found, rounds = {unit: [] for unit in cases}, []

    def judge(_, court, units, **__):
        rounds.append((court.seed, tuple(units)))
        for unit in units:
            found[unit].append(_row(Outcome.HOLDS, cases[unit]))
            yield found[unit][-1]

    monkeypatch.setattr(soak, "judge", judge)
    court = soak.Court(plugins=(), profile="soak", device="cpu", seed=5)
    list(soak._rounds(TABLE, court, found, 240, run_id="run", parallel=1, deadline_s=1e18))
    assert rounds == [(5, (slow, quick, idle)), (6, (slow,))]


def test_who_is_told_to_end_keeps_the_table_of_what_was_judged():
    command = [sys.executable, "-m", "harness", "soak", "--variant", "plain", "--processes", "1"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert running.stderr.read(1)  # the first count: something was judged
        running.terminate()
        out, _ = running.communicate(timeout=120)
    assert "cases over" in out
    assert running.returncode == 0


def test_a_rate_counts_the_cases_of_every_form():
    law, name, axes, forms, cases, rate = rates._row(LAW, [PLAIN], "2", 24, TABLE)
    assert (law, name, axes) == ("G1", "plain", "2")
    assert forms >= 1
    assert cases >= 24
    assert rate > 0
