"""Which kernels a call runs on a device, and how long they take together: a pass of the profiler.

A pass of its own, since a profiler costs time. The kernels in their order are the fingerprint of an
algorithm: libraries choose among several, and may choose differently in another process.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness.timeline import COMPUTING

CALLS = 4


class Kernels(NamedTuple):
    """The kernels of one call and the sum of their times; empty where they differ call by call."""

    names: tuple[str, ...] = ()
    sum_ns: int | None = None


def kernels_of_call(call: Callable[[], Any], calls: int = CALLS) -> Kernels:
    """Profile some calls on CUDA; return what one of them runs."""
    from torch.profiler import ProfilerActivity, profile

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return kernels_in(json.loads(path.read_text(encoding="utf-8", errors="replace")), calls)


def kernels_in(trace: Mapping[str, Any], calls: int) -> Kernels:
    """Return the kernels of one of so many equal calls from a chrome trace, in microseconds.

    Profilers lose kernels: where not every call shows the same ones, none is believed.
    """
    found = [e for e in trace.get("traceEvents", ()) if e.get("cat") in COMPUTING and "dur" in e]
    found.sort(key=lambda event: float(event["ts"]))
    names, each = [str(event["name"]) for event in found], len(found) // calls
    if not each or names != names[:each] * calls:
        return Kernels()
    total = sum(float(event["dur"]) for event in found)
    return Kernels(tuple(names[:each]), round(1000 * total / calls))
