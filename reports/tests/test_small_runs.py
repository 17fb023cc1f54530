"""Runs that hold little, strange names, or very much, and the words for numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.results import Measurement, Recorder, ResultsError, Status, load_run
from reports import frame
from reports.page import write_page
from reports.tests.sample_run import (
    Structure,
    describe_run,
    make_run,
)
from reports.words import format_bytes, format_ratio, format_time


def test_a_run_that_measured_nothing_still_gives_a_page(tmp_path: Path) -> None:
    Recorder(tmp_path).write_run(describe_run("empty", ("partial",), 1, 1))
    text = "".join(Structure(write_page(tmp_path, tmp_path / "p.html").read_text("utf-8")).words)
    assert "nothing of this variant was timed" in text
    assert "No law was checked in this run" in text
    assert "It claims:" in text


def test_one_process_and_one_implementation_give_a_page(tmp_path: Path) -> None:
    Recorder(tmp_path).write_run(describe_run("small", ("partial",), 1, 1))
    row = Measurement(
        run_id="small", variant="other", implementation="eager", case="as another version wrote it",
        case_name="", direction="forward", dtype="float32", device="cpu", threads=1, block=(0,),
        samples_ns=(12_345,), status=Status.MEASURED,
    )  # fmt: skip
    Recorder(tmp_path).add(row)
    with (tmp_path / "measurements.jsonl").open("a") as file:
        file.write('{"run_id": "sma')
    text = "".join(Structure(write_page(tmp_path, tmp_path / "p.html").read_text("utf-8")).words)
    assert "12.3 µs" in text
    assert "as another version wrote it" in text
    assert "the last line was cut short" in text
    assert "no ratio; its cells: 1 × measured" in text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"run\.json: cannot be read"):
        write_page(tmp_path, tmp_path / "p.html")


def test_cells_of_one_name_are_told_apart() -> None:
    common: dict[str, Any] = {"run_id": "r", "variant": "v", "implementation": "i", "device": "cpu"}
    common |= {"direction": "forward", "case_name": "stem"}
    rows = [
        Measurement(
            **common, case=f"{dtype} case", dtype=dtype, threads=threads, status=Status.CRASHED
        )
        for dtype in ("float32", "float16")
        for threads in (1, 2)
    ]
    labels = set(frame.case_labels(rows).values())
    assert "stem · float16 · 2 threads" in labels
    assert len(labels) == 4
    assert set(frame.case_labels(rows[:1]).values()) == {"stem"}


def test_names_that_no_font_holds_give_a_page(tmp_path: Path) -> None:
    Recorder(tmp_path).write_run(describe_run("glyphs", ("partial",), 2, 2))
    for process in range(2):
        for name in ("eager", "\x1b[31m\ud800 卷积 🚀"):
            Recorder(tmp_path).add(
                Measurement(
                    run_id="glyphs",
                    variant="partial",
                    implementation=name,
                    case="?\x00",
                    case_name="\x07",
                    direction="forward",
                    dtype="float32",
                    device="cpu",
                    threads=1 + process,
                    block=(0, 1),
                    samples_ns=(100, 120 + process),
                    status=Status.MEASURED,
                )
            )
    text = "".join(Structure(write_page(tmp_path, tmp_path / "p.html").read_text("utf-8")).words)
    assert "卷积 🚀" in text
    assert "cpu, 2 threads" in text
    assert "an interval takes two processes" in text


def test_three_hundred_cells_are_small(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    folder = make_run(tmp_path / "run", variants=6, processes=5, blocks=4)
    assert len(frame.cells_frame(load_run(folder), ())) >= 300
    target = write_page(folder, tmp_path / "p.html")
    assert target.stat().st_size < 1_500_000


def test_numbers_carry_units_and_three_digits() -> None:
    assert [format_time(ns) for ns in (None, 999, 1_234, 56_789_000, 1.5e9)] == [
        "", "999 ns", "1.23 µs", "56.8 ms", "1.50 s",
    ]  # fmt: skip
    assert [format_bytes(n) for n in (None, 0, 1536, 5 * 2**20)] == [
        "",
        "0 B",
        "1.50 KiB",
        "5.00 MiB",
    ]
    assert [format_ratio(r) for r in (None, 0.0123, 0.705, 2.5, 31.25)] == [
        "", "0.012", "0.705", "2.50", "31.2",
    ]  # fmt: skip
