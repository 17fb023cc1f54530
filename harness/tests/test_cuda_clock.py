"""The clock of a device, on a device of numbers: it has a queue, a host and no hardware."""

from typing import Any

import pytest
import torch

from harness import contender, cuda_clock
from harness.cuda_clock import BURST_NS, DeviceClock, throttled
from harness.graphs import Captured
from harness.kernels import Kernels, kernels_in
from harness.plan import Cell
from harness.results import Status

ENQUEUE_NS = 5_000
FLUSH_NS = 30_000


class Simulated:
    """A queue in order: work starts when it is enqueued and what is before it is done."""

    rated_hz = 2e9

    def __init__(self, hz: float = 2e9) -> None:
        self.hz, self.host, self.free = hz, 0.0, 0.0
        self.flushed = self.rested = 0
        self.idle: list[float] = []

    def launch(self, ns: float) -> None:
        """Enqueue work of so many ns."""
        self.host += ENQUEUE_NS
        if self.host > self.free:
            self.idle.append(self.host - self.free)
        self.free = max(self.free, self.host) + ns

    def now_ns(self) -> int:
        """Return the host's time."""
        return round(self.host)

    def rest(self, ns: int) -> None:
        """Let time pass."""
        self.host += ns
        self.rested += ns

    def flush(self) -> None:
        """Enqueue a flush."""
        self.flushed += 1
        self.launch(FLUSH_NS)

    def spin(self, cycles: int) -> None:
        """Enqueue a wait."""
        self.launch(cycles / self.hz * 1e9)

    def toil(self) -> None:
        """Enqueue a lot."""
        self.launch(1_000_000)

    def mark(self) -> float:
        """Return when the device will be here."""
        self.host += 1_000
        self.free = max(self.free, self.host)
        return self.free

    def between_ns(self, first: float, last: float) -> float:
        """Wait for the last mark."""
        self.host = max(self.host, last)
        return last - first

    def power_w(self) -> None:
        """Tell nothing."""

    def synchronize(self) -> None:
        """Wait for everything."""
        self.host = max(self.host, self.free)


def _call(device: Simulated, ns: float = 20_000):
    def call(arguments: Any) -> Any:
        device.launch(ns)
        return arguments

    return call


@pytest.mark.parametrize("cold", [False, True])
def test_a_sample_is_the_devices_time_without_flushes_and_without_the_hosts(cold):
    device = Simulated()
    timer, call = DeviceClock(device, cold=cold), _call(device)
    timer.sample(call, range(50))
    elapsed, kept = timer.sample(call, range(50), 7)
    assert elapsed == 50 * 20_000
    assert kept == 7
    assert device.flushed == (100 if cold else 0)


def test_a_queue_that_ran_empty_is_held_up_longer_the_next_time():
    device = Simulated()
    timer, call = DeviceClock(device, cold=False), _call(device, ns=2_000)  # quicker than its host
    first, _ = timer.sample(call, range(200))
    second, _ = timer.sample(call, range(200))
    assert second == 200 * 2_000 <= first


def test_work_comes_in_bursts_with_rests_as_long():
    device = Simulated()
    timer, call = DeviceClock(device, cold=False), _call(device, ns=100_000)
    timer.sample(call, range(10))
    before, rested = device.host, device.rested
    elapsed, kept = timer.sample(call, range(120))  # 12 ms of work
    assert (elapsed, kept) == (120 * 100_000, 119)
    assert device.rested - rested > 0.5 * elapsed
    assert device.host - before > 1.5 * elapsed
    assert timer._calls_in_a_burst(call) * 100_000 <= BURST_NS


def test_a_single_long_call_is_a_burst_of_its_own():
    device = Simulated()
    timer, call = DeviceClock(device), _call(device, ns=4 * BURST_NS)
    timer.sample(call, [0])
    assert timer.sample(call, [0, 1])[0] == 8 * BURST_NS
    assert timer._calls_in_a_burst(call) == 1


def test_work_left_on_another_stream_is_counted():
    device = Simulated()
    timer = DeviceClock(device, cold=False)

    def call(_: Any) -> None:
        device.launch(20_000)

    plain, _ = timer.sample(call, range(10))
    left = device.synchronize
    device.synchronize = lambda: (left(), setattr(device, "host", device.host + 700_000))[0]
    beyond, _ = timer.sample(call, range(10))
    assert beyond - plain == 700_000 - cuda_clock.SYNCHRONIZE_NS


def test_the_hosts_time_ends_with_the_device_and_enqueuing_before_it():
    device = Simulated()
    wall, enqueue = DeviceClock(device).host(_call(device), range(10))
    assert enqueue == 10 * ENQUEUE_NS
    assert wall == ENQUEUE_NS + 10 * 20_000
    launch_bound = DeviceClock(device).host(_call(device, ns=100), range(10))
    assert launch_bound == (10 * ENQUEUE_NS + 100, 10 * ENQUEUE_NS)


