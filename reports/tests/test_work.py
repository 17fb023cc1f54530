"""The page says what was needed, what was issued, and how near the ceiling that comes."""

import dataclasses
import re
from pathlib import Path

import pytest

from harness.results import Status, load_run
from reports.doubt import doubts
from reports.page import render
from reports.tests.sample_run import make_run
from reports.work import share, work

RATES = {
    "copy_bytes_per_s": 1e9, "float32_flop_per_s": 1e11, "copy_bytes_per_s_with_2_threads": 2e9,
    "float32_flop_per_s_with_2_threads": 2e11,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("results") / "run-1", variants=2, processes=2, blocks=4)


@pytest.fixture
def loaded(folder: Path):
    found = load_run(folder)
    rows = [
        dataclasses.replace(
            row, useful_flop=4_000_000, issued_flop=8_000_000, useful_bytes=1_000,
            issued_bytes=5_000, dtype="float32",
            block_steal_share=(0.0,) * (len(row.block) - 1) + (0.25,) if row.block else (),
        )
        for row in found.measurements
    ]  # fmt: skip
    return dataclasses.replace(
        found, measurements=tuple(rows), run=dataclasses.replace(found.run, ceilings=RATES)
    )


def _row(loaded, **fields):
    row = next(row for row in loaded.measurements if row.status is Status.MEASURED)
    samples = (1_000_000,) * len(row.block)
    return dataclasses.replace(row, samples_ns=samples, threads=1, **fields)


def test_the_share_is_of_the_lower_of_both_ceilings_at_that_intensity(loaded):
    # 4e9 operations a second; products allow 1e11, and 4000 operations a byte allow more
    assert share([_row(loaded)], RATES, 1) == pytest.approx(0.04)
    # one operation a byte: 1e9 bytes a second allow 1e9 of them
    moved = _row(loaded, useful_bytes=4_000_000)
    assert share([moved], RATES, 1) == pytest.approx(4.0)
    assert share([dataclasses.replace(moved, threads=2)], RATES, 1) == pytest.approx(2.0)


@pytest.mark.parametrize("lost", ["useful_flop", "useful_bytes"])
def test_without_a_count_or_a_ceiling_there_is_no_share(loaded, lost):
    assert share([_row(loaded, **{lost: None})], RATES, 1) is None
    assert share([_row(loaded)], {}, 1) is None
    assert share([dataclasses.replace(_row(loaded), threads=3)], RATES, 1) is None


def test_the_page_shows_work_and_says_what_was_not_counted(loaded, folder):
    text = render(loaded)
    assert "8,000,000" in text
    assert "not measurable here" in text  # no instructions were counted
    counted = [dataclasses.replace(row, instructions=123_456) for row in loaded.measurements]
    assert "123,456" in render(dataclasses.replace(loaded, measurements=tuple(counted)))
    assert "useful and issued work, the share of the ceiling" in render(load_run(folder))


def test_the_page_says_how_many_blocks_were_flagged(loaded, folder):
    assert "sampled blocks saw more than 0.5% of steal" in render(loaded)
    assert "Flagged, counted and kept" not in render(load_run(folder))


def test_work_leaves_the_placebo_out(loaded):
    found = work(loaded, doubts(loaded))
    assert not any(item["row"].placebo for item in found)
    variants = {row.variant for row in loaded.measurements}
    assert {item["row"].variant for item in found} == variants


@pytest.mark.parametrize("status", [Status.REFUTED, Status.CRASHED, Status.TIMED_OUT])
def test_what_did_not_end_well_in_one_process_has_no_share(loaded, status):
    row = _row(loaded)
    ended = dataclasses.replace(row, status=status, block=(), samples_ns=(), block_steal_share=())
    assert share([row, ended], RATES, 1) is None
    assert share([_row(loaded, status=Status.THROTTLED)], RATES, 1) is None


def test_who_is_in_doubt_is_marked_beside_the_work(loaded):
    found = {item["row"].implementation: item["doubt"] for item in work(loaded, doubts(loaded))}
    assert found["by_taps"]
    assert not found["eager"]
    table = render(loaded).split("Issued operations")[1].split("</table>")[0]
    assert "Issued bytes" in table
    assert re.search(r'<td>by_taps <span class="badge (mistrusted|refuted)">', table)
    assert "<td>eager</td>" in table
