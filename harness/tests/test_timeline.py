"""What a trace says of a call: computing, gaps, launches."""

from typing import Any

from harness.timeline import timeline


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
