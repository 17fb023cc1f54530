"""What every stage may take of a budget; the clock is played, so that no machine is too slow."""

import shlex
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness import benchmark, clock, conclusion, estimate, rounds
from harness.benchmark import Benchmark, describe_run
from harness.budget import FILE, PAGE, PROOFS, SAMPLES, SERVER, Budget
from harness.isolation import End, Report
from harness.options import Options
from harness.plan import Cell, GroupKey, Selection, make_plan
from harness.proof import Proof
from harness.results import Outcome, Status
from harness.table import load_table
from harness.terminal import Progress

TABLE = load_table()
CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
KEY = GroupKey("plain", CASE, "", "forward")


class Hands:
    """A clock whose hands are moved by whoever does something."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Read it."""
        return self.now

    def turn(self, seconds):
        """Move them."""
        self.now += seconds


@pytest.fixture
def hands(monkeypatch):
    found = Hands()
    monkeypatch.setattr(clock, "monotonic_s", found)
    return found


# -- stages ------------------------------------------------------------------------------------


def test_without_a_limit_every_stage_may_take_any_time(hands):
    budget = Budget(None, now=hands).without_closing()
    assert budget.stage(0.4, later=9.0) is budget.deadline_s is budget.left_s is None
    assert budget.can_sample(1e9)
    budget.borrow()
    assert budget.left_s is None


def test_a_budget_counts_from_when_the_command_began(hands):
    budget = Budget(60.0, began_s=90.0, now=hands)
    assert (budget.left_s, budget.deadline_s) == (50.0, 150.0)


def test_the_closing_is_left_over_and_never_takes_more_than_half(hands):
    whole = Budget(100.0, start_s=2.0, now=hands)
    assert whole.without_closing().left_s == 100.0 - 2.0 * (PAGE + FILE)
    assert whole.without_closing(0.6).left_s == pytest.approx(0.6 * (100.0 - 2.0 * (PAGE + FILE)))
    assert Budget(8.0, start_s=50.0, now=hands).without_closing().left_s == 4.0


def test_what_comes_first_leaves_what_a_first_timing_process_needs(hands):
    budget = Budget(50.0, start_s=4.0, now=hands)
    needed = 4.0 * (SERVER + PROOFS + SAMPLES)
    assert budget.stage(0.4, later=PROOFS + SAMPLES) == 4.0 * SERVER + 0.4 * (50.0 - needed)
    # the fork server is there from now on
    assert budget.stage(1.0, later=PROOFS + SAMPLES) == 50.0 - 4.0 * (PROOFS + SAMPLES)


def test_what_could_not_get_anything_done_is_not_begun_unless_all_depends_on_it(hands):
    budget = Budget(10.0, start_s=4.0, now=hands)
    assert budget.stage(0.4, later=PROOFS + SAMPLES) == 0.0
    assert budget.stage(0.6, own=PROOFS, later=SAMPLES, is_needed=True) == 10.0 - 4.0 * SAMPLES
    assert Budget(1.0, start_s=4.0, now=hands).stage(0.6, later=1.0, is_needed=True) == 0.0


def test_pytest_benchmarks_file_gives_way_to_a_proof(hands):
    budget = Budget(24.0, start_s=4.0, now=hands).without_closing()
    assert budget.left_s == 24.0 - 4.0 * (PAGE + FILE)
    few = SERVER + PROOFS + SAMPLES + 1.0
    assert budget.stage(0.0, own=few - SAMPLES, later=SAMPLES, is_needed=True) > 0
    assert budget.left_s == 24.0 - 4.0 * PAGE
    budget.borrow()
    assert budget.left_s == 24.0 - 4.0 * PAGE


def test_processes_that_time_does_not_suffice_for_leave_theirs_to_the_others(hands):
    calls = {KEY: [100_000_000] * 2}  # a block takes 0.2 s
    few, many = (Budget(60.0, start_s=10.0, now=hands).blocks(calls, n, 1000) for n in (4, 50))
    assert 10 < few < 30
    assert 3 <= many <= few
    assert Budget(0.1, start_s=10.0, now=hands).blocks(calls, 4, 1000) == 3


