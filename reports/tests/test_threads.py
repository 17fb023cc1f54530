"""A run with several numbers of threads: what belongs to one of them is shown for no other."""

from __future__ import annotations

import dataclasses

import pytest

from harness.comparison import summarize
from harness.results import LoadedRun, Outcome, load_run
from reports.correctness import errors
from reports.doubt import doubts
from reports.frame import compare_run
from reports.page import render
from reports.tests.sample_run import make_run
from reports.words import threads

RATES = {"copy_bytes_per_s": 2e10, "float32_flop_per_s": 1e11}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    folder = tmp_path_factory.mktemp("results") / "run"
    found = load_run(make_run(folder, variants=1, processes=2, blocks=3))
    run = dataclasses.replace(found.run, ceilings=RATES)
    verdicts = [dataclasses.replace(v, tightness={"float32": 0.5}) for v in found.verdicts]
    return dataclasses.replace(found, run=run, verdicts=tuple(verdicts))


@pytest.fixture(scope="module")
def several(loaded: LoadedRun) -> LoadedRun:
    """The same again with 8 threads, in half of the time but for the baseline."""
    rows = [
        dataclasses.replace(
            row, threads=8,
            samples_ns=tuple(ns if row.implementation == "eager" else ns // 2 for ns in row.samples_ns),
        )
        for row in loaded.measurements
    ]  # fmt: skip
    return dataclasses.replace(loaded, measurements=(*loaded.measurements, *rows))


@pytest.mark.parametrize(
    ("counts", "words"),
    [([1], "1 thread"), ([8, 8], "8 threads"), ([8, 1], "1 and 8 threads"),
     ([1, 2, 4], "1, 2 and 4 threads")],
)  # fmt: skip
def test_numbers_of_threads_are_words(counts: list[int], words: str) -> None:
    assert threads(counts) == words


def test_the_page_names_every_number_of_threads_and_draws_no_ceiling_of_one_of_them(
    loaded: LoadedRun, several: LoadedRun
) -> None:
    one, both = render(loaded), render(several)
    assert "20 GB/s in a copy" in one
    assert "of 3 blocks, 1 thread, seed" in one
    assert "faster than the baseline.</p>" in one
    assert "20 GB/s in a copy" not in both
    assert "or rows of several dtypes or numbers of threads" in both
    assert "of 3 blocks, 1 and 8 threads, seed" in both
    assert "device cpu, 1 and 8 threads." in both
    assert "faster than the baseline, with 1 thread.</p>" in both


def test_errors_go_with_the_speed_of_the_threads_of_the_run(
    loaded: LoadedRun, several: LoadedRun
) -> None:
    rows = [errors(run, summarize(compare_run(run)), doubts(run)) for run in (loaded, several)]
    ratios = [{row["implementation"]: row["ratio"] for row in found} for found in rows]
    assert ratios[0] == ratios[1]
    assert ratios[0]["by_taps"] > 0.5


def test_a_ratio_to_a_baseline_in_doubt_says_no_claim_beside_the_errors(loaded: LoadedRun) -> None:
    verdicts = tuple(
        dataclasses.replace(v, status=Outcome.REFUTED) if v.implementation == "eager" else v
        for v in loaded.verdicts
    )
    for run, claims in ((loaded, True), (dataclasses.replace(loaded, verdicts=verdicts), False)):
        table = render(run).split("Error / bound, float16</th>")[1].split("</table>")[0]
        lines = [
            line for line in table.split("</tr>") if "compiled" in line or "(baseline)" in line
        ]
        assert len(lines) == 2
        assert ["✗ no claim" in line for line in lines] == [False, not claims]
