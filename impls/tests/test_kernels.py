"""Triton kernels called as a user calls them, by Triton's interpreter or on a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.variant import Need, missing

ROOT = Path(__file__).parents[2]
ANSWER = """
import json
import torch
from torch import nn
from impls import partial
from impls._shared import triton_runtime

torch.manual_seed(0)
x = torch.randn(2, 4, 6, 5).to(memory_format=torch.channels_last)
w, b, mask = torch.randn(6, 4, 3, 3), torch.randn(6), torch.rand(2, 4, 6, 5) > 0.5
ours = partial.functional(x, w, b, mask, padding=1, implementation="triton")
usual = partial.functional(x, w, b, mask, padding=1)
padded = partial.functional(x, w, b, padding=1, implementation="triton").output
try:
    triton_runtime.launches(x, x.to("meta"))
except ValueError as error:
    print(error)
print(json.dumps({
    "mask": torch.equal(ours.mask, usual.mask),
    "kept": padded.is_contiguous(memory_format=torch.channels_last),
    "choices": triton_runtime.choices(),
}))
"""


CELL = (
    "partial/triton/G1 n2 c4>6 i6x5 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 channels_last real seed0 "
    "mask=bernoulli:0.5"
)


def _run(*arguments, **environment):
    pytest.importorskip("triton", reason="triton is not installed: pip install triton")
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_a_kernel_agrees_with_the_oracle_within_the_derived_bound():
    ended = _run("-m", "harness", "check", CELL, TRITON_INTERPRET="1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("HOLDS")


def test_a_pinned_kernel_keeps_mask_and_layout_and_tells_its_choices():
    ended = _run("-c", ANSWER, TRITON_INTERPRET="1")
    assert ended.returncode == 0, ended.stderr
    got = json.loads(ended.stdout.splitlines()[-1])
    assert got["mask"]
    assert got["kept"]
    assert "_rescale" in got["choices"]


def test_a_pinned_kernel_without_a_device_says_what_to_do():
    if missing([Need.CUDA]) is None:
        pytest.skip("there is a CUDA device")
    ended = _run("-c", ANSWER, TRITON_INTERPRET="0")
    assert ended.returncode != 0
    assert "implementation='triton' does not compute this case" in ended.stderr
    assert "TRITON_INTERPRET=1" in ended.stderr


def test_every_kernel_compiles_for_a_gpu():
    pytest.importorskip("triton", reason="triton is not installed: pip install triton")
    command = [sys.executable, "-W", "ignore", "-m", "impls.tests.kernel_targets", "80"]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for name in ("_add", "_box", "_correlation", "_fill", "_fold", "_product", "_rescale"):
        assert f"{name}=" in ended.stdout