def test_the_age_of_a_process_leaves_out_what_its_shell_did_before():
    code = "from harness import clock; print(clock.age_s())"
    command = f"sleep 2; exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    before = clock.monotonic_s()
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    whole = clock.monotonic_s() - before
    assert 0 < float(done.stdout) <= whole - 2


# -- the stages of a run -----------------------------------------------------------------------


@pytest.fixture
def played(hands, monkeypatch, tmp_path):
    """Return a run whose stages move the hands: a law, a proof, a sample take so many seconds."""

    def play(law_s=0.0, proof_s=0.0, group_s=0.0, start_s=1.0, processes=2):
        options = Options(
            selection=Selection(variants=("plain",), cases=(CASE,)), processes=processes, blocks=3,
            seed=0, laws="quick", plugins=(), budget_s=None,
        )  # fmt: skip
        plan = make_plan(TABLE, options.selection)
        run = describe_run(TABLE, plan.baselines, argv=("bench",), device="cpu", threads=1)

        def judge(table, court, units, *, run_id, parallel, deadline_s):
            for variant, implementation, law in units:
                hands.turn(law_s)
                if deadline_s is not None and hands.now > deadline_s:
                    hands.now = deadline_s
                    return
                yield SimpleNamespace(
                    variant=variant, implementation=implementation, law=law, law_name="",
                    status=Outcome.HOLDS,
                )  # fmt: skip

        def prove(table, common, cells, threads, cores, deadline_s):
            for cell in dict.fromkeys(c.proved_as for c in cells):
                hands.turn(proof_s)
                late = deadline_s is not None and hands.now > deadline_s
                hands.now = min(hands.now, deadline_s) if late else hands.now
                end = End.OUT_OF_TIME if late else End.DONE
                result = None if late else Proof(proof="T0: equal", call_ns=1000)
                yield cell, Report(job=0, unit=0, end=end, result=result)

        def sample_process(setting, planned, scratch, deadline_s):
            hands.turn(start_s)
            for group in planned:
                hands.turn(group_s)
                if deadline_s is not None and hands.now > deadline_s:
                    hands.now = deadline_s
                    return
                yield [
                    rounds.Sampled(cell, group.process, Status.MEASURED, (0,), (1000,), 1)
                    for cell in group.cells
                ]

        monkeypatch.setattr(benchmark, "judge", judge)
        monkeypatch.setattr(benchmark, "prove", prove)
        monkeypatch.setattr(rounds, "sample_process", sample_process)
        monkeypatch.setattr(Benchmark, "_measure_ceilings", lambda *_: None)
        bench = Benchmark(tmp_path, run, options, plan, TABLE, Progress())
        monkeypatch.setattr(type(bench.recorder), "add", lambda *_: None)
        return bench

    return play


def _statuses(bench):
    return {row.status for (cell, _), row in bench.rows.items() if cell in set(bench.plan.cells)}


def test_slow_laws_leave_time_for_proofs_and_samples(played, hands):
    bench = played(law_s=5.0)
    bench.measure(Budget(40.0, start_s=1.0, now=hands))
    assert _statuses(bench) == {Status.MEASURED}
    assert hands.now <= 140.0
    assert any("were not judged" in note for note in bench.run.notes)


def test_without_laws_the_server_is_still_reckoned_with(played, hands):
    bench = played()
    bench.options = replace(bench.options, laws="none")
    budget = Budget(100.0, start_s=5.0, now=hands)
    bench._judge(budget)
    untouched = Budget(100.0, start_s=5.0, now=hands)
    assert budget.stage(0.5, own=1.0) == untouched.stage(0.5, own=1.0)


def test_a_slow_proof_ends_in_time_and_what_is_late_has_a_row_that_says_so(played, hands):
    bench = played(proof_s=3.0)
    bench.measure(Budget(12.0, start_s=1.0, now=hands))
    assert _statuses(bench) == {Status.MEASURED, Status.NO_TIME}
    assert hands.now <= 112.0
    late = [row for row in bench.rows.values() if row.status is Status.NO_TIME]
    assert {row.reason for row in late} == {benchmark.NO_TIME}
    assert {cell for cell, _ in bench.rows} >= set(bench.plan.cells)


