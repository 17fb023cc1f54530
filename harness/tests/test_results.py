"""Rows survive a kill, and damage is never read as data."""

import gzip
import json
from dataclasses import asdict, replace

import pytest

from harness.machine import choose_device, describe_machine, describe_versions
from harness.results import Measurement, Recorder, ResultsError, Run, Status, load_run

ROW = Measurement(
    run_id="r", variant="v", implementation="i", case="n1 c1>1 i1 k1", case_name="small",
    direction="forward", dtype="float32", device="cpu", threads=1, status=Status.MEASURED,
    block=(0, 1), samples_ns=(5, 6), calls_per_sample=3,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    recorder = Recorder(tmp_path / "r")
    recorder.write_run(
        Run(
            id="r", started="2026-01-01T00:00:00Z", commit="c", dirty="", machine=describe_machine(),
            versions=describe_versions(), argv=("bench",), seed=0, device="cpu", threads=1,
            processes=1, blocks=2, catalogue=(),
        )
    )  # fmt: skip
    recorder.add(ROW)
    return recorder.folder


def test_rows_come_back_as_they_were(folder):
    Recorder(folder).add(replace(ROW, process=1))
    assert load_run(folder).measurements == (ROW, replace(ROW, process=1))


def test_a_last_line_cut_short_is_left_out_and_named(folder):
    with (folder / "measurements.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"run_id": "r", "vari')
    loaded = load_run(folder)
    assert loaded.measurements == (ROW,)
    assert loaded.damage == ("measurements.jsonl: the last line was cut short and is left out",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": "1"}, "threads='1' must be int"),
        ({"threads": True}, "threads=True must be int"),
        ({"surprise": 1}, "surprise is unknown"),
        ({"run_id": "other"}, "belongs to another run"),
        ({"status": "FINE"}, "'FINE' is not a valid Status"),
        ({"status": "CRASHED"}, "status=CRASHED with 2 samples_ns"),
        ({"block": [0]}, "block has 1 entries, samples_ns 2"),
    ],
)
def test_a_foreign_or_damaged_row_is_refused_with_its_place(folder, change, message):
    line = json.dumps({**asdict(ROW), **change}) + "\n"
    (folder / "measurements.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(ResultsError, match="measurements.jsonl:1.*" + message):
        load_run(folder)


def test_a_missing_field_is_named(folder):
    row = asdict(ROW)
    del row["variant"]
    (folder / "measurements.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(ResultsError, match="variant is missing"):
        load_run(folder)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "must be an object")])
def test_a_damaged_run_is_refused(folder, text, message):
    (folder / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=message):
        load_run(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ResultsError, match=r"nowhere/run.json: cannot be read: No such file"):
        load_run(tmp_path / "nowhere")


def test_an_unwritable_folder_is_a_clear_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    recorder = Recorder(tmp_path / "file" / "r")
    with pytest.raises(
        ResultsError, match="cannot append: Not a directory; all earlier rows are kept"
    ):
        recorder.add(ROW)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="device='cuda' needs a CUDA device"):
        choose_device("cuda")


def test_packed_rows_are_read_and_damage_to_them_is_named(folder):
    path = folder / "measurements.jsonl"
    packed, rows = path.with_name(f"{path.name}.gz"), path.read_bytes()
    packed.write_bytes(gzip.compress(rows))
    with pytest.raises(ResultsError, match="only one of them can be the rows"):
        load_run(folder)
    path.unlink()
    assert load_run(folder).measurements == (ROW,)
    whole = packed.read_bytes()
    for damaged in (whole[:-9], b"no gzip at all", whole[:12] + b"\xff" * 8 + whole[20:]):
        packed.write_bytes(damaged)
        with pytest.raises(ResultsError, match=r"measurements.jsonl.gz: cannot be read"):
            load_run(folder)


def test_packed_rows_that_a_resumed_run_follows_are_unpacked(folder):
    path = folder / "measurements.jsonl"
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    recorder = Recorder(folder)
    recorder.mend()
    recorder.add(replace(ROW, process=1))
    assert load_run(folder).measurements == (ROW, replace(ROW, process=1))
    assert not packed.exists()
