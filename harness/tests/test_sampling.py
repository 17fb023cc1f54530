import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness import clock, contender, graphs, processors, rounds, sampling
from harness.budget import BESIDE_NS, Budget, block_s
from harness.case import ConvCase
from harness.cuda_clock import PROOF_CYCLES, DeviceClock
from harness.isolation import End, Report
from harness.plan import Cell, GroupKey, Selection, grouped, make_plan
from harness.pool import TensorPool
from harness.proof import Call, Common, Question, answer_session
from harness.results import Status
from harness.sampling import Fingerprints, Group, Setting, sample_group
from harness.table import Table, load_table
from harness.tensors import make_tensors

PLANTED = str(Path(__file__).with_name("planted.py"))
CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"


class FakeClock:
    """Calls truly, and says a fixed time per call; remembers who was asked when."""

    def __init__(self) -> None:
        self.sampled: list[object] = []

    def sample(self, call, batch, keep=-1):
        """Call all of the batch."""
        self.sampled.append(call)
        results = [call(arguments) for arguments in batch]
        return 1000 * len(batch), results[keep]

    def burn_in(self, seconds):
        """Refuse."""
        raise AssertionError(f"{seconds} s of burn-in were not asked for")


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table((PLANTED,))


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Setting:
    answers = tmp_path_factory.mktemp("answers")
    common = Common(plugins=(PLANTED,), device="cpu", threads=1, answers=answers)
    answer_session(common, None)(Question("plain", CASE))
    return Setting(common=common, seed=0, processors=(), target_ns=5_000)


def _group(*names: str, direction="forward", blocks=6, process=0) -> Group:
    cells = [Cell("plain", name, CASE, "", direction) for name in names]
    cells.insert(0, cells[0]._replace(placebo=True))
    return Group(cells[0].group, tuple(cells), blocks, process, 1.0)


def _sample(table, setting, group):
    cursor, timer = SimpleNamespace(value=-1), FakeClock()
    return sample_group(table, setting, group, timer, cursor), timer


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_every_block_holds_one_sample_of_everybody(table, setting, direction):
    rows, _ = _sample(table, setting, _group("library", "onednn", "right", direction=direction))
    assert [r.cell.implementation for r in rows] == ["library", "library", "onednn", "right"]
    assert [r.cell.placebo for r in rows] == [True, False, False, False]
    for row in rows:
        assert (row.status, row.reason) == (Status.MEASURED, "")
        assert row.block == (0, 1, 2, 3, 4, 5)
        assert row.samples_ns == (1000,) * 6
        assert row.calls_per_sample * 1000 >= setting.target_ns


class Ticking:
    """A device without hardware on which every mark is 20 us after the one before."""

    rated_hz = 1e9

    def __init__(self) -> None:
        self.marks = 0

    def now_ns(self):
        """Read the marks."""
        return self.marks * 20_000

    def mark(self):
        """Let 20 us pass."""
        self.marks += 1
        return self.marks * 20_000

    def between_ns(self, first, last):
        """Subtract."""
        return last - first

    def power_w(self):
        """Draw the same all the time."""
        return 321.5

    def synchronize(self, *_):
        """Do nothing."""

    rest = spin = flush = toil = synchronize


def _replayed(call, arguments):
    """Record as a graph does: a replay computes anew and writes to the same place."""
    result = call(arguments)
    return lambda: result.copy_(call(arguments)), result


def _sample_graphs(table, setting, monkeypatch, record):
    monkeypatch.setattr(graphs, "record_graph", record)
    group = _group("library", "right")
    cells = tuple(cell._replace(mode="graph=1,l2=cold") for cell in group.cells)
    group = group._replace(key=cells[0].group, cells=cells)
    timer = DeviceClock(Ticking())
    return sample_group(table, setting, group, timer, SimpleNamespace(value=-1))


def test_graphs_are_sampled_with_the_hosts_times_and_the_devices_frequency(
    table, setting, monkeypatch
):
    for row in _sample_graphs(table, setting, monkeypatch, _replayed):
        assert (row.status, row.reason) == (Status.MEASURED, "")
        assert row.samples_ns == (20_000,) * 6
        assert len(row.wall_ns) == len(row.enqueue_ns) == 6
        assert row.block_clock_hz == (PROOF_CYCLES * 50_000,) * 6
        assert row.block_power_w == (321.5,) * 6
        assert row.instructions is None


