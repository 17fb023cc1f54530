"""What the numbers were taken on: processor, accelerator, versions, flags and the state of the code."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

REPORTED_PACKAGES = (
    "torch", "triton", "numpy", "scipy", "pandas", "seaborn", "matplotlib",
    "hypothesis", "pytest", "pytest-benchmark",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine as seen by one run. Sizes in bytes; `gpu` is empty where there is none."""

    system: str
    processor: str
    cores: int
    memory_bytes: int
    gpu: str
    gpu_memory_bytes: int
    driver: str
    flags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """State of the checkout: commit, and a hash of the uncommitted difference (empty if clean)."""

    commit: str
    dirty: str

    def __str__(self) -> str:
        changed = f" with changes {self.dirty}" if self.dirty else ""
        return f"commit {self.commit[:12]}{changed}"


def describe_machine() -> Machine:
    """Describe this machine without changing any setting of it."""
    import torch

    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor_name(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=gpu.name if gpu else "",
        gpu_memory_bytes=gpu.total_memory if gpu else 0,
        driver=f"CUDA {torch.version.cuda}" if gpu else "",
        flags=describe_flags(),
    )


def describe_flags() -> dict[str, str]:
    """Return the global torch flags that change what a convolution costs or computes."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    readers: dict[str, Callable[[], Any]] = {
        "autocast": lambda: torch.is_autocast_enabled("cuda"),
        "cudnn.allow_tf32": lambda: cudnn.allow_tf32,
        "cudnn.benchmark": lambda: cudnn.benchmark,
        "cudnn.deterministic": lambda: cudnn.deterministic,
        "deterministic": torch.are_deterministic_algorithms_enabled,
        "matmul.allow_tf32": lambda: matmul.allow_tf32,
        "mkldnn": torch.backends.mkldnn.is_available,
    }
    return {name: _read(read) for name, read in readers.items()}


def _read(read: Callable[[], Any]) -> str:
    try:
        return str(read())
    except RuntimeError:  # whoever set TF32 in the newer way cannot be asked in the older one
        return "mixed"


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter to a reader, where installed."""
    versions = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_code(root: Path) -> Code:
    """Return the commit of the checkout at `root`; `unknown` where git cannot tell."""
    commit = _git(root, "rev-parse", "HEAD")
    difference = _git(root, "status", "--porcelain") + _git(root, "diff", "HEAD")
    digest = hashlib.sha256(difference.encode()).hexdigest()[:12] if difference else ""
    return Code(commit=commit or "unknown", dirty=digest)


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def choose_device(word: str) -> str:
    """Return `cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Raises:
        CaseError: `cuda` where there is none.
    """
    import torch

    from harness.case import CaseError

    available = torch.cuda.is_available()
    if word == "cuda" and not available:
        raise CaseError("device='cuda' needs a CUDA device, and this machine has none; try 'cpu'")
    return ("cuda" if available else "cpu") if word == "auto" else word
