"""Triton kernels under every law that applies: on a CPU Triton's interpreter runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.table import load_table
from harness.variant import Need, missing

ROOT = Path(__file__).parents[1]
KERNELS = [
    (variant.name, implementation.name)
    for variant in load_table().variants.values()
    for implementation in variant.implementations
    if Need.TRITON in implementation.needs
]


@pytest.mark.thorough
@pytest.mark.parametrize(("variant", "implementation"), KERNELS)
def test_interpreted_kernels_satisfy_every_law(variant, implementation, profile_name):
    pytest.importorskip("triton", reason="triton is not installed: pip install triton")
    if missing([Need.TRITON]) is None:
        pytest.skip("kernels run in this process: test_laws judges them")
    command = [
        sys.executable, "-m", "pytest", "properties/test_laws.py", "-q", "-p", "no:cacheprovider",
        "--variant", variant, "--implementation", implementation, "--device", "cpu",
        "--hypothesis-profile", profile_name,
    ]  # fmt: skip
    # read when a kernel is decorated, so that it has to be another process
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " passed" in ended.stdout, ended.stdout  # not every law was skipped
