"""Goals are judged by their intervals, and what they compare can be called."""

import argparse
import math
from dataclasses import replace

import pytest
import torch

from harness import goal, goal_command
from harness.case import ConvCase
from harness.comparison import compare
from harness.contest import Rules
from harness.evidence import Made
from harness.goal import Goal, Reach, Rival, Tried, Trying
from harness.isolation import End, Report
from harness.results import Measurement, ResultsError, Status
from harness.table import UnknownName, load_table

LINE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
MADE = Made(date="2026-01-31", commit="c0ffee", machine="a core", command="goals")
LAYERS = {"small": LINE, "smaller": LINE.replace("i6x6", "i4x4")}


def _goal(**changes):
    values = {
        "operation": "plain", "variant": "plain", "cases": LAYERS,
        "against": lambda case: Rival("plain", "library", str(case)), "limits": {"forward": 1.1},
    }  # fmt: skip
    return Goal(**(values | changes))


def _rows(ratios):
    """Return the comparisons of a contest in which every process finds these ratios."""
    return compare(_measured(ratios))


def _measured(ratios):
    return [
        Measurement(
            run_id="contest", variant="goal", implementation=name, case=f"0 forward {case}",
            case_name=case, direction="forward", dtype="float32", device="cpu", threads=1,
            process=process, block=(0, 1, 2), samples_ns=(round(time * (1 + process / 1e4)),) * 3,
            calls_per_sample=1, status=Status.MEASURED,
        )
        for process in range(3)
        for case, ratio in ratios.items()
        for name, time in ((goal.RIVAL, 1e6), (goal.BARE, ratio * 1e6), (goal.CALLED, 2e6))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "every", "expected"),
    [
        ({"small": 1.0, "smaller": 1.05}, False, Reach.MET),
        ({"small": 1.3, "smaller": 1.2}, False, Reach.MISSED),
        ({"small": 1.3, "smaller": 0.8}, False, Reach.MET),
        ({"small": 1.3, "smaller": 0.8}, True, Reach.MISSED),
    ],
)
def test_a_goal_is_judged_by_its_mean_or_by_every_case(ratios, every, expected):
    result = goal._of_time(_goal(every=every), "forward", _rows(ratios))
    assert result.reach is expected
    assert result.slowest.startswith("small" if ratios["small"] > 1.1 else "smaller")
    assert math.isclose(result.called, 2.0, rel_tol=1e-3)


@pytest.mark.parametrize(("every", "expected"), [(False, 1.25**0.5), (True, 1.0)])
def test_a_floor_is_of_all_cases_or_of_the_one_that_decides(every, expected):
    ratios = {"small": 1.3, "smaller": 1.2}
    lowest = compare(
        replace(row, implementation=goal.FLOOR) if row.implementation == goal.BARE else row
        for row in _measured({"small": 1.0, "smaller": 1.25})
        if row.implementation in {goal.RIVAL, goal.BARE}
    )
    rows = [*_rows(ratios), *lowest]
    one = _goal(every=every, floor=lambda *_: list)
    result = goal._of_time(one, "forward", rows)
    assert math.isclose(result.floor, expected, rel_tol=1e-3)
    assert result.is_barred is not every  # 1.118 is above the limit of 1.1
    assert ("above the limit" in goal_command.line_of(result)) is result.is_barred


def test_every_layer_is_kept_with_what_runs_it():
    result = goal._of_time(_goal(), "forward", _rows({"small": 1.3, "smaller": 1.2}))
    memory = goal._of_memory(_goal(limits={"memory": 1.0}), {"small": Tried("", 100, 80, 40)})
    table = goal_command.by_layer("goals", [result, memory], MADE, "cpu")
    assert table.name == "goals_layers"
    assert table.column("layer") == ("small", "smaller", "small")
    assert table.column("direction") == ("forward", "forward", "memory")
    assert set(table.column("implementation")) == {"library"}
    assert table.column("ratio") == pytest.approx((1.3, 1.2, 1.25), rel=1e-3)
    assert table.column("as called")[2] == ""
    assert table.column("floor")[2] == 0.5
    for low, ratio, high in zip(*map(table.column, ("from", "ratio", "to")), strict=True):
        assert low <= ratio <= high


def test_of_many_cases_at_the_limit_none_is_missed_by_its_chance():
    (row, *_) = _rows({"small": 1.1})
    row = replace(row, process_ratios=tuple(math.exp(log) for log in (0.09, 0.10, 0.11)))
    # t(0.975; 2) = 4.3027 and t(1 - 0.025/18; 2) = 18.93, times 0.01 / sqrt(3)
    assert math.log(goal._low_end(row, 1)) == pytest.approx(0.10 - 0.024842, abs=1e-5)
    assert math.log(goal._low_end(row, 18)) == pytest.approx(0.10 - 0.1093, abs=1e-3)


def test_a_part_of_the_goals_does_not_replace_the_table():
    words = argparse.ArgumentParser()
    goal_command.add_arguments(words)
    with pytest.raises(ResultsError, match="leave out --variant"):
        goal_command.run(words.parse_args(["--variant", "partial", "--write"]), load_table())


