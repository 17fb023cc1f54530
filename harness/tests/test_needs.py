"""What a machine lacks is said, with what to do; nothing slow is chosen behind a caller's back."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from harness.case import ConvCase
from harness.selection import fastest
from harness.table import load_table
from harness.variant import Need, missing

TABLE = load_table()
CASE = ConvCase.parse("n1 c2>3 i8x8 k3x3")


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_triton_its_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert missing([Need.TRITON]) == "triton is not installed: pip install triton"


@pytest.mark.usefixtures("without_cuda")
def test_triton_needs_a_device_or_its_interpreter(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "TRITON_INTERPRET=1" in (missing([Need.TRITON]) or "")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert missing([Need.TRITON]) is None


@pytest.mark.parametrize("need", [Need.CUDA, Need.TRITON])
def test_what_runs_on_a_gpu_is_never_chosen_for_a_cpu(need, monkeypatch):
    monkeypatch.setattr("harness.selection.declines", lambda *_: None)
    variant = TABLE.variant("plain")
    first = replace(variant.reference, name="on_gpu", needs=frozenset({need}))
    extended = replace(variant, implementations=(first, *variant.implementations))
    assert fastest(extended, CASE).name != "on_gpu"
