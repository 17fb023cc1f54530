"""What a benchmark run writes down of a device, from numbers: no device is asked."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from harness.benchmark import Benchmark, describe_run
from harness.budget import ON_A_DEVICE, Budget, block_s
from harness.comparison import Speed, compare, summarize
from harness.contender import Sampled
from harness.disturbances import Disturbance
from harness.isolation import End
from harness.options import Options
from harness.plan import Selection, cell_of, grouped, make_plan
from harness.proof import Proof
from harness.results import Status, load_run
from harness.rounds import calls_of
from harness.sampling import Ending
from harness.table import load_table
from harness.terminal import Progress
from harness.work import Work

CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 channels_last real seed0"
SELECTION = Selection(
    variants=("plain",), implementations=("library",), cases=(CASE,), directions=("forward",),
    device="cuda",
)  # fmt: skip
QUIET = Disturbance(0.0, 0.5, 0, None)


@pytest.fixture
def bench(tmp_path: Path) -> Benchmark:
    table = load_table()
    options = Options(
        selection=SELECTION, processes=2, blocks=5, seed=0, laws="none", plugins=(), budget_s=None
    )
    run = describe_run(table, {"plain": "library"}, argv=("bench",), device="cuda", threads=1)
    made = Benchmark(tmp_path, run, options, make_plan(table, SELECTION), table, Progress())
    made.write()
    proof = Proof(proof="T0: equal", kernel_ns=900, kernels=("conv",), work=Work(2, 3, 4, 5))
    made._accept(made.plan.cells[0].proved_as, End.DONE, proof, "")
    return made


def _sampled(cell, rates, process=0):
    samples = (1000, 1100, 1000, 1050, 1000)
    return Sampled(
        cell, process, Status.MEASURED, tuple(range(5)), samples, 7, block_clock_hz=tuple(map(int, rates)),
        wall_ns=(9000,) * 5, enqueue_ns=(8000,) * 5,
    )  # fmt: skip


def test_one_proof_speaks_for_every_mode_and_the_placebo(bench):
    assert set(bench.proofs) == set(bench.plan.cells)
    assert len(bench.plan.cells) == 6
    assert {cell.mode for cell in bench.proofs} == {"l2=cold", "l2=hot", "graph=1,l2=cold"}


def test_a_failed_proof_is_a_row_of_every_mode(bench):
    bench.proofs.clear()
    bench._accept(bench.plan.cells[0].proved_as, End.OUT_OF_MEMORY, None, "20 GiB")
    rows = load_run(bench.folder).measurements
    assert [(row.status, row.reason) for row in rows] == [(Status.OUT_OF_MEMORY, "20 GiB")] * 3
    assert len({row.flags for row in rows}) == 3


def test_a_row_has_its_flags_its_kernels_and_the_hosts_times(bench):
    cell = bench.plan.cells[0]
    bench.record_sampled(_sampled(cell, [1.7e9] * 5))
    (row,) = load_run(bench.folder).measurements
    words = dict(word.split("=") for word in row.flags.split(","))
    assert words["l2"] == "cold"
    flags = {"autocast", "cudnn.allow_tf32", "cudnn.benchmark", "cudnn.deterministic"}
    assert flags | {"deterministic", "matmul.allow_tf32"} <= set(words)
    assert "channels_last" in row.case
    assert (row.kernel_ns, row.kernels, row.issued_bytes) == (900, ("conv",), 5)
    assert (row.wall_ns, row.enqueue_ns) == ((9000,) * 5, (8000,) * 5)
    assert cell_of(row) == cell
    assert row.off_clock_blocks == ()


def test_a_throttled_row_keeps_its_samples_and_is_not_judged(bench):
    cells = [cell for cell in bench.plan.cells if cell.mode == "l2=cold"]
    for process, cell in itertools.product((0, 1), cells):
        slow = 1.5e9 if cell.placebo else 1.7e9
        rates = [1.7e9, 1.7e9, 1.7e9, slow, slow]
        bench.record_sampled(_sampled(cell, rates, process))
    rows = load_run(bench.folder).measurements
    throttled = [row for row in rows if row.placebo]
    assert {row.status for row in throttled} == {Status.THROTTLED}
    assert all(row.off_clock_blocks == (3, 4) and len(row.samples_ns) == 5 for row in throttled)
    (judged,) = compare(rows, {"plain": "library"})
    assert judged.verdict is Speed.UNRESOLVED
    assert judged.ratio is None
    assert judged.why.startswith("no ratio: THROTTLED, 2 of 5 blocks ran more than 2% off")
    (contender,) = [replace(row, implementation="other", placebo=False) for row in throttled[:1]]
    (mean,) = summarize(compare([*rows, contender], {"plain": "library"}))
    assert (mean.counted, mean.cells) == (0, 1)


def test_a_process_that_was_throttled_is_left_out_and_the_others_are_compared(bench):
    cells = [cell for cell in bench.plan.cells if cell.mode == "l2=cold"]
    for process, cell in itertools.product(range(3), cells):
        slow = 1.5e9 if process == 1 else 1.7e9
        bench.record_sampled(_sampled(cell, [1.7e9, slow, slow, slow, 1.7e9], process))
    assert not any(cell.group in {c.group for c in bench._unfinished()} for cell in cells)
    (judged,) = compare(bench.rows.values(), {"plain": "library"})
    assert (judged.status, judged.process, judged.ratio) == (Status.MEASURED, (0, 2), 1.0)


def test_the_clock_of_the_run_is_that_of_all_its_rows(bench):
    first, second = [cell for cell in bench.plan.cells if not cell.placebo][:2]
    for process in range(3):
        bench.record_sampled(_sampled(first, [1.7e9] * 5, process))
    # alike among themselves, and yet slower than everything else in the run
    bench.record_sampled(_sampled(second, [1.4e9] * 5))
    assert bench.rows[second, 0].status is Status.THROTTLED
    assert bench.rows[first, 0].status is Status.MEASURED


def test_what_a_processors_system_says_of_its_clock_throttles_nothing(bench):
    bench.run = replace(bench.run, device="cpu")
    cell = bench.plan.cells[0]
    bench.record_sampled(_sampled(cell, [1.7e9, 3e9, 2e9, 1e9, 2e9]))
    assert bench.rows[cell, 0].status is Status.MEASURED
    assert bench.rows[cell, 0].off_clock_blocks == ()


def test_other_kernels_than_in_the_proof_are_a_warning(bench):
    cell = bench.plan.cells[0].proved_as
    for same in ("conv",), ():  # nothing was to be learned from the second
        bench.note_ending(0, 1, Ending(QUIET, {cell: same}))
    assert not [note for note in bench.run.notes if "warning" in note]
    bench.note_ending(1, 1, Ending(QUIET, {cell: ("winograd",)}))
    (note,) = [note for note in bench.run.notes if "warning" in note]
    assert note.startswith(
        "warning: plain/library ran other kernels in process 1 than in its proof"
    )


def test_a_block_on_a_device_costs_the_hosts_sample_and_both_rests(bench):
    calls = calls_of(grouped(bench.plan.cells), bench.proofs)
    assert block_s([1], "cuda") == ON_A_DEVICE * block_s([1])
    budget = Budget(20.0, now=lambda: 0.0)
    assert budget.blocks(calls, 1, 10**6, "cuda") < budget.blocks(calls, 1, 10**6)
