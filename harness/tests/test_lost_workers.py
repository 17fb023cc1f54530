"""An implementation that ends its process, or never answers, is named with its case."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from harness.case import ConvCase
from harness.judge import Court, judge
from harness.results import Outcome
from harness.table import load_table

ROOT = Path(__file__).parents[2]
PLUGIN = """
import os
import signal
import time

import torch

from harness.api import Implementation


def dies(x, weight, bias, *, stride, padding, dilation, groups):
    if x.shape[0] > 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0], groups)


def hangs(x, weight, bias, *, stride, padding, dilation, groups):
    while x.shape[0] > 0:
        time.sleep(1)
    return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0], groups)


IMPLEMENTATIONS = {
    "plain": [
        Implementation(name="dies", load=lambda: dies),
        Implementation(name="hangs", load=lambda: hangs),
    ]
}
"""
with_workers = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("xdist", "pytest_timeout")),
    reason="pytest-xdist and pytest-timeout are not installed",
)


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "lost.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


@with_workers
def test_tests_go_on_after_a_worker_is_lost(plugin):
    arguments = [
        "-m", "pytest", "properties/test_laws.py", "-q", "-p", "no:cacheprovider",
        "--plugin", str(plugin), "--variant", "plain", "--law", "G1",
        "--implementation", "dies", "--implementation", "hangs", "--implementation", "library",
        "--numprocesses", "1", "--timeout", "5", "--timeout-method", "thread", "--max-worker-restart", "9",
    ]  # fmt: skip
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stdout.count("CRASHED 0") == 2, ended.stdout
    assert "3 pairs of law and implementation: 1 holds, 2 crashed" in ended.stdout
    assert "python3 -m harness check 'plain/dies/G1 n" in ended.stdout
    assert "python3 -m harness check 'plain/hangs/G1 n" in ended.stdout


def test_judging_goes_on_after_a_process_is_lost(plugin, monkeypatch):
    monkeypatch.setattr("harness.judge.UNIT_TIMEOUT_S", 8.0)
    table = load_table([str(plugin)])
    court = Court(plugins=(str(plugin),), profile="quick", device="cpu")
    units = [("plain", name, "G1") for name in ("dies", "library", "hangs")]
    rows = {row.implementation: row for row in judge(table, court, units, run_id="run")}
    assert rows["library"].status is Outcome.HOLDS
    for name, reason in (("dies", "ended by SIGKILL"), ("hangs", "no answer in 8 s")):
        assert rows[name].status is Outcome.CRASHED
        assert reason in rows[name].detail
        assert ConvCase.parse(rows[name].case).n > 0
        assert f"check 'plain/{name}/G1 {rows[name].case}'" in rows[name].replay
