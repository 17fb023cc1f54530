"""Where the time of a call goes: what a profile says of computing, gaps, launches and operators."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from reports.bounds import bounded

Profile: TypeAlias = list[dict[str, Any]] | str
"""The entries of a profile, or the sentence that says why there are none."""

SHOWN = 20
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
    except (KeyError, TypeError) as error:
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
        "left_out": max(0, len(operators) - SHOWN),
    }


def _expect(value: object, kind: Any, name: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}={str(value)[:80]} is no {getattr(kind, '__name__', kind)}")
    if isinstance(value, int | float) and not (math.isfinite(value) and 0 <= value < 2**63):
        raise TypeError(f"{name}={value!r} is no count")