def test_a_graph_that_computes_nothing_is_refuted(table, setting, monkeypatch):
    def empty(call, arguments):
        result = call(arguments)
        return lambda: None, result

    rows = _sample_graphs(table, setting, monkeypatch, empty)
    assert {row.status for row in rows} == {Status.REFUTED}
    assert all("output of a timed call differs" in row.reason for row in rows)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("operation not permitted when stream is capturing", Status.UNSUPPORTED, "CUDA graph"),
        ("CUDA out of memory. Tried to allocate 2 GiB", Status.OUT_OF_MEMORY, "2 GiB"),
    ],
)
def test_who_cannot_be_captured_says_why(table, setting, monkeypatch, text, status, reason):
    def refuse(*_):
        raise RuntimeError(text)

    for row in _sample_graphs(table, setting, monkeypatch, refuse):
        assert (row.status, reason in row.reason, row.samples_ns) == (status, True, ())


def test_rows_say_what_went_on_in_every_block_and_how_many_instructions_a_call_took(table, setting):
    class Counting:
        def per_call(self, call, batch):
            for arguments in batch:
                call(arguments)
            return 42

    cursor, counter = SimpleNamespace(value=-1), Counting()
    group = _group("library", "raises")
    *honest, failed = sample_group(
        table, setting, group, FakeClock(), cursor, None, counter
    )  # fmt: skip
    for row in honest:
        assert len(row.block_steal_share) == len(row.block_load) == len(row.block) == 6
        assert all(count >= 0 for count in row.block_involuntary_switches)
        assert row.instructions == 42
    assert (failed.block_load, failed.instructions) == ((), None)


def _orders(timer: FakeClock, contenders: int, blocks: int) -> list[tuple[int, ...]]:
    """Return the order of every block, contenders numbered as they were calibrated."""
    numbers = {call: n for n, call in enumerate(dict.fromkeys(timer.sampled))}
    tail = [numbers[call] for call in timer.sampled[-contenders * blocks :]]
    return [tuple(tail[i : i + contenders]) for i in range(0, len(tail), contenders)]


def test_the_order_is_random_per_block_and_process_and_repeatable(table, setting):
    names = ("library", "onednn", "right")
    found = []
    for process in (0, 0, 1):
        _, timer = _sample(table, setting, _group(*names, blocks=12, process=process))
        found.append(_orders(timer, 4, 12))
    assert all(sorted(order) == [0, 1, 2, 3] for order in found[0])
    assert len(set(found[0])) > 4
    assert found[0] == found[1] != found[2]


def test_a_failure_ends_its_contender_alone(table, setting):
    rows, _ = _sample(table, setting, _group("library", "raises", "right"))
    by_name = {row.cell.implementation: row for row in rows}
    assert by_name["raises"].status is Status.CRASHED
    assert "ArithmeticError: out of order at " in by_name["raises"].reason
    assert by_name["raises"].samples_ns == ()
    assert by_name["right"].status is by_name["library"].status is Status.MEASURED


@pytest.mark.parametrize(
    "cheat", ["wrong_later", "remembers_address", "remembers_shape", "wrong", "other_dtype"]
)
def test_results_of_timed_calls_are_looked_at(table, setting, cheat, monkeypatch):
    for module in list(__import__("sys").modules.values()):
        if getattr(module, "__name__", "") == "convharness_plugin_planted":
            monkeypatch.setattr(module, "CALLS_OF_A_PROBE", 10)
            module._known.clear()
    rows, _ = _sample(table, setting, _group("library", cheat))
    by_name = {row.cell.implementation: row for row in rows}
    assert by_name[cheat].status is Status.REFUTED
    assert by_name[cheat].samples_ns == ()
    assert by_name["library"].status is Status.MEASURED


