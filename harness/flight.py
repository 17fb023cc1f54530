"""The case in flight, on disk: what is named when the process that tried it is gone."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = "CONVHARNESS_FLIGHT"
"""Environment variable: the folder that flights are noted in; unset, none are."""
LONGEST = 2000

_files: dict[Path, int] = {}
_folder: str | None = None
_name = os.environ.get("PYTEST_XDIST_WORKER", "main")


def fly_as(name: str, folder: str | Path | None) -> None:
    """Note the flights of this process under `name` in `folder` from now on."""
    global _name, _folder
    _name, _folder = name, None if folder is None else str(folder)


def note(flight: str) -> None:
    """Write down what is about to be tried, over what was tried before."""
    folder = _folder or os.environ.get(FOLDER)
    if folder is None:
        return
    path = Path(folder) / f"{_name}.flight"
    if path not in _files:
        _files[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    # one write, of a fixed length: whatever ends this process leaves a whole line
    os.pwrite(_files[path], flight.encode()[:LONGEST].ljust(LONGEST), 0)


def last(folder: str | Path, name: str = "main") -> str:
    """Return what the process called `name` noted last, or nothing."""
    path = Path(folder) / f"{name}.flight"
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