def test_an_interval_across_the_limit_decides_nothing():
    assert goal._reach(1.0, 1.2, limit=1.1) is Reach.UNRESOLVED


def test_a_limit_counts_in_what_share_of_the_work_a_case_needs():
    shares = {"i6x6": 0.25, "i4x4": 1.0}
    some = _goal(share=lambda case: shares[f"i{'x'.join(map(str, case.in_size))}"])
    assert math.isclose(some.limit("forward"), 1.1 * 0.5)


def test_a_contest_of_every_goal_can_be_called():
    for number, one in enumerate(goal.load_goals()):
        directions = [direction for direction in one.limits if direction != goal.MEMORY]
        sizes = {name: ConvCase.parse(line).macs for name, line in one.cases.items()}
        smallest = min(sizes, key=lambda name: sizes[name])
        for direction in directions if one.floor else directions[:1]:
            with torch.enable_grad():
                runs = goal.contest(f"{number} {direction} {smallest}", "cpu")
                floor = [goal.FLOOR] if one.floor else []
                assert list(runs) == [goal.RIVAL, goal.BARE, goal.CALLED, *floor]
                for run in runs.values():
                    run()


def test_memory_is_compared_with_the_rivals():
    found = {"small": Tried("", 100, 100, 80), "smaller": Tried("", 50, 200, 10)}
    result = goal._of_memory(_goal(limits={"memory": 0.6}), found)
    assert (result.reach, result.ratio) == (Reach.MET, pytest.approx(0.5))
    assert (result.floor, result.is_barred) == (pytest.approx(0.2), False)
    assert goal._of_memory(_goal(limits={"memory": 0.6}, every=True), found).reach is Reach.MISSED


@pytest.fixture
def one_goal(monkeypatch):
    """Let there be one small goal, also for the children that are forked."""
    only = _goal(cases={"small": LINE}, limits={"forward": 1.1, "memory": 1.0})
    monkeypatch.setattr(goal, "load_goals", lambda: (only,))
    return only


def _in_this_process(session, common, units):
    work = getattr(goal, session.partition(":")[2])(common, None)
    for unit in units:
        yield unit, Report(job=0, unit=0, end=End.DONE, result=work(unit))


def test_all_contenders_are_proved_and_their_memory_measured(one_goal, monkeypatch):
    monkeypatch.setattr(goal, "in_children", _in_this_process)
    (found,) = goal.prove(one_goal, [Trying(0, "memory", "small")]).values()
    assert found.reason == ""
    assert found.own_bytes == found.rival_bytes > 0


def test_a_contender_that_is_wrong_is_a_row_without_a_ratio(one_goal, monkeypatch):
    monkeypatch.setattr(goal, "in_children", _in_this_process)
    form = goal._functional
    monkeypatch.setattr(goal, "_functional", lambda v: lambda *t, **k: form(v)(*t, **k) + 1)
    results = list(goal.judge_goals([one_goal], Rules(1, 1)))
    assert [result.reach for result in results] == [Reach.UNPROVED] * 2
    assert results[0].ratio is None
    assert "small: functional form: output differs" in results[0].reason
    assert goal_command.line_of(results[0]).startswith("UNPROVED   plain, forward: small:")
    table = goal_command.as_evidence("goals", results, Rules(1, 1), MADE)
    assert table.rows[0][3] == ""
    assert "output differs" in table.column("slowest case")[0]


def test_what_children_print_while_memory_is_measured_stays_off_the_terminal(capfd):
    first = goal.load_goals()[0]
    line = min(first.cases, key=lambda name: ConvCase.parse(first.cases[name]).macs)
    (found,) = goal.prove(first, [Trying(0, "memory", line)]).values()
    assert found.reason == ""
    assert found.own_bytes > 0
    captured = capfd.readouterr()
    assert "profiler" not in captured.out + captured.err


def test_the_placebo_is_shown_and_kept():
    rows = _rows({"small": 1.0})
    (null,) = compare(
        replace(row, implementation=goal.RIVAL, placebo=True)
        if row.implementation == goal.BARE
        else row
        for row in _measured({"small": 1.02})
        if row.implementation in {goal.RIVAL, goal.BARE}
    )
    result = goal._of_time(_goal(), "forward", [*rows, null])
    assert "placebo within 2.0%" in goal_command.line_of(result)
    table = goal_command.as_evidence("goals", [result], Rules(3, 3), MADE)
    assert table.column("placebo") == ("2.0%",)


def test_a_variant_without_goals_is_refused_with_those_that_have_some():
    with pytest.raises(UnknownName, match="plain"):
        goal_command._chosen(load_table(), ["plain"])


def test_a_lost_process_is_no_figure():
    with pytest.raises((RuntimeError, ResultsError), match="no_such_function"):
        goal.compete([goal.Entry("harness.goal:no_such_function", "x")], goal.Rules(1, 1))
