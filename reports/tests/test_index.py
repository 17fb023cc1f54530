"""The index of all pages: newest first, side by side, through time, whatever lies in the folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.results import Outcome, load_run
from reports.index import history, write_index
from reports.page import render, write_page
from reports.summary import Summary, embedded, read_summary
from reports.tests.sample_run import BREAKOUT, HOSTILE, Structure, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("pages")
    for number, run in enumerate(("older", "newer")):
        made = make_run(top / "results" / run, variants=4, processes=3, blocks=4)
        path = made / "run.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        data["started"] = f"2026-11-2{number}T09:30:00+00:00"
        path.write_text(json.dumps(data), encoding="utf-8")
        write_page(made, top / "out" / f"{run}.html")
    return top / "out"


def summary_of(folder: Path, name: str) -> Summary:
    found = read_summary(folder / f"{name}.html")
    assert isinstance(found, Summary)
    return found


def test_runs_are_listed_newest_first_and_linked(folder: Path) -> None:
    page = Structure(write_index(folder).read_text("utf-8"))
    assert [link for link in page.links if link.endswith(".html")] == ["newer.html", "older.html"]
    assert HOSTILE in page.text


def test_the_same_pages_give_the_same_bytes(folder: Path) -> None:
    assert write_index(folder).read_bytes() == write_index(folder).read_bytes()


def test_whoever_may_not_claim_has_no_history(folder: Path) -> None:
    runs = [summary_of(folder, name) for name in ("newer", "older")]
    rows = {(row["mean"].variant, row["mean"].implementation) for row in history(runs)}
    assert ("sound", "by_taps") in rows
    assert ("masked", "by_taps") not in rows


def test_whoever_is_compared_with_a_baseline_in_doubt_is_not_called_refuted(
    folder: Path, tmp_path: Path
) -> None:
    loaded = load_run(folder.parent / "results" / "newer")
    verdicts = tuple(
        dataclasses.replace(row, status=Outcome.REFUTED)
        if (row.variant, row.implementation, row.law) == ("sound", "eager", "G1") else row
        for row in loaded.verdicts
    )  # fmt: skip
    page = tmp_path / "page.html"
    page.write_text(render(dataclasses.replace(loaded, verdicts=verdicts)), "utf-8")
    means = summary_of(tmp_path, "page").means
    found = {mean.implementation: mean.doubt for mean in means if mean.variant == "sound"}
    assert found == dict.fromkeys(("by_taps", "compiled", BREAKOUT), "baseline refuted")
    found = {mean.implementation: mean.doubt for mean in means if mean.variant == "masked"}
    assert found["by_taps"] == "refuted"


def test_means_of_different_flags_are_told_apart(folder: Path, tmp_path: Path) -> None:
    for name in ("newer", "older"):
        text = (folder / f"{name}.html").read_text("utf-8")
        run = summary_of(folder, name)
        cold, hot = (
            tuple(dataclasses.replace(mean, flags=f"tf32=1,l2={heat}") for mean in run.means)
            for heat in ("cold", "hot")
        )
        both = embedded(dataclasses.replace(run, means=cold + hot))
        (tmp_path / f"{name}.html").write_text(text.replace(embedded(run), both), "utf-8")
    text = write_index(tmp_path).read_text("utf-8")
    history = text.split('<h2 id="history">')[1]
    assert history.count("cpu, 1 thread, l2=cold<") == history.count("cpu, 1 thread, l2=hot<") > 0
    assert text.count('"place": "cpu, 1 thread, l2=hot"') == len(run.means) * 2
    assert "tf32=1<" not in text


def test_a_change_shows_where_intervals_lie_apart(folder: Path) -> None:
    new, old = (summary_of(folder, name) for name in ("newer", "older"))
    slower = tuple(
        dataclasses.replace(
            mean,
            ratio=mean.ratio and mean.ratio * 2,
            ratio_low=mean.ratio_low and mean.ratio_low * 2,
            ratio_high=mean.ratio_high and mean.ratio_high * 2,
        )
        for mean in new.means
    )
    assert not any(row["changed"] for row in history([new, old]))
    changed = history([dataclasses.replace(new, means=slower), old])
    assert all(row["changed"] and row["change"] == pytest.approx(2) for row in changed)
    other_machine = dataclasses.replace(new, machine="another")
    assert not history([other_machine, old])


def test_foreign_and_damaged_pages_are_told_and_nothing_more(tmp_path: Path) -> None:
    begin = '<script type="application/json" id="summary">'
    for name, text in {
        "foreign": "<html>",
        "broken": f"{begin}{{</script>",
        "deep": f"{begin}{'[' * 200_000}</script>",
        "wrong": f'{begin}{{"id": 1}}</script>',
        HOSTILE.replace("/", "_"): "",
    }.items():
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
    page = Structure(write_index(tmp_path).read_text("utf-8"))
    assert page.tags.count("script") == 2
    assert "foreign.html carries no summary" in page.text
    assert page.text.count("damaged summary") == 3
    assert "No page of this folder carries a summary." in page.text
