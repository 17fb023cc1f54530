"""Memory of a call: its peak beyond the inputs, and what it keeps for the backward pass."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.bound_call import Call
from harness.tensors import leaves
from harness.variant import Value


def measure_memory(call: Call, tensors: Mapping[str, Value], device: str) -> tuple[int, int | None]:
    """Return the peak of bytes beyond the inputs, and the bytes kept for the backward pass."""
    bound = call.bind(tensors)
    call(bound)
    peak = _cuda_peak(call, bound) if device.startswith("cuda") else _cpu_peak(call, bound)
    return peak, saved_bytes(call, bound) if call.backward else None


def _cuda_peak(call: Call, bound: Any) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call(bound)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _cpu_peak(call: Call, bound: Any) -> int:
    with torch.autograd.profiler.profile(use_cpu=True, profile_memory=True) as profile:
        call(bound)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        return peak_of(json.loads(path.read_text(encoding="utf-8", errors="replace")))


def peak_of(trace: Mapping[str, Any]) -> int:
    """Return the highest sum of bytes that the memory events of a chrome trace come to."""
    events = [event for event in trace["traceEvents"] if event.get("name") == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda event: float(event["ts"])):
        level += int(event["args"]["Bytes"])
        peak = max(peak, level)
    return peak


def saved_bytes(call: Call, bound: tuple[tuple[Value, ...], list[Tensor]]) -> int:
    """Return the bytes of the storages that autograd keeps, inputs and parameters left out."""
    arguments, _ = bound
    given = leaves({str(i): value for i, value in enumerate(arguments)})
    outside = {tensor.untyped_storage().data_ptr() for tensor in given.values()}
    kept: dict[int, Tensor] = {}  # holding them keeps an address from being used twice

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call.function(*arguments, **call.keywords)
    del result
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in outside)