def test_who_replaces_the_timer_is_left_out_and_spoils_the_process(table, setting, monkeypatch):
    monkeypatch.setattr(sampling, "BURN_IN_S", 0.0)
    monkeypatch.setattr(clock.time, "perf_counter_ns", clock.time.perf_counter_ns)
    threads = torch.get_num_threads()
    measure = sampling.timing_session(setting, SimpleNamespace(value=-1))
    last = measure(_group("library", "replaces_timer", blocks=1))
    torch.set_num_threads(threads)
    (row,) = last.result.rows
    assert (row.cell.implementation, row.status) == ("replaces_timer", Status.REFUTED)
    assert row.reason == "changes the timer from False to True"
    ending = measure(Fingerprints(()))
    assert ending.kernels == {}
    assert 0 <= ending.disturbance.steal_share <= 1


class Disturbing(FakeClock):
    """Turns the search for anomalies on after so many samples of whoever calls `function`."""

    def __init__(self, function, left: int) -> None:
        super().__init__()
        self.function, self.left = function, left

    def sample(self, call, batch, keep=-1):
        """Do it."""
        found = super().sample(call, batch, keep)
        if call.function is self.function:
            self.left -= 1
            if self.left == 0:
                torch.autograd.set_detect_anomaly(True)
        return found


def test_short_calls_are_sampled_in_turns(table, setting):
    group, timer = _group("library", "right", blocks=2), FakeClock()
    longer = replace(setting, target_ns=200_000)
    rows = sample_group(table, longer, group, timer, SimpleNamespace(value=-1))
    for row in rows:
        assert (row.status, row.samples_ns, row.mean_ns) == (
            Status.MEASURED,
            (1000,) * 2,
            (1000,) * 2,
        )
        assert row.calls_per_sample == 3 * 77  # 1.15 times 200 calls, in turns of 58 at least
    taken = [id(call) for call in timer.sampled[-18:]]
    assert all(len(set(taken[i : i + 3])) == 3 for i in range(0, 18, 3))


def test_who_changed_what_all_share_is_found_apart(table, setting):
    group, longer = _group("library", "right", "onednn"), replace(setting, target_ns=200_000)
    try:
        right = table.implementation(table.variants["plain"], "right").load()
        timer = Disturbing(right, 12)  # the first are those of calibration
        assert sample_group(table, longer, group, timer, SimpleNamespace(value=-1)) == []
        assert timer.left <= 0
        torch.autograd.set_detect_anomaly(False)
        apart, timer = group._replace(apart=True), Disturbing(right, 6)
        (row,) = sample_group(table, longer, apart, timer, SimpleNamespace(value=-1))
    finally:
        torch.autograd.set_detect_anomaly(False)
    assert (row.cell.implementation, row.status) == ("right", Status.REFUTED)
    assert row.reason == "changes torch.is_anomaly_enabled() from False to True"


class Harming(Disturbing):
    """Changes one set of arguments in that sample, past its version counter."""

    def sample(self, call, batch, keep=-1):
        """Do it."""
        sampled = FakeClock.sample(self, call, batch, keep)
        own = call.function is self.function
        self.left -= own
        if own and self.left == 0:
            batch[-2][0][0].data.add_(1)
        return sampled


def test_harm_to_one_of_many_sets_is_found_before_anybody_else_is_sampled(table, setting):
    longer = replace(setting, target_ns=200_000)
    right = table.implementation(table.variants["plain"], "right").load()
    for process in range(4):  # other orders: the harmed set was missed in most
        group = _group("library", "right", "onednn", process=process)._replace(apart=True)
        timer = Harming(right, 6)
        (row,) = sample_group(table, longer, group, timer, SimpleNamespace(value=-1))
        assert (row.cell.implementation, row.status) == ("right", Status.REFUTED)
        assert row.reason == "changes its argument x past its version counter"


class Failing(Disturbing):
    """Raises in place of that sample."""

    def sample(self, call, batch, keep=-1):
        """Do it."""
        own = call.function is self.function
        self.left -= own
        if own and self.left == 0:
            raise ArithmeticError("out of order")
        return FakeClock.sample(self, call, batch, keep)


