"""Growth is fitted and compared with what is declared; time is played by counted operations."""

import argparse
import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch

from harness import clock, contest, gate, growth, growth_command, hunt, overgrowth
from harness.__main__ import main
from harness.case import CaseError, ConvCase
from harness.comparison import compare
from harness.contest import Rules
from harness.evidence import Made, load_evidence
from harness.growth import Growth, Ladder, Verdict, enlarged
from harness.meter import Meter
from harness.proof import Proof
from harness.table import Table, load_table
from harness.variant import Cost, Implementation

TABLE = load_table()
PLAIN = TABLE.variant("plain")
LINE = "n2 c4>4 i8x8 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
MADE = Made(date=f"{datetime(2026, 1, 31, tzinfo=UTC):%Y-%m-%d}", commit="c0ffee", machine="a core",
            command="growth")  # fmt: skip
FEW = Rules(3, 2)


def _quadratic(x, weight, bias, **keywords):
    """Convolve every sample once for every sample: quadratic in the batch."""
    samples = []
    for number in range(len(x)):
        for _ in range(len(x)):
            once = PLAIN.reference.load()(x[number : number + 1], weight, bias, **keywords)
        samples.append(once)
    return torch.cat(samples)


def _planted(name="quadratic", load=lambda: _quadratic, cost=PLAIN.reference.cost):
    form = Implementation(name=name, load=load, cost=cost)
    return replace(PLAIN, implementations=(*PLAIN.implementations, form))


@pytest.fixture
def counted(monkeypatch):
    """Let every contest take as long as it counts operations; put an implementation beside ours."""

    def play(variant=None):
        table = Table(
            variants={**TABLE.variants, "plain": variant or _planted()}, laws=TABLE.laws,
            failures=(),
        )  # fmt: skip

        def compete(entries, rules, seed=0):
            del seed
            rows = []
            for entry in entries:
                runs = growth.contest(entry.case, entry.device)
                first, *_ = counts = {(label, False): _flops(run) for label, run in runs.items()}
                counts[first[0], True] = counts[first]
                for process in range(rules.processes):
                    takes = {k: 10 * n + 1 + process for k, n in counts.items()}
                    result = {k: (1, [clock.Sample(ns, ns)] * 2) for k, ns in takes.items()}
                    rows += contest._rows(entry, process, 1, result)
            return compare(rows)

        monkeypatch.setattr(growth, "load_table", lambda: table)
        monkeypatch.setattr(growth, "compete", compete)
        # children do not know what is planted here
        for module in (hunt, overgrowth):
            monkeypatch.setattr(module, "unproved", lambda *_: {})
        return table

    return play


def _flops(run):
    with Meter() as meter:
        run()
    return meter.count.flops


def _ladder(axis, name="quadratic", line=LINE):
    return Ladder("plain", name, "forward", axis, overgrowth.SEARCHED[axis], line)


# -- ladders -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "step", "changed"),
    [
        ("image", 3, "i24x24"), ("channels", 2, "c8>8"), ("batch", 4, "n8"), ("kernel", 2, "k5x5 p2x2"),
    ],
)  # fmt: skip
def test_a_rung_grows_in_one_size_alone(axis, step, changed):
    large = enlarged(ConvCase.parse(LINE), axis, step)
    words = str(large).split()
    assert set(changed.split()) == set(words) - set(LINE.split())
    assert large.out_size == ConvCase.parse(LINE).out_size or axis == "image"


def test_sources_grow_with_the_channels():
    case = ConvCase.parse("n1 c3+0+5+6>8 i8x8 k3x3")
    assert enlarged(case, "channels", 2).sources == (6, 0, 10, 12)


def test_an_unknown_size_is_refused():
    with pytest.raises(CaseError, match="axis='depth' must be one of image, channels"):
        enlarged(ConvCase.parse(LINE), "depth", 2)


def test_every_variant_has_a_ladder_of_every_size():
    options = argparse.ArgumentParser()
    growth_command.add_arguments(options)
    chosen = options.parse_args([])
    for variant in TABLE.variants.values():
        assert [x.axis for x in growth_command.ladders(chosen, TABLE, variant)] == [*growth.AXES]


