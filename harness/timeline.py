"""Where the time of a profiled call goes, from its trace: computing, gaps, launches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

COMPUTING = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHING = ("cuda_runtime", "cuda_driver", "Runtime")
Span = tuple[float, float]


def timeline(trace: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return nanoseconds per call of what was recorded under `name`; nothing where it was not.

    `span_ns` is how long a call took, with all that the profiler adds. On a device `kernel_ns` is the
    sum of its kernels and copies, `gap_ns` when none of them ran between the first and the last,
    `launch_ns` the time in calls of the runtime. Without a device `kernel_ns` is when some operator
    ran, and `gap_ns` when none did: Python.

    Args:
        trace: A chrome trace of torch.profiler, in microseconds.
        name: Of the annotation around every call.
    """
    events = [e for e in trace.get("traceEvents", ()) if e.get("ph") == "X" and "dur" in e]
    calls = _spans(e for e in events if e.get("cat") == "user_annotation" and e["name"] == name)
    if not calls:
        return {}
    found = {"span_ns": sum(end - start for start, end in calls)}
    kernels = _spans(e for e in events if e.get("cat") in COMPUTING)
    if kernels:
        first, last = min(s for s, _ in kernels), max(end for _, end in kernels)
        found["kernel_ns"] = sum(end - start for start, end in kernels)
        found["gap_ns"] = last - first - _covered(kernels, (first, last))
        launches = _spans(e for e in events if e.get("cat") in LAUNCHING)
        found["launch_ns"] = sum(_covered(launches, call) for call in calls)
    else:
        operators = _spans(e for e in events if e.get("cat") == "cpu_op")
        found["kernel_ns"] = sum(_covered(operators, call) for call in calls)
        found["gap_ns"] = found["span_ns"] - found["kernel_ns"]
    return {key: round(1000 * value / len(calls), 1) for key, value in found.items()}


def _spans(events: Iterable[Mapping[str, Any]]) -> list[Span]:
    return sorted((float(e["ts"]), float(e["ts"]) + float(e["dur"])) for e in events)


def _covered(spans: Iterable[Span], within: Span) -> float:
    """Return how much of `within` the sorted spans cover, what overlaps counted once."""
    total, reached = 0.0, within[0]
    for start, end in spans:
        low, high = max(start, reached), min(end, within[1])
        if high > low:
            total += high - low
            reached = high
    return total
