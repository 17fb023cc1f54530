"""Mistakes seen in published benchmarks, each as a test that this one does not make it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness import budget, ceilings, clock, contender, contest, results, sampling
from harness.benchmark import describe_run
from harness.case import ConvCase
from harness.check import Refuted, Trial
from harness.comparison import Comparison, GeometricMean, compare, median_ns, peak_bytes, summarize
from harness.effort import Profile
from harness.law import Law
from harness.machine import describe_flags
from harness.plan import Selection, make_plan
from harness.proof import Common, Question, answer_session
from harness.results import Measurement, Outcome, Recorder, Status, load_run
from harness.search import search
from harness.table import load_table
from harness.tolerance import Bound

ROOT = Path(clock.__file__).parents[1]
CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
OUT_OF_MEMORY = {
    "status": Status.OUT_OF_MEMORY,
    "block": (),
    "samples_ns": (),
    "reason": "out of memory",
}


def row(samples=(10, 20, 30), **changes: Any) -> Measurement:
    common: dict[str, Any] = {
        "run_id": "r", "variant": "plain", "implementation": "library", "case": "n1",
        "case_name": "a", "direction": "forward", "dtype": "float32", "device": "cpu",
        "threads": 1, "status": Status.MEASURED, "block": tuple(range(len(samples))),
        "samples_ns": tuple(samples),
    }  # fmt: skip
    return Measurement(**common | changes)


def pairs(**ratios: int) -> Iterator[Measurement]:
    """Rows of two processes: a baseline of 100 ns, and another of so many ns by case."""
    for name, time in ratios.items():
        for process in (0, 1):
            where = {"case": name, "case_name": name, "process": process}
            yield row((100,) * 3, **where)
            yield row((time,) * 3, implementation="other", **where)


def test_ratios_are_averaged_geometrically_not_arithmetically():
    (mean,) = summarize(compare(pairs(half=50, twice=200), {"plain": "library"}))
    assert mean.ratio == pytest.approx(1.0)


def test_a_failed_case_is_never_a_ratio_of_one():
    rows = [*pairs(half=50), row(case="b", case_name="b")]
    rows.append(row(case="b", case_name="b", implementation="other", **OUT_OF_MEMORY))
    comparisons = compare(rows, {"plain": "library"})
    (failed,) = [c for c in comparisons if c.case == "b"]
    assert failed.ratio is None
    (mean,) = summarize(comparisons)
    assert (mean.ratio, mean.counted, mean.cells) == (pytest.approx(0.5), 1, 2)


def test_running_out_of_memory_is_never_a_number():
    failed = row(**OUT_OF_MEMORY)
    assert (median_ns([failed]), peak_bytes([failed])) == (None, None)
    with pytest.raises(ValueError, match="status=OUT_OF_MEMORY with 1 samples_ns"):
        row(**OUT_OF_MEMORY | {"block": (0,), "samples_ns": (0,)})


def test_samples_are_stored_as_they_were_taken(tmp_path):
    Recorder(tmp_path).write_run(_run())
    samples = (1, 1_234_567_891, 3, 10**15 + 1)
    Recorder(tmp_path).add(row(samples))
    (stored,) = load_run(tmp_path).measurements
    assert stored.samples_ns == samples


def test_no_outlier_is_deleted():
    samples = [100] * 9 + [10**9]
    found = pytest.importorskip("reports.samples")
    (shown,) = found.series([row(samples)])
    assert shown[-1] == samples
    assert found.outliers([shown]) == 1
    (comparison,) = compare([row(samples), row([100] * 10, implementation="b")], {"plain": "b"})
    assert comparison.samples == 10


def test_one_sample_is_no_distribution():
    assert not any(re.search(r"^p\d|quantile", name) for name in _fields(Measurement))
    one = [row((5,)), row((10,), implementation="other")]
    (comparison,) = compare(one, {"plain": "library"})
    assert (comparison.ratio, comparison.ratio_low, comparison.ratio_high) == (2.0, None, None)
    assert "an interval takes two processes" in comparison.why


def test_the_bound_that_is_given_is_the_one_that_is_used():
    expected = {"output": torch.tensor([1.0, 100.0])}
    got = {"output": torch.tensor([1.0, 100.5])}
    _trial().agree(got, expected, {"output": Bound(error=torch.tensor([0.0, 0.6]), tier="T1")})
    for error in (torch.tensor([0.6, 0.4]), torch.zeros(2)):
        with pytest.raises(Refuted, match="output differs"):
            _trial().agree(got, expected, {"output": Bound(error=error, tier="T1")})


def test_every_entry_has_to_be_right_not_one_of_them():
    bound = {"output": Bound(error=torch.tensor([1.0, 1.0]), tier="T1")}
    for wrong in ([0.0, 9.0], [9.0, 0.0], [0.0, float("nan")]):
        with pytest.raises(Refuted):
            _trial().agree({"output": torch.tensor(wrong)}, {"output": torch.zeros(2)}, bound)


def test_a_bound_as_large_as_the_output_is_mistrusted():
    def check(trial: Trial) -> None:
        output = torch.ones(3)
        bound = Bound(error=output, tier="T1")
        trial.agree({"output": output}, {"output": output}, {"output": bound})

    plain = load_table().variants["plain"]
    law = Law(id="X1", name="says_nothing", statement="1 = 1 +- 1", check=check)
    found = search(law, plain, plain.reference, Profile(cases=20))
    assert found.outcome is Outcome.MISTRUSTED


def test_an_order_statistic_is_what_its_label_says():
    assert median_ns([row((1, 2, 9)), row((4, 5, 6), process=1)]) == 3.5
    assert peak_bytes([row(peak_bytes=3), row(peak_bytes=7, process=1)]) == 7
    fences = pytest.importorskip("reports.samples").fences
    assert fences([0, 10, 20, 30, 40]) == (10 - 1.5 * 20, 30 + 1.5 * 20)


def test_a_time_says_its_unit_in_its_name():
    records = (Measurement, Comparison, GeometricMean, contender.Sampled, results.Run)
    names = [name for kind in records for name in _fields(kind)]
    timed = [n for n in names if re.search(r"time|duration|elapsed|seconds|samples_|median", n)]
    assert [n for n in timed if not n.endswith(("_ns", "_s", "samples", "calls_per_sample"))] == []
    for function in (clock.monotonic_s, clock.processor_s, budget.block_s, budget.fixed_s):
        assert function.__name__.endswith("_s")


def test_ceilings_are_measured_and_not_looked_up_by_the_name_of_a_device():
    text = inspect.getsource(ceilings)
    assert "get_device_name" not in text
    assert "get_device_properties" not in text
    assert not re.search(r"H100|H200|A100|B200|MI3", text)


def test_a_measurement_changes_no_flag_of_the_baseline():
    before = describe_flags()
    rows = list(pairs(a=50))
    flagged = [dataclasses.replace(r, flags="tf32") for r in rows if r.implementation == "other"]
    comparisons = compare([r for r in rows if r.implementation == "library"] + flagged)
    assert all(c.ratio is None for c in comparisons)
    assert describe_flags() == before


def test_the_baseline_is_sampled_in_every_block_beside_the_others_never_before_them(tmp_path):
    table = load_table()
    cells = make_plan(table, Selection(variants=("plain",), cases=(CASE,), directions=("forward",)))
    order: list[int] = []

    class Clock:
        def sample(self, call: Any, batch: Any, keep: int = -1) -> tuple[int, Any]:
            order.append(id(call))
            return 10_000 * len(batch), [call(arguments) for arguments in batch][keep]

    common = Common(plugins=(), device="cpu", threads=1, answers=tmp_path)
    _answer(common)
    setting = sampling.Setting(common=common, seed=0, processors=(), target_ns=5_000)
    group = sampling.Group(cells.cells[0].group, cells.cells, 12, 0, 1.0)
    cursor: Any = SimpleNamespace(value=-1)
    clocked: Any = Clock()
    sampling.sample_group(table, setting, group, clocked, cursor)
    blocks = [order[-36:][i : i + 3] for i in range(0, 36, 3)]
    assert all(len(set(block)) == 3 for block in blocks)
    assert len({tuple(block) for block in blocks}) > 2
    assert "clock.in_turns(" in inspect.getsource(contest.sampled)


def test_no_kernel_is_known_by_its_name():
    for path in ("clock.py", "sampling.py", "proof.py", "arbiter.py", "pool.py"):
        text = (ROOT / "harness" / path).read_text(encoding="utf-8")
        assert not re.search(r"kernel_?name|key_averages|flush.*\.name", text), path


def _fields(kind: type) -> list[str]:
    return list(inspect.get_annotations(kind))


def _trial() -> Trial:
    plain = load_table().variants["plain"]
    return Trial(plain, plain.reference, ConvCase.parse(CASE))


def _answer(common: Common) -> None:
    answer_session(common, None)(Question("plain", CASE))


def _run() -> results.Run:
    made = describe_run(load_table(), {}, argv=("bench",), device="cpu", threads=1)
    return dataclasses.replace(made, id="r")
