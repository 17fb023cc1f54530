"""The pages in docs/runs are those of the raw results beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.results import ResultsError, load_run
from reports import published as published_module
from reports.index import NAME
from reports.published import RUNS, decompressed, keep, main, published, write_pages
from reports.tests.sample_run import make_run

MOST_BYTES, MOST_PAGE_BYTES = 1_000_000, 5_000_000


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pages")
    write_pages(RUNS, target)
    return target


@pytest.mark.parametrize("run", published(), ids=lambda run: run.name)
def test_a_kept_page_is_its_raw_results_to_the_byte_but_for_how_zlib_packs_the_same_data(
    run: Path, rebuilt: Path
) -> None:
    name = f"{run.name}.html"
    kept, again = ((folder / name).read_text("utf-8") for folder in (RUNS, rebuilt))
    assert decompressed(again) == decompressed(kept), "run python3 -m reports.published"


@pytest.mark.skipif(not published(), reason="no run is kept in docs/runs")
def test_the_index_of_the_kept_pages_is_up_to_date(rebuilt: Path) -> None:
    assert (rebuilt / NAME).read_bytes() == (RUNS / NAME).read_bytes()
    pages = {path.stem for path in RUNS.glob("*.html")} - {"index"}
    assert pages == {run.name for run in published()}


@pytest.mark.parametrize("run", published(), ids=lambda run: run.name)
def test_a_kept_run_is_small_whole_and_of_committed_code(run: Path) -> None:
    loaded = load_run(run)
    assert not loaded.damage
    assert not loaded.run.dirty
    assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) < MOST_BYTES
    assert (RUNS / f"{run.name}.html").stat().st_size < MOST_PAGE_BYTES


def test_a_page_in_which_one_number_was_changed_is_told_from_its_raw_results(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "runs" / "run", variants=1, processes=2, blocks=3)
    (page, index) = write_pages(tmp_path / "runs", tmp_path / "out")
    assert index.name == NAME
    kept = decompressed(page.read_text("utf-8"))
    assert kept[1] is not None
    rows = run / "measurements.jsonl"
    text = rows.read_text("utf-8")
    start = text.index('"samples_ns":') + len('"samples_ns":')
    shutil.copy(rows, tmp_path / "before")
    place = next(i for i in range(start, len(text)) if text[i].isdigit())
    rows.write_text(text[:place] + "9" + text[place:], "utf-8")
    (page, _) = write_pages(tmp_path / "runs", tmp_path / "out")
    assert decompressed(page.read_text("utf-8"))[1] != kept[1]


def test_a_folder_without_runs_gets_no_index(tmp_path: Path) -> None:
    assert write_pages(tmp_path, tmp_path) == []
    assert not (tmp_path / NAME).exists()


def test_a_run_is_kept_without_what_its_page_does_not_need_in_place_of_an_older_one(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "run", variants=1, processes=2, blocks=3)
    (run / "pytest-benchmark.json").write_text("{}")
    (tmp_path / "kept" / "name").mkdir(parents=True)
    (tmp_path / "kept" / "name" / "older.jsonl").write_text("")
    keep(run, "name", tmp_path / "kept")
    names = {path.name for path in (tmp_path / "kept" / "name").iterdir()}
    assert names == {"run.json", "measurements.jsonl", "verdicts.jsonl", "evidence"}
    pages = write_pages(tmp_path / "kept", tmp_path)
    assert [page.name for page in pages] == ["name.html", NAME]


def test_long_rows_are_packed_and_give_the_same_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", variants=1, processes=2, blocks=3)
    keep(run, "plain", tmp_path / "kept")
    monkeypatch.setattr(published_module, "LONG", 1)
    keep(run, "packed", tmp_path / "kept")
    names = {path.name for path in (tmp_path / "kept" / "packed").iterdir()}
    assert names == {"run.json", "measurements.jsonl.gz", "verdicts.jsonl.gz", "evidence"}
    (packed, plain, _) = write_pages(tmp_path / "kept", tmp_path)
    assert packed.read_bytes() == plain.read_bytes()
    keep(tmp_path / "kept" / "packed", "again", tmp_path / "kept")
    one, two = (tmp_path / "kept" / n / "measurements.jsonl.gz" for n in ("packed", "again"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", ["..", "a/b", "", "a.b"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", variants=1, processes=2, blocks=3)
    with pytest.raises(ResultsError, match="is no name of a folder"):
        keep(run, name, tmp_path / "kept")
    assert run.exists()


def test_a_run_that_cannot_be_kept_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-run", "name"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: results/no-such-run/run.json: cannot be read")
    assert said.count("\n") == 1


def test_what_is_no_run_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ResultsError):
        keep(tmp_path, "name", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_run_without_a_name_is_answered_with_the_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["results/run"]) == 2
    assert capsys.readouterr().err == "usage: python3 -m reports.published [RUN NAME]\n"


def test_a_kept_run_is_not_written_over_itself(tmp_path: Path) -> None:
    keep(make_run(tmp_path / "run", variants=1, processes=1, blocks=2), "kept", tmp_path)
    before = sorted(path.name for path in (tmp_path / "kept").iterdir())
    with pytest.raises(ResultsError, match="lies where it is to be kept"):
        keep(tmp_path / "kept", "kept", tmp_path)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == before
