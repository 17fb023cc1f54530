import argparse
import json

import pytest

from harness import profile
from harness.results import Recorder, load_run
from harness.table import load_table

pytest.importorskip("torch_tb_profiler")

CASE = "n1 c2>3 i6x6 k3x3 p1x1 float32 contiguous real seed0"


@pytest.fixture
def arguments(tmp_path):
    def parse(*words: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        profile.add_arguments(parser)
        folders = ["--out", str(tmp_path / "results"), "--traces", str(tmp_path / "traces")]
        return parser.parse_args([*folders, *words])

    return parse


def test_traces_and_operator_tables_of_every_implementation(arguments, tmp_path, capsys):
    options = arguments("--variant", "plain", "--case", CASE, "--device", "cpu")
    assert profile.run(options, load_table()) == 0
    assert "operator tables by torch-tb-profiler" in capsys.readouterr().out
    (folder,) = (tmp_path / "results").iterdir()
    assert load_run(folder).measurements == ()
    entries = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    assert [(e["variant"], e["implementation"]) for e in entries] == [
        ("plain", "library"), ("plain", "onednn")
    ]  # fmt: skip
    for entry in entries:
        names = {row["name"] for row in entry["operators"]}
        assert any("convolution" in name or "mm" in name for name in names)
        assert all(row["calls"] >= profile.CALLS for row in entry["operators"][:1])
        assert all(
            set(row) == {"name", "calls", "self_ns", "device_ns"} for row in entry["operators"]
        )
    traces = list((tmp_path / "traces" / folder.name).glob("*.pt.trace.json"))
    assert len(traces) == 2
    events = json.loads(traces[0].read_text(encoding="utf-8"))["traceEvents"]
    assert [e["name"] for e in events if str(e.get("name")).startswith("plain/")].count(
        f"plain/{traces[0].name.split('.')[1]}"
    ) >= profile.CALLS


def test_tables_can_be_added_to_another_run(arguments, tmp_path):
    options = arguments("--variant", "plain", "--case", CASE, "--device", "cpu")
    profile.run(options, load_table())
    (folder,) = (tmp_path / "results").iterdir()
    Recorder(folder).write_profile([])
    again = arguments("--variant", "plain", "--case", CASE, "--into", folder.name)
    profile.run(again, load_table())
    assert list((tmp_path / "results").iterdir()) == [folder]
    assert len(json.loads((folder / "profile.json").read_text(encoding="utf-8"))) == 2


def _cuda_trace() -> dict[str, object]:
    """Return what a trace of one operator that launches one kernel looks like on a device."""
    place = {"pid": 1, "tid": 1}
    return {
        "schemaVersion": 1,
        "deviceProperties": [{"id": 0, "name": "GPU", "totalGlobalMem": 10**9}],
        "traceEvents": [
            {"ph": "X", "cat": "cpu_op", "name": "aten::mm", **place, "ts": 100, "dur": 50,
             "args": {"External id": 1}},
            {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", **place, "ts": 110,
             "dur": 5, "args": {"External id": 1, "correlation": 7}},
            {"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": 120, "dur": 30,
             "args": {"External id": 1, "correlation": 7, "device": 0, "stream": 7,
                      "grid": [1, 1, 1], "block": [32, 1, 1], "registers per thread": 8,
                      "shared memory": 0, "blocks per SM": 1, "est. achieved occupancy %": 5}},
        ],
    }  # fmt: skip


def test_device_time_of_current_traces_is_not_lost(tmp_path):
    trace = _cuda_trace()
    (row,) = profile.operators_of_trace(trace, tmp_path / "trace.json")
    assert (row["name"], row["calls"], row["device_ns"]) == ("aten::mm", 1, 30_000)
    assert trace == _cuda_trace(), "the trace itself is left as it was"


def test_without_the_library_the_profiler_itself_gives_the_table(
    arguments, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(profile, "_has_library", lambda: False)
    profile.run(arguments("--variant", "plain", "--case", CASE, "--device", "cpu"), load_table())
    assert "operator tables by torch.profiler" in capsys.readouterr().out
    (folder,) = (tmp_path / "results").iterdir()
    entries = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    names = {row["name"] for row in entries[0]["operators"]}
    assert {"plain/library", "aten::convolution"} <= names
