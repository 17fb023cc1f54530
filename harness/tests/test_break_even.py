"""Compilation over gain: the number of calls, `never`, or that it cannot be told."""

import random

import pytest

from harness import break_even, break_even_command
from harness.__main__ import main
from harness.break_even import EAGER, Pays, Seen, Subject
from harness.clock import CpuClock
from harness.contest import Rules
from harness.evidence import Made

CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
SUBJECT = Subject("plain", "compiled", "library", "forward", CASE)
MADE = Made(date="2026-01-31", commit="c0ffee", machine="a core", command="break-even")


def _seen(gains, compile_s=2.0):
    return [
        Seen((compile_s + 0.01 * i) * 1e9, 100e3, 100e3 - gain, gain, 10.0)
        for i, gain in enumerate(gains)
    ]


def test_it_pays_after_compilation_over_gain():
    result = break_even.judged(SUBJECT, _seen([20e3, 20.2e3, 19.8e3]))
    assert result.verdict is Pays.AFTER
    assert result.calls.mean == pytest.approx(2.01e9 / 20e3)
    assert result.calls.low < result.calls.mean < result.calls.high
    assert break_even_command.words_of(result).startswith("after 1e+05 calls [")


def test_the_interval_takes_the_worse_ends_of_both_parts():
    seen = _seen([20e3, 21e3, 19e3])
    result = break_even.judged(SUBJECT, seen)
    gain = break_even.Span.of([one.gain_ns for one in seen])
    assert result.calls.high > 2.01e9 / gain.low
    assert result.calls.low < 2.01e9 / gain.high


@pytest.mark.parametrize(
    ("gains", "verdict", "words"),
    [
        ([-5e3, -5.1e3, -4.9e3], Pays.NEVER, "never: it is not faster"),
        ([0.0, 0.0, 0.0], Pays.NEVER, "never: it is not faster"),
        ([5e3, -5e3, 1e3], Pays.UNRESOLVED, "UNRESOLVED: the gain of a call may be"),
        ([5e3], Pays.UNRESOLVED, "UNRESOLVED: an interval takes two processes"),
    ],
)
def test_where_nothing_is_gained_it_says_so(gains, verdict, words):
    result = break_even.judged(SUBJECT, _seen(gains))
    assert result.verdict is verdict
    assert result.calls is None
    assert break_even_command.words_of(result).startswith(words)


def test_the_first_call_is_what_compiles_and_no_sample():
    now = [0]

    def call(times):
        def run():
            now[0] += times.pop(0) if len(times) > 1 else times[0]

        return run

    contest = {EAGER: call([3_000_000]), "compiled": call([9_000_000_000, 2_000_000])}
    seen = break_even.look(contest, CpuClock(lambda: now[0]), 3, random.Random(0))
    assert seen.compile_ns == 9_000_000_000 - 2_000_000
    assert (seen.eager_ns, seen.compiled_ns, seen.gain_ns) == (3e6, 2e6, 1e6)
    assert seen.placebo_ns == 0


def test_the_table_holds_both_parts_and_the_placebo():
    results = [
        break_even.judged(SUBJECT, _seen([20e3, 20.2e3, 19.8e3])),
        break_even.Result(SUBJECT, Pays.FAILED, reason="timed out: no answer"),
    ]
    table = break_even_command.as_evidence(results, Rules(3, 2), MADE)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["compiles, s"], row["call before, µs"], row["placebo, µs"]) == (
        "2.01",
        "100",
        "0.01",
    )
    assert table.column("breaks even")[1] == "FAILED: timed out: no answer"
    assert "FAILED, timed out" in break_even_command.line_of(results[1])


def test_a_form_that_raises_is_a_row_with_its_reason():
    wrong = SUBJECT._replace(compiled="no_such_form")
    result = break_even.measure(wrong, Rules(1, 1))
    assert result.verdict is Pays.FAILED
    assert "no_such_form" in result.reason


def test_a_case_that_is_none_is_refused(capsys):
    assert main(["break-even", "--variant", "plain", "--case", "no_such_case"]) == 2
    assert "no_such_case" in capsys.readouterr().err
