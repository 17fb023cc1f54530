"""What a trace says of a call: computing, gaps, launches."""

from typing import Any

from harness.timeline import kernel_table, memory_curve, timeline


def event(cat: str, start: float, duration: float, name: str = "x") -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": start, "dur": duration}


def call(start: float, duration: float) -> dict[str, Any]:
    return event("user_annotation", start, duration, "partial/box_filter")


def test_without_a_device_nested_operators_count_once_and_the_rest_is_a_gap() -> None:
    trace = {
        "traceEvents": [
            call(0, 10),
            event("cpu_op", 1, 4),
            event("cpu_op", 2, 2),
            event("cpu_op", 4, 3),
            event("cpu_op", 20, 5),
        ]
    }
    found = timeline(trace, "partial/box_filter")
    assert found == {"span_ns": 10_000, "kernel_ns": 6_000, "gap_ns": 4_000}


def test_on_a_device_kernels_add_up_and_gaps_lie_between_them() -> None:
    trace = {
        "traceEvents": [
            call(0, 4),
            call(10, 4),
            event("cuda_runtime", 1, 1),
            event("cuda_runtime", 11, 1),
            event("kernel", 2, 6),
            event("kernel", 12, 6),
        ]
    }
    found = timeline(trace, "partial/box_filter")
    assert found == {"span_ns": 4_000, "kernel_ns": 6_000, "gap_ns": 2_000, "launch_ns": 1_000}


def test_a_trace_that_does_not_hold_the_call_says_nothing() -> None:
    assert timeline({"traceEvents": [event("cpu_op", 0, 1)]}, "partial/box_filter") == {}
    assert timeline({}, "partial/box_filter") == {}


def test_kernels_of_one_name_add_up_and_their_longest_call_says_how_they_were_launched() -> None:
    long, short, copy = (
        event("kernel", at, took, "hmma_conv") for at, took in ((0, 8), (9, 2), (12, 1))
    )
    long["args"] = {
        "grid": [64, 1, 1], "block": [128, 1, 1], "registers per thread": 168, "shared memory": 2048,
        "est. achieved occupancy %": 37,
    }  # fmt: skip
    short["args"] = {"grid": [1, 1, 1], "block": [32, 1, 1], "registers per thread": 16}
    copy |= {"cat": "gpu_memcpy", "name": "Memcpy HtoD", "args": {}}
    host = event("cpu_op", 0, 50)
    first, second = kernel_table({"traceEvents": [short, host, copy, long]})
    assert first == {
        "name": "hmma_conv", "calls": 2, "ns": 10_000, "grid": "64x1x1", "block": "128x1x1",
        "registers": 168, "shared_bytes": 2048, "occupancy": 37, "tensor_cores": True,
    }  # fmt: skip
    assert (second["name"], second["grid"], second["registers"]) == ("Memcpy HtoD", "", None)
    assert not second["tensor_cores"]
    assert kernel_table({"traceEvents": [host]}) == []


def test_memory_is_that_of_the_last_call_beyond_what_was_held_before() -> None:
    def held(at: float, total: int, device: int = 0) -> dict[str, Any]:
        args = {"Total Allocated": total, "Device Type": device}
        return {"ph": "i", "name": "[memory]", "ts": at, "args": args}

    calls = [call(0, 4), call(10, 4)]
    host = [held(1, 999), held(9, 100), held(11, 400), held(13, 150), held(20, 0)]
    assert memory_curve({"traceEvents": [*calls, *host]}, "partial/box_filter") == [
        [1000, 300],
        [3000, 50],
    ]
    device = [held(12, 64, device=1)]
    assert memory_curve({"traceEvents": [*calls, *host, *device]}, "partial/box_filter") == [
        [2000, 64]
    ]
    assert memory_curve({"traceEvents": host}, "partial/box_filter") == []
