"""What a trace says of a profiled call: computing, gaps, launches, kernels, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

COMPUTING = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHING = ("cuda_runtime", "cuda_driver", "Runtime")
Span = tuple[float, float]

_CUDA = 1
"""The device type of torch's allocations on a CUDA device."""
_LAUNCHED = {
    "registers": "registers per thread", "shared_bytes": "shared memory",
    "occupancy": "est. achieved occupancy %",
}  # fmt: skip
_TENSOR_CORES = ("884", "1688", "16816", "hmma", "xmma", "wgmma", "tensorop", "c1688")


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


def kernel_table(trace: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the kernels and copies of a device by name, the costliest first; none without one.

    `ns` is the sum over all `calls` of it. `grid`, `block`, `registers` a thread, `shared_bytes` a
    block and `occupancy` in per cent are those of its longest call, None where the trace has none.
    `tensor_cores` is what its name says, as profilers tell it: a kernel of another name may use them.
    """
    found: dict[str, dict[str, Any]] = {}
    longest: dict[str, float] = {}
    for event in trace.get("traceEvents", ()):
        if event.get("ph") != "X" or event.get("cat") not in COMPUTING:
            continue
        name, ns, args = event["name"], 1000 * float(event["dur"]), event.get("args", {})
        row = found.setdefault(name, {"name": name, "calls": 0, "ns": 0.0})
        row["calls"] += 1
        row["ns"] += ns
        if ns >= longest.get(name, 0.0):
            longest[name] = ns
            shape = {key: "x".join(map(str, args.get(key) or ())) for key in ("grid", "block")}
            row |= shape | {key: args.get(word) for key, word in _LAUNCHED.items()}
        row["tensor_cores"] = any(word in name for word in _TENSOR_CORES)
    return sorted(found.values(), key=lambda row: (-row["ns"], row["name"]))


def memory_curve(trace: Mapping[str, Any], name: str) -> list[list[float]]:
    """Return what the last call of `name` held beyond what was held before: ns since its start, bytes.

    Of the device where one allocates, else of the host. Empty where the trace says nothing of it.
    """
    events = [e for e in trace.get("traceEvents", ()) if e.get("name") == "[memory]"]
    on_device = any(e["args"].get("Device Type") == _CUDA for e in events)
    kept = [
        (float(e["ts"]), int(e["args"]["Total Allocated"]))
        for e in events
        if (e["args"].get("Device Type") == _CUDA) == on_device
    ]
    calls = _spans(
        e for e in trace.get("traceEvents", ())
        if e.get("ph") == "X" and e.get("cat") == "user_annotation" and e["name"] == name
    )  # fmt: skip
    if not calls or not kept:
        return []
    start, end = calls[-1]
    kept.sort(key=lambda pair: pair[0])
    before = next((held for ts, held in reversed(kept) if ts < start), 0)
    return [
        [round(1000 * (ts - start), 1), held - before] for ts, held in kept if start <= ts <= end
    ]


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
