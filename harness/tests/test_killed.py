"""SIGKILL at any moment loses nothing that was finished, and the run is completed afterwards.

`CONVHARNESS_KILLS=50` kills the real benchmark so often; without it twice.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness import benchmark, clock
from harness.__main__ import main
from harness.options import occupied
from harness.plan import cell_of
from harness.results import LoadedRun, Measurement, Recorder, Status, load_run

ROOT = Path(benchmark.__file__).resolve().parent.parent
KILLS = int(os.environ.get("CONVHARNESS_KILLS", "2"))
KILLS_OF_A_WRITER = 48
LONGEST_S = 8.0
"""About what a run takes: it is killed at a moment drawn from there."""
CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
BENCH = [
    "bench", "--variant", "plain", "--case", CASE, "--laws", "none", "--device", "cpu",
    "--direction", "forward", "--processes", "2", "--blocks", "3",
]  # fmt: skip
WITHOUT_PAGE = (
    "from harness import conclusion as c, __main__ as m; "
    "c._run_pytest_benchmark = lambda *_: ''; c._write_page = lambda *_: (None, ''); "
    "import sys; sys.exit(m.main(sys.argv[1:]))"
)
WRITER = """
import dataclasses, sys
from pathlib import Path
from harness.results import Measurement, Recorder, Status, load_run

folder = Path(sys.argv[1])
recorder = Recorder(folder)
recorder.mend()
run = load_run(folder)
for number in range(len(run.measurements), 100_000):
    recorder.add(Measurement(
        run_id=run.run.id, variant="plain", implementation="library", case="n1", case_name="",
        direction="forward", dtype="float32", device="cpu", threads=1, process=number,
        block=tuple(range(3000)), samples_ns=tuple(range(1, 3001)), status=Status.MEASURED,
    ))
    recorder.write_run(dataclasses.replace(run.run, notes=(f"row {number}",)))
    print(number, flush=True)
"""


def _child(
    code: str, words: Iterable[str], folder: Path, said: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=folder, text=True, stdout=said,
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_a_writer_killed_at_random_moments_loses_no_row_that_it_finished(tmp_path):
    draw = random.Random(9)
    Recorder(tmp_path).write_run(_described())
    for _ in range(KILLS_OF_A_WRITER):
        process = _child(WRITER, [str(tmp_path)], tmp_path, subprocess.PIPE)
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(draw.randint(1, 4))]
        _pause(draw.uniform(0, 0.02))
        process.kill()
        acknowledged += process.communicate()[0].splitlines()
        found = load_run(tmp_path)
        rows = [row.process for row in found.measurements]
        assert rows == list(range(len(rows)))
        assert len(rows) > int(acknowledged[-1])
    assert len(rows) >= KILLS_OF_A_WRITER


def test_a_benchmark_killed_at_random_moments_is_completed_beside_another_one(tmp_path):
    draw, killed = random.Random(11), 0
    other = _child(WITHOUT_PAGE, BENCH, tmp_path)
    before: tuple[Measurement, ...] = ()
    mine: Path | None = None
    folders = [_wait_for_folder(tmp_path, other, set())]
    while killed < KILLS:
        words = ["bench", "--resume", str(mine)] if mine else BENCH
        process = _child(WITHOUT_PAGE, words, tmp_path)
        try:
            process.wait(draw.uniform(0, LONGEST_S))
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        process.wait()
        mine = mine or next(iter(_runs(tmp_path) - set(folders)), None)
        if mine is None:
            continue
        if process.returncode == 0:  # done before the moment came: begin another one
            _assert_complete(load_run(mine))
            folders, mine, before = [*folders, mine], None, ()
            continue
        assert process.returncode == -signal.SIGKILL
        found = load_run(mine).measurements
        assert found[: len(before)] == before
        before = found
    if mine:
        assert _child(WITHOUT_PAGE, ["bench", "--resume", str(mine)], tmp_path).wait(120) == 0
        assert load_run(mine).measurements[: len(before)] == before
        folders.append(mine)
    assert other.wait(120) == 0
    for folder in folders:
        _assert_complete(load_run(folder))


def test_a_run_that_is_being_measured_is_resumed_by_nobody_else(tmp_path, capsys):
    Recorder(tmp_path).write_run(_described())
    with occupied(tmp_path):
        assert main(["bench", "--resume", str(tmp_path)]) == 2
    assert "another process is measuring into it" in capsys.readouterr().err
    with occupied(tmp_path):
        pass


def _assert_complete(loaded: LoadedRun) -> None:
    assert loaded.damage == ()
    rows = {(cell_of(row), row.process): row for row in loaded.measurements}
    measured = [row for row in rows.values() if row.status is Status.MEASURED]
    names = sorted((row.implementation, row.placebo, row.process) for row in measured)
    assert names == sorted(
        (name, placebo, process)
        for name, placebo in (("library", False), ("library", True), ("onednn", False))
        for process in range(2)
    )
    assert {len(row.samples_ns) for row in measured} == {3}


def _described():
    from harness.table import load_table

    return benchmark.describe_run(load_table(()), {}, argv=("bench",), device="cpu", threads=1)


def _pause(seconds: float) -> None:
    end = clock.monotonic_s() + seconds
    while clock.monotonic_s() < end:
        pass


def _runs(folder: Path) -> set[Path]:
    return {path.parent for path in folder.glob("results/*/run.json")}


def _wait_for_folder(folder: Path, process: subprocess.Popen[str], known: set[Path]) -> Path:
    end = clock.monotonic_s() + 120
    while clock.monotonic_s() < end and process.poll() is None:
        if new := _runs(folder) - known:
            return new.pop()
        _pause(0.1)
    pytest.fail("the benchmark made no folder")
