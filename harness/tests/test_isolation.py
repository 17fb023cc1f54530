import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import clock, isolation
from harness.isolation import End, Job, Last, Pool


def session(common: Any, cursor: Any) -> Callable[[str], Any]:
    """Work for children: a word says what to do."""
    if common == "does not start":
        sys.stderr.write("no such table\n")
        sys.exit(3)

    def work(word: str) -> Any:
        cursor.value = 7
        if word == "raise":
            raise LookupError("no such word")
        if word == "die":
            os.write(1, b"about to die\n")
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "last":
            return Last(("last", os.getpid()))
        if word == "leave":
            os._exit(5)
        if word == "hang":
            time.sleep(1000)
        return f"{common} {word} {os.environ.get('CONVHARNESS_TEST', '')}".strip(), os.getpid()

    return work


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(method="forkserver", parallel=2, scratch=tmp_path, preload=("harness.isolation",))


def _job(*units: str, common: str = "did", timeout_s: float = 20.0) -> Job:
    name = f"{session.__module__}:session"
    return Job(session=name, common=common, units=units, timeout_s=lambda _: timeout_s)


@pytest.fixture(autouse=True)
def _importable(monkeypatch, tmp_path):
    """Let children import this file whatever the name under which pytest did."""
    (tmp_path / "isolated_session.py").write_text(
        Path(__file__).read_text(encoding="utf-8"), encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(session, "__module__", "isolated_session")


def test_units_of_all_jobs_are_done_each_job_in_one_child(pool):
    reports = list(pool.run([_job("a", "b"), _job("c")]))
    found = {(r.job, r.unit): r.result for r in reports}
    assert {key: result[0] for key, result in found.items()} == {
        (0, 0): "did a", (0, 1): "did b", (1, 0): "did c"
    }  # fmt: skip
    assert found[0, 0][1] == found[0, 1][1] != os.getpid()


def test_an_exception_costs_its_unit_alone(pool):
    first, second = pool.run([_job("raise", "b")])
    assert (first.end, second.end) == (End.RAISED, End.DONE)
    assert first.text.startswith("LookupError: no such word")


@pytest.mark.parametrize(
    ("word", "text"),
    [("die", "ended by SIGSEGV: about to die"), ("leave", "ended with exit code 5")],
)
def test_a_crash_costs_its_unit_and_the_rest_goes_on_in_a_new_child(pool, word, text):
    before, crash, after = sorted(pool.run([_job("a", word, "b")]), key=lambda r: r.unit)
    assert (before.end, crash.end, after.end) == (End.DONE, End.CRASHED, End.DONE)
    assert text in crash.text
    assert crash.cursor == 7
    assert before.result[1] != after.result[1]


def test_after_a_last_result_the_units_that_wait_get_a_new_child(pool):
    first, second, third = sorted(pool.run([_job("last", "b", "c")]), key=lambda r: r.unit)
    assert [r.end for r in (first, second, third)] == [End.DONE] * 3
    assert first.result[0] == "last"
    assert first.result[1] != second.result[1] == third.result[1]
    assert first.alive_s >= first.waited_s >= 0


def test_a_hang_costs_its_unit(pool):
    hang, after = sorted(pool.run([_job("hang", "b", timeout_s=1.0)]), key=lambda r: r.unit)
    assert (hang.end, after.end) == (End.TIMED_OUT, End.DONE)
    assert hang.text == "no answer in 1 s"


def test_a_child_that_does_not_start_ends_its_job_not_the_others(pool):
    reports = list(pool.run([_job("a", "b", common="does not start"), _job("c")]))
    ends = {(r.job, r.unit): r.end for r in reports}
    assert ends == {(0, 0): End.CRASHED, (0, 1): End.CRASHED, (1, 0): End.DONE}
    assert "exit code 3: no such table" in next(r.text for r in reports if r.job == 0)


def test_a_deadline_ends_all_work(tmp_path):
    deadline = clock.monotonic_s() + 1.5
    pool = Pool(method="forkserver", parallel=1, scratch=tmp_path, deadline_s=deadline)
    reports = list(pool.run([_job("hang", "b"), _job("c")]))
    assert {r.end for r in reports} == {End.OUT_OF_TIME}
    assert len(reports) == 3
    assert not pool.children


def test_children_see_the_environment_and_the_parent_keeps_its_own(tmp_path):
    pool = Pool(
        method="spawn", parallel=1, scratch=tmp_path, environment={"CONVHARNESS_TEST": "set"}
    )
    (report,) = pool.run([_job("a")])
    assert report.result[0] == "did a set"
    assert "CONVHARNESS_TEST" not in os.environ


def test_ending_early_leaves_no_child(pool):
    reports = pool.run([_job("a", "hang")])
    next(reports)
    process = next(iter(pool.children.values())).process
    reports.close()
    assert not process.is_alive()


def test_a_long_text_is_cut_and_keeps_its_place():
    with pytest.raises(ValueError, match="x") as caught:
        raise ValueError("x\n" * 5000)
    text = isolation.error_text(caught.value)
    assert len(text) <= isolation.LONGEST_TEXT
    assert text.startswith("ValueError: x x")
    assert "test_isolation.py:" in text
