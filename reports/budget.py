"""Where the time and the memory of a call go: what a profile says of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from reports.bounds import bounded

Profile: TypeAlias = list[dict[str, Any]] | str
"""The entries of a profile, or the sentence that says why there are none."""

SHOWN = 20
WIDE, HIGH = 640.0, 90.0
"""Points of the curve of memory."""
_REAL: Any = int | float
PARTS = ("span_ns", "kernel_ns", "gap_ns", "launch_ns")
"""What a trace says of a call, as `harness.timeline` names it."""


def read_profile(run_folder: Path) -> Profile:
    """Return the entries of `profile.json`, or the sentence that says why there are none."""
    path = Path(run_folder) / "profile.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "This run was not profiled."
    except (OSError, ValueError, RecursionError) as error:
        return f"profile.json cannot be read: {error}"
    columns = {"name": str, "calls": int, "self_ns": int | float, "device_ns": int | float}
    try:
        for entry in entries:
            for name in ("variant", "implementation", "case_name"):
                _expect(entry[name], str, name)
            _expect(entry.get("trace", ""), str, "trace")
            parts = entry.get("timeline", {})
            _expect(parts, dict, "timeline")
            for name in parts.keys() & set(PARTS):
                _expect(parts[name], int | float, name)
            for operator in entry["operators"]:
                for name, kind in columns.items():
                    _expect(operator[name], kind, name)
            _expect_panes(entry)
    except (KeyError, TypeError, ValueError) as error:
        return f"profile.json is not a list of operator tables: {error}"
    return bounded(list(entries))


def budgets(profile: Profile) -> list[dict[str, Any]]:
    """Return a table per entry, what takes longest first."""
    return [] if isinstance(profile, str) else [_budget(entry) for entry in profile]


def _budget(entry: Mapping[str, Any]) -> dict[str, Any]:
    operators = sorted(
        entry["operators"], key=lambda op: (-op["self_ns"] - op["device_ns"], op["name"])
    )
    total = sum(op["self_ns"] for op in operators)
    return {
        "entry": entry,
        "total_ns": total,
        "parts": {name: entry.get("timeline", {}).get(name) for name in PARTS},
        "on_device": any(op["device_ns"] for op in operators),
        "operators": [
            op | {"share": op["self_ns"] / total if total else 0.0} for op in operators[:SHOWN]
        ],
        "kernels": entry.get("kernels", []),
        "memory": _memory(entry.get("memory", [])),
        "left_out": max(0, len(operators) - SHOWN),
    }


def _expect_panes(entry: Mapping[str, Any]) -> None:
    """Raise a TypeError, KeyError or ValueError unless kernels and memory are what they should be."""
    for kernel in entry.get("kernels", []):
        _expect(kernel["tensor_cores"], bool, "tensor_cores")
        for name, kind in {
            "name": str,
            "grid": str,
            "block": str,
            "calls": int,
            "ns": _REAL,
        }.items():
            _expect(kernel[name], kind, name)
        for name in ("registers", "shared_bytes", "occupancy"):
            if kernel[name] is not None:
                _expect(kernel[name], _REAL, name)
    for at, held in entry.get("memory", []):
        _expect(at, _REAL, "memory")
        _expect(abs(held), int, "memory")  # a call may free what was held before it


def _memory(points: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """Return a curve in steps as the points of a polyline, its peak and how long it took."""
    if not points:
        return None
    peak, end = max(1, *(held for _, held in points)), max(1.0, points[-1][0])
    low = min(0, *(held for _, held in points))
    line, before = [f"0,{_height(0, low, peak)}"], 0.0
    for at, held in points:
        x = f"{WIDE * at / end:.1f}"
        line += [f"{x},{_height(before, low, peak)}", f"{x},{_height(held, low, peak)}"]
        before = held
    return {"line": " ".join(line), "peak": peak, "end": before, "took_ns": end}


def _height(held: float, low: float, peak: float) -> str:
    return f"{1 + (HIGH - 2) * (peak - held) / (peak - low):.1f}"


def _expect(value: object, kind: Any, name: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}={str(value)[:80]} is no {getattr(kind, '__name__', kind)}")
    if isinstance(value, int | float) and not (math.isfinite(value) and 0 <= value < 2**63):
        raise TypeError(f"{name}={value!r} is no count")