# -- exponents ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "exponent"), [("image", 2.0), ("channels", 2.0), ("batch", 1.0), ("kernel", 2.0)]
)
def test_the_library_grows_as_its_operations_do(counted, axis, exponent):
    counted()
    (row,), placebos = growth.judge([_ladder(axis, "library")], FEW, 0)
    assert row.exponent == pytest.approx(exponent, abs=0.05)
    assert row.low <= row.exponent <= row.high
    assert row.declared == pytest.approx(exponent, abs=0.05)
    assert row.verdict is Verdict.WITHIN
    assert len(row.times_ns) == 3
    assert [p.ratio for p in placebos] == [1.0]


def test_what_grows_quadratically_though_it_declares_a_linear_cost_is_found(counted):
    counted()
    (row,), _ = growth.judge([_ladder("batch")], FEW, 0)
    assert row.exponent == pytest.approx(2.0, abs=0.01)
    assert row.declared == pytest.approx(1.0, abs=0.05)
    assert row.verdict is Verdict.BEYOND
    assert growth.line_of(row).startswith("BEYOND     plain/quadratic forward batch")


def test_what_declares_quadratic_growth_may_grow_so(counted):
    def cost(case, _):
        return Cost(flops=2 * case.n * case.macs)

    counted(_planted(cost=cost))
    assert growth.judge([_ladder("batch")], FEW, 0)[0][0].verdict is Verdict.WITHIN


@pytest.mark.parametrize("cost", [None, lambda *_: Cost(flops=None)])
def test_what_declares_nothing_is_not_judged(counted, cost):
    counted(_planted(cost=cost))
    assert growth.judge([_ladder("batch")], FEW, 0)[0][0].verdict is Verdict.UNDECLARED


def test_bytes_may_grow_faster_than_operations():
    cheap = Implementation(name="x", load=lambda: None, cost=lambda *_: Cost(flops=7))
    rungs = [enlarged(ConvCase.parse(LINE), "image", step) for step in (1, 2, 4)]
    assert growth.declared(PLAIN, cheap, rungs, "image") == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.9, 2.1, "WITHIN"), (2.1, 2.4, "UNRESOLVED"), (2.3, 2.4, "BEYOND"), (None, None, "UNRESOLVED")],
)  # fmt: skip
def test_the_whole_interval_decides(low, high, verdict):
    assert Growth(_ladder("image"), 2.2, low, high, 2.0).verdict == verdict


# -- the law -----------------------------------------------------------------------------------


def test_a_violation_is_confirmed_and_made_small(counted):
    table = counted()
    found = overgrowth.confirmed(table, _ladder("batch"), seed=0, deadline_s=1e18, wrong={})
    case = ConvCase.parse(found.case)
    assert (case.n, case.c_in, case.c_out, case.spatial_dims) == (1, 1, 1, 1)
    table = overgrowth.violations([found], {}, 9, 0, MADE)
    assert table.column("replay")[0].endswith(f"--axis batch --case '{found.case}'")
    assert "9 ladders of three sizes drawn from seed 0" in table.about


@pytest.mark.parametrize(("right_at", "expected"), [({1}, None), ({3, 4}, None), ({3}, "first")])
def test_what_does_not_recur_is_no_violation(right_at, expected):
    case = ConvCase.parse(LINE)
    asked = []

    def judge(candidate, rules, number):
        asked.append(number)
        return None if number in right_at else "beyond"

    found = hunt.confirmed(case, PLAIN, judge, bool, seed=0, deadline_s=1e18)
    assert found == (None if expected is None else (case, "beyond"))
    assert asked[0] == 1
    assert {1, 3}.issuperset(asked[-1:]) or asked[-1] == 4