@pytest.mark.parametrize("seconds", [0.5, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("slow", [{"group_s": 20.0}, {"start_s": 9.0}, {"proof_s": 50.0}])
def test_no_stage_outlasts_the_budget_and_no_cell_is_dropped(played, hands, seconds, slow):
    bench = played(**slow)
    bench.measure(Budget(seconds, start_s=1.0, now=hands))
    assert hands.now <= 100.0 + seconds
    assert {cell for cell, _ in bench.rows} >= set(bench.plan.cells)


def test_no_process_is_started_that_could_not_time_anything(played, hands, monkeypatch):
    bench = played(processes=5, start_s=6.0)
    started = []
    play = rounds.sample_process
    monkeypatch.setattr(
        rounds, "sample_process", lambda *given: (started.append(hands.now), play(*given))[1]
    )
    bench.measure(Budget(24.0, start_s=6.0, now=hands))
    assert 1 <= len(started) < 5
    assert all(moment + 6.0 < 124.0 for moment in started)
    assert any("no time for process 4" in note for note in bench.run.notes)


def test_the_placebo_of_what_failed_is_not_said_to_have_had_no_time(played):
    bench = played()
    for cell in bench.plan.cells:
        if not cell.placebo:
            bench.record(cell, status=Status.CRASHED, reason="as planned")
    bench._record_late()
    assert _statuses(bench) == {Status.CRASHED}


def test_what_had_no_time_is_tried_again(played, hands):
    bench = played(proof_s=50.0)
    bench.measure(Budget(10.0, start_s=1.0, now=hands))
    assert _statuses(bench) == {Status.NO_TIME}
    loaded = SimpleNamespace(measurements=tuple(bench.rows.values()), verdicts=())
    assert any(note.startswith("budget: ") for note in bench.run.notes)
    again = played()
    again = Benchmark(
        again.folder, bench.run, again.options, again.plan, TABLE, Progress(), before=loaded
    )
    again.measure(Budget(None))
    assert _statuses(again) == {Status.MEASURED}
    assert not any(note.startswith("budget: ") for note in again.run.notes)


# -- estimates ---------------------------------------------------------------------------------


def test_a_run_without_a_limit_says_how_long_it_takes_before_it_begins(played, capsys):
    bench = played()
    bench.measure(Budget(None, start_s=4.0))
    first, *_, last = [x for x in capsys.readouterr().err.splitlines() if "estimate" in x]
    cells = len(bench.plan.cells)
    assert f"{cells} cells, {2 * cells} times in all, 3 blocks each" in first
    assert "samples of" in last


def test_the_estimate_of_a_run_that_goes_on_is_that_of_what_is_left(played, capsys):
    bench = played()
    bench.measure(Budget(None, start_s=4.0))
    bench.rows = {key: row for key, row in bench.rows.items() if key[1] == 0}
    capsys.readouterr()
    bench.measure(Budget(None, start_s=4.0))
    first = next(x for x in capsys.readouterr().err.splitlines() if "estimate" in x)
    cells = len(bench.plan.cells)
    assert f"{cells} cells, {cells} times in all, 3 blocks each" in first


def test_the_estimate_grows_with_what_is_multiplied():
    calls = {KEY: [10**9] * 3}
    one = estimate.sampling_s([calls], 20, 4.0, "cpu")
    assert one > 60.0
    assert estimate.sampling_s([calls] * 5, 20, 4.0, "cpu") == pytest.approx(5 * one)
    assert estimate.sampling_s([calls, {}], 20, 4.0, "cpu") == one
    cell = Cell("plain", "library", CASE, "", "forward")
    assert estimate.called_ns(cell._replace(direction="backward")) == pytest.approx(
        3 * estimate.called_ns(cell), abs=2
    )


# -- the closing -------------------------------------------------------------------------------


def test_pytest_benchmark_that_has_no_time_is_named_with_its_command(tmp_path, monkeypatch):
    (tmp_path / "pytest-benchmark.json").write_text("of before")
    monkeypatch.setattr(clock, "monotonic_s", lambda: 10.0)
    said = conclusion._run_pytest_benchmark(tmp_path, 5.0)
    assert said.startswith("budget: no time for pytest-benchmark.json; ")
    assert "--benchmark-json" in said
    assert not (tmp_path / "pytest-benchmark.json").exists()
