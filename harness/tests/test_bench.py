import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import benchmark, clock, conclusion, proving, rounds
from harness.__main__ import main
from harness.bench.replay import ReplayTimer, recorded_cells
from harness.budget import Budget
from harness.comparison import compare, summarize, summarize_placebo
from harness.options import Options
from harness.plan import Selection, cell_of, make_plan
from harness.proof import Common
from harness.results import Measurement, Recorder, Status, load_run
from harness.table import load_table
from harness.terminal import Progress, print_verdicts

ROOT = Path(benchmark.__file__).resolve().parent.parent
PLANTED = Path(__file__).with_name("planted.py")
CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
SMALL = ["--variant", "plain", "--case", CASE, "--laws", "none", "--device", "cpu"]
QUICK = ["--processes", "2", "--blocks", "3"]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """Write results and pages into a folder of the test, and let children find the checkout."""
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def no_page(monkeypatch):
    """Leave out what comes after measuring and takes seconds."""
    monkeypatch.setattr(conclusion, "_run_pytest_benchmark", lambda *_: "")
    monkeypatch.setattr(conclusion, "_write_page", lambda *_: (Path("page.html"), ""))


def _only_run() -> Path:
    (folder,) = Path("results").iterdir()
    return folder


def test_a_run_ends_with_the_page_and_leaves_every_sample(capsys):
    named = ["--variant", "plain", "--case", "unet_bottleneck_8x8", "--laws", "none"]
    assert main(["bench", *named, *QUICK, "--device", "cpu", "--out", "results/"]) == 0
    folder = _only_run()
    output = capsys.readouterr().out.splitlines()
    assert output[-1] == f"report: reports/out/{folder.name}.html"
    assert Path(f"reports/out/{folder.name}.html").stat().st_size > 1000
    loaded = load_run(folder)
    measured = [row for row in loaded.measurements if row.status is Status.MEASURED]
    cells = Counter(cell_of(row) for row in measured)
    assert set(cells.values()) == {2}
    assert {(c.implementation, c.placebo) for c in cells} == {
        ("library", False), ("library", True), ("onednn", False)
    }  # fmt: skip
    for row in measured:
        assert row.block == (0, 1, 2)
        assert row.calls_per_sample >= 1
        assert row.proof.startswith("T1: error 0.")
        assert row.peak_bytes > 0
        assert (row.saved_bytes is None) == (row.direction == "forward")
    assert loaded.run.argv[3:6] == ("bench", "--variant", "plain")
    assert "--out" not in loaded.run.argv  # where a run went is not how it was made
    recorded = json.loads((folder / "pytest-benchmark.json").read_text(encoding="utf-8"))
    assert len(recorded["benchmarks"]) == len(cells)