def test_the_search_finds_what_was_planted(counted, capsys, monkeypatch, tmp_path):
    planted = _planted()
    library, quadratic = planted.reference, planted.implementations[-1]
    table = counted(replace(planted, implementations=(library, quadratic)))
    monkeypatch.setattr(overgrowth, "EVIDENCE", tmp_path)
    monkeypatch.setattr(hunt, "CONFIRM", FEW)
    ticks = itertools.count()
    monkeypatch.setattr(clock, "monotonic_s", lambda: next(ticks))
    options = argparse.ArgumentParser()
    growth_command.add_arguments(options)
    words = ["--search", "--variant", "plain", "--budget-s", "150", "--seed", "3", "--write"]
    assert growth_command.run(options.parse_args(words), table) == 1
    said = capsys.readouterr().out
    assert "BEYOND     plain/quadratic" in said
    assert "plain/library" not in said
    (kept,) = overgrowth._kept()[:1]
    assert (kept.implementation, kept.axis) == ("quadratic", "batch")


def test_who_is_wrong_is_neither_timed_nor_called_slow(counted, capsys, monkeypatch, tmp_path):
    table = counted()
    monkeypatch.setattr(overgrowth, "EVIDENCE", tmp_path)
    monkeypatch.setattr(hunt, "unproved", lambda needed: dict.fromkeys(needed, "output differs"))
    monkeypatch.setattr(growth, "judge", lambda *_: pytest.fail("timed"))
    ticks = itertools.count(step=40)
    monkeypatch.setattr(clock, "monotonic_s", lambda: next(ticks))
    options = argparse.ArgumentParser()
    growth_command.add_arguments(options)
    words = ["--search", "--variant", "plain", "--budget-s", "150", "--seed", "3", "--write"]
    assert growth_command.run(options.parse_args(words), table) == 1
    said = capsys.readouterr().out
    assert "UNPROVED plain " in said
    assert "BEYOND" not in said
    (kept,) = load_evidence(tmp_path)
    assert set(kept.column("verdict")) == {"UNPROVED"}
    assert set(kept.column("replay")) == {"output differs"}
    assert {one.variant for one in overgrowth._kept()} == {"plain"}


def test_drawn_ladders_have_three_rungs_of_who_declares_a_cost():
    found = overgrowth.suspects(TABLE.variant("partial"), seed=0, count=4)
    assert len(found) == 4
    for one in found:
        variant = TABLE.variant(one.variant)
        form = TABLE.implementation(variant, one.implementation)
        assert form.cost is not None
        assert len(one.rungs(variant, form)) == 3


# -- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--axis", "batch"], []])
def test_a_wrong_implementation_is_not_timed(counted, capsys, monkeypatch, words):
    counted()
    # only the first rung, from which all sizes grow
    monkeypatch.setattr(gate, "examine", lambda cells, *_: {
        cell: Proof(reason="output differs" if cell == cells[0] else "") for cell in cells
    })  # fmt: skip
    assert main(["growth", "--variant", "plain", *words]) == 1
    said = capsys.readouterr().out
    assert "not timed: library on n1 c8>8" in said
    assert "output differs" in said
    assert "exponent" not in said


def test_a_case_from_which_too_little_grows_is_refused(capsys):
    line = LINE.replace("c4>4", "c1>1").replace("g1", "g1") + " padding_mode=reflect"
    words = ["--variant", "plain", "--implementation", "onednn", "--axis", "batch"]
    assert main(["growth", *words, "--case", line.replace("float32", "float64")]) == 2
    assert "sizes of the batch from" in capsys.readouterr().err


def test_a_sweep_on_the_real_clock_has_an_exponent_a_ladder(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(growth_command, "EVIDENCE", tmp_path)
    words = ["--variant", "plain", "--implementation", "library", "--axis", "image", "--processes", "2",
             "--blocks", "2", "--write"]  # fmt: skip
    assert main(["growth", *words]) in {0, 1}
    (kept,) = load_evidence(tmp_path)
    ((*_, exponent, _, _, declared, _, times),) = kept.rows
    assert 0.2 < exponent < 4
    assert declared.startswith(("1.9", "2.0"))
    assert len(times.split(", ")) == 5
    assert "plain/library forward image: exponent" in capsys.readouterr().out
