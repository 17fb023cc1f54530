"""Goals are judged by their intervals, and what they compare can be called."""

import math

import pytest
import torch

from harness import goal, goal_command
from harness.case import ConvCase
from harness.comparison import compare
from harness.goal import Goal, Reach, Rival
from harness.results import Measurement, ResultsError, Status
from harness.table import UnknownName, load_table

LINE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
LAYERS = {"small": LINE, "smaller": LINE.replace("i6x6", "i4x4")}


def _goal(**changes):
    values = {
        "operation": "plain", "variant": "plain", "cases": LAYERS,
        "against": lambda case: Rival("plain", "library", str(case)), "limits": {"forward": 1.1},
    }  # fmt: skip
    return Goal(**(values | changes))


def _rows(ratios):
    """Return the comparisons of a contest in which every process finds these ratios."""
    return compare(
        Measurement(
            run_id="contest", variant="goal", implementation=name, case=f"0 forward {case}",
            case_name=case, direction="forward", dtype="float32", device="cpu", threads=1,
            process=process, block=(0, 1, 2), samples_ns=(round(time * (1 + process / 1e4)),) * 3,
            calls_per_sample=1, status=Status.MEASURED,
        )
        for process in range(3)
        for case, ratio in ratios.items()
        for name, time in ((goal.RIVAL, 1e6), (goal.BARE, ratio * 1e6), (goal.CALLED, 2e6))
    )  # fmt: skip


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
        for direction in directions[:1]:
            with torch.enable_grad():
                runs = goal.contest(f"{number} {direction} {smallest}", "cpu")
                assert list(runs) == [goal.RIVAL, goal.BARE, goal.CALLED]
                for run in runs.values():
                    run()


def test_memory_is_compared_with_the_rivals():
    result = goal._of_memory(load_table(), _goal(limits={"memory": 1.0}), "cpu")
    assert (result.reach, result.ratio) == (Reach.MET, 1.0)


def test_a_variant_without_goals_is_refused_with_those_that_have_some():
    with pytest.raises(UnknownName, match="plain"):
        goal_command._chosen(load_table(), ["plain"])


def test_a_lost_process_is_no_figure():
    with pytest.raises((RuntimeError, ResultsError), match="no_such_function"):
        goal.compete([goal.Entry("harness.goal:no_such_function", "x")], goal.Rules(1, 1))