def test_who_fails_in_turns_is_blamed_only_apart(table, setting):
    group, longer = _group("library", "right"), replace(setting, target_ns=200_000)
    right = table.implementation(table.variants["plain"], "right").load()
    cursor = SimpleNamespace(value=-1)
    assert sample_group(table, longer, group, Failing(right, 12), cursor) == []
    rows = sample_group(table, longer, group._replace(apart=True), Failing(right, 6), cursor)
    assert [row.status for row in rows] == [Status.MEASURED, Status.MEASURED, Status.CRASHED]


def test_a_group_that_nobody_is_blamed_for_is_timed_again_apart(monkeypatch, setting, tmp_path):
    group, asked = _group("library", "right"), []

    class Played:
        def __init__(self, **_):
            pass

        def run(self, jobs):
            (job,) = jobs
            unit = job.units[0]
            asked.append(unit.apart)
            rows = [
                contender.Sampled(c, 0, Status.MEASURED, (0,), (1000,), 1) for c in unit.cells
            ] if unit.apart else []  # fmt: skip
            timed = sampling.Timed(rows, 1.0)
            yield Report(job=0, unit=0, end=End.DONE, result=timed, waited_s=0.5, alive_s=9.0)

    monkeypatch.setattr(rounds, "Pool", Played)
    (rows,) = rounds.sample_process(setting, [group], tmp_path, None)
    assert [row.cell for row in rows] == list(group.cells)
    assert asked == [False, True]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided", "transposed"])
def test_the_pool_ends_on_its_first_set_and_knows_its_values(table, layout):
    variant, case = table.variants["plain"], ConvCase.parse(CASE.replace("contiguous", layout))
    call = Call(variant, variant.reference, case, "forward")
    pool = TensorPool(call, make_tensors(variant, case))
    original, strides = pool.first["x"].clone(), pool.first["x"].stride()
    assert len(pool.sets) >= 2
    assert len({entry["x"].data_ptr() for entry in pool.sets}) == len(pool.sets)
    for count in (1, 2, 5, 40):
        batch = pool.batch(count)
        assert len(batch) == count
        assert batch[-1][0][0].data_ptr() == pool.first["x"].data_ptr()
    seen = []
    for block in range(5):
        pool.refresh(block, proved=False)
        seen += [entry["x"].clone() for entry in pool.sets]
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert all(entry["x"].stride() == strides for entry in pool.sets)
    pool.refresh(5, proved=True)
    assert torch.equal(pool.first["x"], original)


def test_one_large_case_does_not_fill_the_memory(table):
    variant = table.variants["plain"]
    case = ConvCase.parse("n1 c64>2 i512x256 k1x1 float32 contiguous ones seed0")
    pool = TensorPool(
        Call(variant, variant.reference, case, "forward"), make_tensors(variant, case)
    )
    assert len(pool.sets) == 2


KEY = GroupKey("plain", CASE, "", "forward")


@pytest.mark.parametrize(
    ("seconds", "rounds", "expected"), [(None, 5, 20), (1e6, 5, 20), (1.0, 5, 3), (110.0, 2, 5)]
)
def test_the_budget_reduces_blocks_evenly_but_not_below_the_least(seconds, rounds, expected):
    budget = Budget(seconds, now=lambda: 0.0)
    calls = {KEY._replace(case_name=str(i)): [50_000_000] * 10 for i in range(8)}
    assert budget.blocks(calls, rounds, 20) == expected
    assert budget.blocks(calls, rounds, 2) == 2


def test_the_budget_learns_how_slow_the_machine_is():
    now = [0.0]
    budget = Budget(100.0, now=lambda: now[0])
    calls = {KEY: [100_000_000] * 10}
    before = budget.blocks(calls, 1, 1000)
    budget.learn(10.0, 20.0)
    assert budget.blocks(calls, 1, 1000) == pytest.approx(before / 2, abs=6)
    now[0] = 70.0
    assert budget.left_s == 30.0
    assert budget.deadline_s == 100.0
    assert Budget(None).deadline_s is None