def test_json_is_all_that_standard_output_holds(no_page, capsys):
    assert main(["bench", *SMALL, *QUICK, "--direction", "forward", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (row,) = [row for row in answer["comparisons"] if row["implementation"] == "onednn"]
    assert {"baseline", "ratio", "ratio_low", "ratio_high", "verdict"} <= set(row)
    assert answer["report"] == "page.html"


def test_whoever_is_wrong_crashes_or_hangs_has_a_row_and_no_number(no_page, monkeypatch, capsys):
    monkeypatch.setattr(proving, "PROBE_TIMEOUT_S", 12.0)
    monkeypatch.setattr(rounds, "HANG_S", 12.0)
    options = ["--direction", "forward", "--plugin", str(PLANTED), *QUICK]
    names = [
        "right", "onednn", "wrong", "raises", "dies", "hangs", "remembers_content",
        "dies_later", "hangs_later", "wrong_later", "allocates",
    ]  # fmt: skip
    chosen = [word for name in names for word in ("--implementation", name)]
    assert main(["bench", *SMALL, *options, *chosen]) == 1
    loaded = load_run(_only_run())
    found = {row.implementation: row for row in loaded.measurements if not row.placebo}
    expected = dict.fromkeys(("right", "onednn", "library"), Status.MEASURED) | {
        "wrong": Status.REFUTED, "remembers_content": Status.REFUTED,
        "wrong_later": Status.REFUTED, "raises": Status.CRASHED, "dies": Status.CRASHED,
        "allocates": Status.OUT_OF_MEMORY, "dies_later": Status.CRASHED, "hangs": Status.TIMED_OUT, "hangs_later": Status.TIMED_OUT,
    }  # fmt: skip
    assert {name: row.status for name, row in found.items()} == expected
    counts = Counter(row.implementation for row in loaded.measurements if not row.placebo)
    assert {name: counts[name] for name in ("right", "library", "dies_later")} == {
        "right": 2, "library": 2, "dies_later": 1
    }  # fmt: skip
    assert "error" in found["wrong"].reason
    assert "allocate" in found["allocates"].reason
    assert "SIGSEGV" in found["dies"].reason
    assert "SIGSEGV" in found["dies_later"].reason
    assert "no answer in 12 s" in found["hangs"].reason
    assert "ArithmeticError: out of order" in found["raises"].reason
    output = capsys.readouterr()
    assert "REFUTED plain/wrong" in output.err
    assert output.out.splitlines()[-1].startswith("report: ")


def test_every_number_of_threads_has_rows_of_its_own_and_is_compared_with_its_like(no_page, capsys):
    several = ["--threads", "1", "--threads", "2", "--direction", "forward"]
    assert main(["bench", *SMALL, *QUICK, *several, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    loaded = load_run(_only_run())
    assert " ".join(loaded.run.argv).count("--threads") == 2
    rows = [row for row in loaded.measurements if row.status is Status.MEASURED]
    counts = Counter((row.implementation, row.placebo, row.threads) for row in rows)
    assert set(counts.values()) == {2}
    assert {threads for *_, threads in counts} == {1, 2}
    assert len(counts) == 6
    for row in rows:
        assert bool(row.processors) is (row.flags == "pinned")
        assert not row.processors or len(row.processors) == row.threads
        assert len(row.block_steal_share) == len(row.block_load) == len(row.block) == 3
        assert len(row.block_involuntary_switches) == 3
        assert row.useful_flop == 2 * 3 * 2 * 9 * 36
        assert row.issued_flop == row.useful_flop
    compared = [c for c in answer["comparisons"] if c["status"] == "MEASURED"]
    assert Counter(c["threads"] for c in compared) == {1: 2, 2: 2}
    assert all(c["processes"] == 2 for c in compared)
    rates = {"copy_bytes_per_s", "float32_flop_per_s"}
    assert set(loaded.run.ceilings) == rates | {f"{name}_with_2_threads" for name in rates}
    assert all(rate > 0 for rate in loaded.run.ceilings.values())


def test_a_run_from_before_several_numbers_of_threads_is_resumed(tmp_path):
    options = Options(
        selection=Selection(threads=(2,)), processes=2, blocks=3, seed=0, laws="none", plugins=(),
        budget_s=None,
    )  # fmt: skip
    words = options.words()
    assert Options.from_words(words, tmp_path) == options
    assert Options.from_words({**words, "threads": "2"}, tmp_path) == options


def test_a_run_goes_on_where_it_was_cut_short(no_page):
    assert main(["bench", *SMALL, *QUICK, "--direction", "forward"]) == 0
    folder = _only_run()
    path = folder / "measurements.jsonl"
    whole = path.read_text(encoding="utf-8").splitlines(keepends=True)
    before = load_run(folder).measurements
    late = next(i for i, row in enumerate(before) if row.process == 1)
    # Killed within the last group of the last process, in the middle of a line.
    path.write_text("".join(whole[: late + 1]) + whole[late + 1][:40], encoding="utf-8")
    assert main(["bench", "--resume", folder.name]) == 0
    after = load_run(folder)
    assert after.damage == ()
    assert after.measurements[:late] == before[:late]
    rows = {(cell_of(row), row.process) for row in after.measurements}
    assert rows == {(cell_of(row), row.process) for row in before}
    # Only samples of one process pair: what was there of its group is measured again.
    again = [row for row in after.measurements[late + 1 :] if row.process == 1]
    assert len(again) == 3
    assert sum(row.process == 0 for row in after.measurements) == sum(
        row.process == 0 for row in before
    )
    assert main(["bench", "--resume", folder.name]) == 0
    assert load_run(folder).measurements == after.measurements


def test_an_interrupt_keeps_what_was_measured(tmp_path):
    command = [sys.executable, "-m", "harness", "bench", *SMALL, "--processes", "50"]
    process = subprocess.Popen(
        [*command, "--direction", "forward"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=tmp_path,
    )  # fmt: skip
    end = clock.monotonic_s() + 90
    while clock.monotonic_s() < end and process.poll() is None:
        found = list(Path("results").glob("*/measurements.jsonl"))
        if found and "MEASURED" in found[0].read_text(encoding="utf-8"):
            break
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 130
    loaded = load_run(_only_run())
    assert any(row.status is Status.MEASURED for row in loaded.measurements)
    assert any("interrupted" in note for note in loaded.run.notes)
    assert f"--resume results/{loaded.run.id}" in output


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--variant", "plian"], "no variant 'plian'.*did you mean 'plain'"),
        (["--variant", "plain", "--case", "nix"], "no case of plain 'nix'"),
        (["--case", "n1 c2>2 i3 k9"], "larger than the padded input"),
        (["--variant", "plain", "--implementation", "x"], "no implementation of plain 'x'"),
        (["--dtype", "float8"], "dtype='float8' must be one of"),
        (["--resume", "nowhere"], r"nowhere.run\.json: cannot be read"),
        (
            ["--variant", "plain", "--out", "/proc/nowhere"],
            r"/proc/nowhere.*cannot write run\.json",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, text, capsys):
    assert main(["bench", *words]) == 2
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if "Error" in line or "no " in line
    ][-1:]
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(line)
    assert not Path("results").exists()


def test_a_device_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "--device", "cuda"]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err


def test_a_budget_proves_what_is_least_measured_first_and_leaves_the_rest(monkeypatch, tmp_path):
    table = load_table()
    plan = make_plan(table, Selection(variants=("plain",), full=True, directions=("forward",)))
    options = Options(
        selection=Selection(), processes=2, blocks=3, seed=0, laws="none", plugins=(), budget_s=1.0
    )
    bench = benchmark.Benchmark(tmp_path, _described(), options, plan, table, Progress())
    measured, second = list(dict.fromkeys(cell.case for cell in plan.cells))[:2]
    done = next(cell for cell in plan.cells if cell.case == measured)
    bench.rows[done, 0] = _row()
    proved: list[str] = []
    now = [0.0]

    def prove_some(_, __, cells, *___):
        proved.append(cells[0].case)
        now[0] += 50.0

    monkeypatch.setattr(benchmark.Benchmark, "_prove_some", prove_some)
    monkeypatch.setattr(benchmark, "PROVED_AT_ONCE", 1)
    monkeypatch.setattr(clock, "monotonic_s", lambda: now[0])
    common = Common(plugins=(), device="cpu", threads=1, answers=tmp_path)
    bench._prove(common, Budget(60.0, now=lambda: now[0]))
    assert proved == [second]
    assert "cells were not proved; go on with --resume" in bench.run.notes[-1]
    bench._prove(common, Budget(None))
    assert len(proved) == 2


# -- pytest-benchmark --------------------------------------------------------------------------


def _row(**fields) -> Measurement:
    common: dict[str, Any] = {
        "run_id": "r", "variant": "plain", "implementation": "library", "case": CASE,
        "case_name": "small", "direction": "forward", "dtype": "float32", "device": "cpu",
        "threads": 1, "status": Status.MEASURED, "calls_per_sample": 2, "peak_bytes": 9,
        "proof": "T0: equal", "block": (0, 1, 2), "samples_ns": (1_234_567, 2_000_003, 1_500_001),
    }  # fmt: skip
    return Measurement(**common | fields)


def test_replayed_differences_are_the_samples_to_the_last_bit():
    seconds = [1.234567e-3, 7e-9, 0.1, 3.0000001]
    timer = ReplayTimer(seconds)
    assert [-(timer() - timer()) for _ in seconds] == seconds


def test_cells_that_failed_anywhere_are_not_shown():
    other = {"implementation": "onednn"}
    failed = {"status": Status.CRASHED, "block": (), "samples_ns": (), "process": 1}
    rows = [_row(), _row(process=1), _row(**other), _row(**other, **failed), _row(placebo=True)]
    first, second = recorded_cells(rows)
    assert (first.name, second.name) == (
        "plain-library-small-forward-float32",
        "plain-library-placebo-small-forward-float32",
    )
    assert len(first.seconds) == 6


def test_pytest_benchmark_shows_exactly_the_samples_that_were_taken(tmp_path):
    pytest.importorskip("pytest_benchmark")
    rows = [_row(), _row(process=1, samples_ns=(3, 4, 5)), _row(implementation="onednn")]
    recorder = Recorder(tmp_path / "run")
    recorder.write_run(_described())
    for row in rows:
        recorder.add(row)
    assert conclusion._run_pytest_benchmark(tmp_path / "run") == ""
    text = (tmp_path / "run" / "pytest-benchmark.json").read_text(encoding="utf-8")
    first, second = json.loads(text)["benchmarks"]
    assert first["stats"]["data"] == [s / 1e9 for row in rows[:2] for s in row.samples_ns]
    assert first["stats"]["rounds"] == 6
    assert first["stats"]["min"] == 3e-9
    assert first["stats"]["iterations"] == 1
    assert first["group"] == second["group"] == "plain small forward float32"
    assert first["name"] == "test_cell[plain-library-small-forward-float32]"
    assert first["extra_info"]["process"] == [0, 0, 0, 1, 1, 1]
    assert first["extra_info"]["proof"] == "T0: equal"


def test_several_numbers_of_threads_are_told_apart_everywhere(capsys):
    rows = [
        _row(threads=threads, process=process, implementation=name)
        for threads in (1, 2) for process in (0, 1) for name in ("library", "onednn")
    ]  # fmt: skip
    names = [cell.name for cell in recorded_cells(rows)]
    assert len(set(names)) == 4
    assert names[0] == "plain-library-small-forward-float32"
    assert names[-1] == "plain-onednn-small-forward-float32-2 threads"
    assert len({cell.group for cell in recorded_cells(rows)}) == 2
    comparisons = compare(rows, {"plain": "library"})
    assert [c.threads for c in comparisons] == [1, 2]
    print_verdicts(comparisons, summarize(comparisons), summarize_placebo(comparisons))
    text = capsys.readouterr().out
    assert "small 1 thread " in text
    assert "small 2 threads" in text
    one = [row for row in comparisons if row.threads == 1]
    print_verdicts(one, summarize(one), summarize_placebo(one))
    assert "thread" not in capsys.readouterr().out


def _described():
    made = benchmark.describe_run(load_table(), {}, argv=("bench",), device="cpu", threads=1)
    return replace(made, id="r")