@pytest.mark.parametrize("hz", [2e9, 1.2e9])
def test_a_kernel_of_fixed_cycles_tells_the_frequency(hz):
    found = DeviceClock(Simulated(hz)).frequency_hz()
    assert found == pytest.approx(hz, rel=1e-9)


def test_burning_in_takes_as_long_as_it_is_told():
    device = Simulated()
    DeviceClock(device).burn_in(0.01)
    assert 0.01e9 <= device.host < 0.02e9


def test_blocks_off_the_runs_clock_are_counted_and_too_many_say_so():
    rates = [2.00e9, 1.99e9, 2.05e9, 2.0e9, 2.0e9, 2.0e9]
    assert throttled(range(6), rates, 2e9) == {"off_clock_blocks": (2,)}
    assert throttled(range(6), [2e9] * 6, 2e9) == {"off_clock_blocks": ()}
    found = throttled((4, 5), [1.5e9, 2e9], 2e9)
    assert found["off_clock_blocks"] == (4,)
    assert found["status"] is Status.THROTTLED
    assert found["reason"] == (
        "1 of 2 blocks ran more than 2% off the run's 2000 MHz: 1500 to 2000"
    )


# -- graphs ------------------------------------------------------------------------------------


def _recorded(call: Any, arguments: Any) -> tuple[Any, Any]:
    """Record as a graph does: the result is written anew, at one place, by every replay."""
    result = call(arguments)

    def replay() -> None:
        result.copy_(call(arguments))

    return replay, result


def test_every_set_of_arguments_has_a_graph_that_reads_and_writes_in_place():
    bound = [(torch.full((2,), float(n)),) for n in range(3)]
    captured = Captured(lambda arguments: 2 * arguments[0], bound, _recorded)
    captured.spoil()
    assert [captured(arguments).tolist() for arguments in bound] == [[0, 0], [2, 2], [4, 4]]
    bound[1][0].fill_(5)
    assert captured(bound[1]).tolist() == [10, 10]


def test_a_graph_that_writes_nothing_returns_what_it_was_spoiled_with():
    bound = [(torch.ones(2),)]
    captured = Captured(
        lambda arguments: arguments[0] + 1, bound, lambda c, a: (lambda: None, (c(a), [c(a)]))
    )
    captured.spoil()
    output, (gradient,) = captured(bound[0])
    assert output.isnan().all()
    assert gradient.isnan().all()


def test_arguments_are_not_spoiled_with_the_results_that_lie_in_them():
    bound = [(torch.ones(2),)]
    captured = Captured(lambda a: (a[0] + 1, a[0].view(2, 1)), bound, lambda c, a: (list, c(a)))
    captured.spoil()
    output, inside = captured(bound[0])
    assert output.isnan().all()
    assert inside.tolist() == [[1], [1]]


@pytest.mark.parametrize(("fails", "spoiled"), [(None, False), (RuntimeError, True)])
def test_a_capture_that_fails_has_spoiled_the_process(
    monkeypatch: pytest.MonkeyPatch, fails: type[Exception] | None, spoiled: bool
) -> None:
    def record(call: Any, bound: Any) -> Any:
        if fails:
            raise fails("operation not permitted when stream is capturing")
        return call

    monkeypatch.setattr(contender, "Captured", record)
    one = contender.Contender(Cell("plain", "library", "n1 c1>1 i3", "", "forward"))
    one.call = lambda arguments: arguments  # type: ignore[assignment]
    one.capture([])
    assert one.has_spoiled is spoiled
    assert (one.failure is not None) is spoiled


def test_arguments_that_were_not_recorded_are_none_of_its_own():
    captured = Captured(lambda arguments: arguments[0], [(torch.ones(1),)], _recorded)
    with pytest.raises(KeyError):
        captured((torch.ones(1),))


# -- kernels -----------------------------------------------------------------------------------


def _trace(*names: str, category: str = "kernel") -> dict[str, Any]:
    events = [
        {"ph": "X", "cat": category, "name": name, "ts": 10 * number, "dur": 2.5}
        for number, name in enumerate(names)
    ]
    host = {"ph": "X", "cat": "cpu_op", "name": "aten::conv2d", "ts": 0, "dur": 99}
    return {"traceEvents": [*reversed(events), host, {"ph": "M"}]}


def test_the_kernels_of_a_call_are_named_in_their_order_with_the_sum_of_their_times():
    assert kernels_in(_trace(*["pad", "gemm"] * 4), 4) == Kernels(("pad", "gemm"), 5000)
    assert kernels_in(_trace("copy", category="gpu_memcpy"), 1) == Kernels(("copy",), 2500)


@pytest.mark.parametrize(
    "names", [(), ("gemm",) * 3, ("pad", "gemm", "gemm", "pad"), ("gemm", "gemm", "gemm", "other")]
)
def test_kernels_that_differ_call_by_call_are_not_believed(names):
    assert kernels_in(_trace(*names), 2) == Kernels()