def test_short_calls_cost_a_whole_sample():
    assert block_s([1, 1]) == 2 * (clock.HEADROOM * clock.TARGET_NS + BESIDE_NS) / 1e9
    assert block_s([10**9]) == 1.0 + BESIDE_NS / 1e9


def test_who_ends_the_process_is_left_out_and_the_others_are_timed_again():
    group = _group("library", "dies", "right")
    rows, (rest,) = rounds._without_culprit(group, End.CRASHED, 2, "ended by SIGSEGV")
    assert [(r.cell.implementation, r.status, r.reason) for r in rows] == [
        ("dies", Status.CRASHED, "ended by SIGSEGV")
    ]
    assert [cell.implementation for cell in rest.cells] == ["library", "library", "right"]
    rows, rest = rounds._without_culprit(group, End.TIMED_OUT, -1, "no answer")
    assert {r.status for r in rows} == {Status.TIMED_OUT}
    assert (len(rows), rest) == (4, [])


def test_strangers_are_blamed_for_what_nobody_can_be_blamed_for():
    group = _group("library", "right")
    stranger = group.cells[-1]
    rows, (rest,) = rounds._without_culprit(group, End.CRASHED, -1, "gone", (stranger,))
    assert [row.cell for row in rows] == [stranger]
    assert rest.cells == group.cells[:-1]


def test_a_process_loads_the_plug_ins_of_whoever_is_timed_in_it(setting):
    known = replace(setting, plugins={("plain", "right"): (PLANTED,)})
    assert known.strangers(_group("library", "right").cells) == _group("right").cells[1:]
    assert known.loading([_group("library", "right")]).common.plugins == (PLANTED,)
    assert known.loading([_group("library", "onednn")]).common.plugins == ()


def test_samples_that_do_not_fit_the_parents_clock_are_no_samples():
    cells = _group("library").cells
    rows = [contender.Sampled(c, 0, Status.MEASURED, (0,), (2 * 10**9,), 1) for c in cells]
    timed = sampling.Timed(rows, 4.0)
    report = Report(job=0, unit=0, end=End.DONE, result=timed, waited_s=4.1, alive_s=9.0)
    assert rounds._believed(report) == rows
    for wrong in ({"alive_s": 3.9}, {"waited_s": 8.0}):
        found = rounds._believed(replace(report, **wrong))
        assert {row.status for row in found} == {Status.REFUTED}
        assert all("by its parent's" in row.reason and not row.samples_ns for row in found)


@pytest.fixture
def claims(monkeypatch, tmp_path):
    monkeypatch.setattr(processors, "LOCKS", tmp_path)
    monkeypatch.setattr(processors, "_held", {})
    yield tmp_path
    for lock in processors._held.values():
        os.close(lock)


@pytest.mark.usefixtures("claims")
def test_pinning_leaves_a_processor_for_everything_else(monkeypatch):
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _: {0, 1, 5})
    assert processors.processors_for(1) == (5,)
    assert processors.processors_for(2) == (1, 5)
    assert processors.processors_for(3) == ()
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _: {0})
    assert processors.processors_for(1) == ()


def test_two_runs_at_once_have_a_processor_each_while_there_are_enough(monkeypatch, claims):
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _: {0, 1, 5})
    assert processors.processors_for(1) == (5,)
    first = processors._held
    monkeypatch.setattr(processors, "_held", {})
    assert processors.processors_for(1) == (1,)  # another run, as its claims are its own
    assert processors.processors_for(2) == (0, 1)
    second = processors._held
    monkeypatch.setattr(processors, "_held", {})
    assert processors.processors_for(1) == (5,)  # all are taken: as if it were alone
    for lock in (*first.values(), *second.values()):
        os.close(lock)  # as the end of its process does
    assert processors.processors_for(1) == (5,)
    assert processors._held
    assert {path.name for path in claims.iterdir()} == {
        f"convharness-processor-{number}" for number in (0, 1, 5)
    }


def test_cells_of_a_plan_fall_into_groups_of_one_case_and_direction(table):
    plan = make_plan(table, Selection(variants=("partial",)))
    for key, cells in grouped(plan.cells).items():
        assert {cell.group for cell in cells} == {key}
        assert sum(cell.placebo for cell in cells) == 1
