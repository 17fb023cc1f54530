"""Running out of memory is a status of its own, and nothing else is taken for it."""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.exhaustion import ended_by_memory, is_out_of_memory, kills_in, system_kills
from harness.isolation import End, Job, Pool

VAST = 2**50


def session(common: Any, cursor: Any):
    """Work for children: a word says how to run out of memory, or what looks like it."""
    del common, cursor

    def work(word: str) -> None:
        if word == "tensor":
            torch.empty(VAST)
        elif word == "limit":
            own = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            size = own * resource.getpagesize() + 2**24
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
            bytearray(2**30)
        elif word == "abort":
            sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
            sys.stderr.flush()
            os.abort()
        elif word == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

    return work


def test_exceptions_of_allocators_are_known_and_others_are_not():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(VAST)
    assert is_out_of_memory(caught.value)
    for error in (
        MemoryError(), torch.OutOfMemoryError("Tried to allocate 20.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ):  # fmt: skip
        assert is_out_of_memory(error)
    for error in (ValueError("out of memory"), RuntimeError("no such word"), KeyError("memory")):
        assert not is_out_of_memory(error)


def test_the_systems_own_count_is_read_where_it_has_one():
    assert kills_in("pgfault 5\noom_kill 12\nother 3\n") == 12
    assert kills_in("pgfault 5\n") is None
    found = system_kills()
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("code", "before", "now", "last", "expected"),
    [
        (-signal.SIGKILL, 3, 4, "", True),
        (-signal.SIGKILL, 3, 3, "out of memory", False),
        (-signal.SIGKILL, None, None, "", False),
        (-signal.SIGSEGV, 3, 4, "", False),
        (-signal.SIGABRT, 3, 3, "what(): std::bad_alloc", True),
        (0, 3, 4, "bad_alloc", False),
        (None, 3, 4, "bad_alloc", False),
    ],
)
def test_who_was_killed_for_memory_is_told_by_the_systems_count(code, before, now, last, expected):
    assert ended_by_memory(code, before, now, last) is expected


@pytest.mark.parametrize(
    ("word", "end", "text"),
    [
        ("tensor", End.OUT_OF_MEMORY, "allocate"),
        ("limit", End.OUT_OF_MEMORY, "MemoryError"),
        ("abort", End.OUT_OF_MEMORY, "out of memory: the process was ended by SIGABRT"),
        ("killed", End.CRASHED, "ended by SIGKILL"),
    ],
)
def test_the_end_of_a_process_says_whether_memory_ran_out(monkeypatch, tmp_path, word, end, text):
    source = Path(__file__).read_text(encoding="utf-8")
    (tmp_path / "exhausted_session.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = Pool(method="forkserver", parallel=1, scratch=tmp_path, preload=("harness.isolation",))
    job = Job(
        session="exhausted_session:session", common=None, units=[word], timeout_s=lambda _: 60.0
    )
    (report,) = pool.run([job])
    assert (report.end, text in report.text) == (end, True), report.text
