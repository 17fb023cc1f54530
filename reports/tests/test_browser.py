"""The page in a real browser: everything that its script does, and everything without it."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.comparison import compare
from harness.results import load_run
from reports.index import write_index
from reports.page import write_page
from reports.tests.browser import Browser, browser, find
from reports.tests.sample_run import HOSTILE, carried, make_run

pytestmark = [
    pytest.mark.skipif(find() is None, reason="no Chromium on this machine"),
    pytest.mark.xdist_group("browser"),
]

CHOOSE = """(() => {{ const one = [...document.querySelectorAll("select.baseline")]
  .find((one) => one.dataset.variant === {variant}); one.value = {name};
  one.dispatchEvent(new Event("change")); }})()"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("pages")
    for name in ("run", "other"):
        made = make_run(top / "results" / name, processes=3, blocks=5)
        write_page(made, top / "out" / f"{name}.html")
    write_index(top / "out")
    return top


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return folder / "out" / "run.html"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def tab(opened: Browser, page: Path) -> Browser:
    opened.scripts(run=True)
    opened.prefer("light")
    opened.resize(1440)
    opened.open(page)
    return opened


def rows_of(page: Path) -> list[dict[str, Any]]:
    data = carried(page.read_text(encoding="utf-8"))
    return [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]


def choose(tab: Browser, variant: str, name: str) -> None:
    tab.run(CHOOSE.format(variant=json.dumps(variant), name=json.dumps(name)))


def column(tab: Browser, place: int) -> list[str]:
    cells = f'document.querySelectorAll("#all tbody tr:not([hidden]) td:nth-child({place})")'
    found: list[str] = tab.run(f"[...{cells}].map((cell) => cell.textContent)")
    return found


def test_it_loads_from_disk_without_network_or_errors(tab: Browser, page: Path) -> None:
    assert tab.errors == []
    assert {url for url in tab.asked if not url.startswith("blob:")} <= {
        page.as_uri(),
        "about:blank",
    }
    assert tab.run("document.title") == "run · convharness"


def test_names_of_strangers_run_nothing_even_after_a_switch(tab: Browser) -> None:
    choose(tab, HOSTILE, "by_taps")
    tab.run('document.querySelectorAll("details").forEach((one) => { one.open = true; })')
    time.sleep(0.2)
    assert tab.errors == []
    assert tab.run('document.querySelectorAll("img, script").length') == 3


def test_a_click_on_a_heading_sorts_and_the_next_one_turns_it(tab: Browser, page: Path) -> None:
    ratios = sorted(row["ratio"] for row in rows_of(page) if row["ratio"] is not None)
    head = 'document.querySelector("th[data-k=ratio] button")'
    for up in (True, False):
        tab.run(f"{head}.click()")
        shown = [text for text in column(tab, 8) if text]
        assert shown[0] == f"{ratios[0 if up else -1]:.3f}"
        assert len(shown) == len(ratios)
        assert column(tab, 8)[-1] == ""  # rows without a ratio stay last either way
        state = tab.run(f'{head}.closest("th").getAttribute("aria-sort")')
        assert state == ("ascending" if up else "descending")


def test_words_filter_rows_and_the_count_says_so(tab: Browser, page: Path) -> None:
    rows = rows_of(page)
    tab.run("""(() => { const one = document.getElementById("filter"); one.value = "sound COMPILED";
      one.dispatchEvent(new Event("input")); })()""")
    expected = [r for r in rows if (r["variant"], r["implementation"]) == ("sound", "compiled")]
    assert len(column(tab, 3)) == len(expected) > 0
    assert tab.run('document.getElementById("shown").textContent') == (
        f"{len(expected)} of {len(rows)} rows"
    )


def test_another_baseline_shows_in_strip_figures_and_table(
    tab: Browser, folder: Path, page: Path
) -> None:
    own = [row for row in load_run(folder / "results" / "run").measurements
           if row.variant == "sound" and not row.placebo]  # fmt: skip
    expected = {
        (row.case_name, row.direction): row
        for row in compare(own, {"sound": "by_taps"})
        if row.implementation == "eager"
    }
    strip = (
        '[...document.querySelectorAll(".answer")].find((one) => one.dataset.variant === "sound")'
    )
    before = tab.run(f"{strip}.textContent")
    choose(tab, "sound", "by_taps")
    assert "× slower than by_taps" in tab.run(f"{strip}.textContent").replace("\n", " ")
    assert tab.run('document.querySelectorAll(".drawn svg").length') == 2  # all, and the variant
    for row in rows_of(page):
        if (row["variant"], row["implementation"]) != ("sound", "eager") or row["placebo"]:
            continue
        ratio = expected[row["case_name"], row["direction"]].ratio
        assert ratio is not None
        shown = f'document.getElementById("{row["anchor"]}").cells[7].textContent'
        assert float(tab.run(shown)) == pytest.approx(ratio, abs=6e-4)
    choose(tab, "sound", "")
    assert tab.run(f"{strip}.textContent") == before
    assert tab.run('document.querySelectorAll(".drawn").length') == 0
    assert tab.errors == []


def test_rows_against_a_baseline_in_doubt_are_grey_after_a_switch(tab: Browser, page: Path) -> None:
    own = [row for row in rows_of(page) if row["variant"] == "masked" and not row["placebo"]]
    measured = [row for row in own if row["implementation"] == "eager"]
    line = 'document.getElementById("{}")'
    for row in measured:
        assert "doubtful" not in tab.run(f"{line.format(row['anchor'])}.className")
    choose(tab, "masked", "by_taps")  # which a law refutes
    for row in measured:
        shown = line.format(row["anchor"])
        assert "doubtful" in tab.run(f"{shown}.className")
        assert "✗ no claim: baseline refuted" in tab.run(f"{shown}.textContent")
    names = tab.run(
        '[...document.querySelectorAll(".drawn svg text")].map((one) => one.textContent)'
    )
    assert "✗ eager (baseline refuted)" in names
    plot = '[...document.querySelectorAll("[data-forest]")].find((one) => one.dataset.forest === "masked")'
    colours = (
        f'[...{plot}.querySelectorAll(".drawn path")].map((one) => one.getAttribute("stroke"))'
    )
    assert set(tab.run(colours)) == {"var(--unresolved)"}
    choose(tab, "masked", "")
    for row in measured:
        shown = line.format(row["anchor"])
        assert "doubtful" not in tab.run(f"{shown}.className")
        assert "no claim" not in tab.run(f"{shown}.textContent")


def test_a_permalink_opens_its_row_and_draws_its_samples(tab: Browser, page: Path) -> None:
    row = next(r for r in rows_of(page) if r["verdict"] == "FASTER" and not r["doubt"])
    tab.open(page, fragment=f"#{row['anchor']}")
    details = f'document.querySelector("#{row["anchor"]} details")'
    tab.wait(f'{details}.open && {details}.querySelector(".series svg") !== null')
    assert tab.run(f'{details}.querySelectorAll(".series circle, .series path").length') >= 15
    said = tab.run(f"{details}.textContent")
    assert "Rule: the whole interval is below 1" in said
    assert "Ratio by process:" in said
    assert row["timing"] in said
    place = tab.run(f'document.getElementById("{row["anchor"]}").getBoundingClientRect().top')
    assert -400 < place < 900


def test_downloads_hold_what_is_shown(tab: Browser, page: Path, tmp_path: Path) -> None:
    tab.save_to(tmp_path)
    tab.run("""(() => { const one = document.getElementById("filter"); one.value = "forward stem";
      one.dispatchEvent(new Event("input")); })()""")
    count = len(column(tab, 3))
    for end in ("csv", "json"):
        tab.run(f'document.getElementById("{end}").click()')
        limit = time.monotonic() + 20
        while not (tmp_path / f"run.{end}").exists() and time.monotonic() < limit:
            time.sleep(0.05)
    time.sleep(0.2)
    records = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    with (tmp_path / "run.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(records) == len(table) == count > 0
    by_anchor = {row["anchor"]: row for row in rows_of(page)}
    for record, line in zip(records, table, strict=True):
        assert record == by_anchor[record["anchor"]]
        assert line["case"] == record["case"]


def test_dark_is_dark_and_light_is_light(tab: Browser, page: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    assert tab.run(paper) == "rgb(255, 255, 255)"
    tab.prefer("dark")
    tab.open(page)
    assert tab.run(paper) == "rgb(21, 23, 26)"
    ink = tab.run('getComputedStyle(document.querySelector("svg.figure")).color')
    assert ink == "rgb(230, 231, 233)"


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", ["run.html", "index.html"])
def test_nothing_reaches_beyond_the_window(
    tab: Browser, folder: Path, width: int, name: str
) -> None:
    tab.resize(width)
    tab.open(folder / "out" / name)
    assert tab.run("document.documentElement.scrollWidth") <= width
    tab.run('document.querySelectorAll("details").forEach((one) => { one.open = true; })')
    time.sleep(0.3)
    assert tab.run("document.documentElement.scrollWidth") <= width


def test_without_scripts_every_table_is_there_and_nothing_dead(opened: Browser, page: Path) -> None:
    opened.scripts(run=False)
    opened.resize(1440)
    try:
        opened.open(page, ready=False)
        assert len(column(opened, 3)) == len(rows_of(page))
        hidden = (
            '[...document.querySelectorAll(".pick, #tools")].every((one) => one.offsetHeight === 0)'
        )
        assert opened.run(hidden)
        assert opened.run('document.querySelectorAll("button").length') == 2  # in hidden tools
        shown = opened.run("document.body.innerText")
        assert "everything below is readable without" in shown
        assert "faster" in shown
    finally:
        opened.scripts(run=True)


def test_two_runs_stand_side_by_side(tab: Browser, folder: Path) -> None:
    tab.open(folder / "out" / "index.html")
    assert tab.errors == []
    lines = tab.run('[...document.querySelectorAll("#both tbody tr")].map((row) => row.innerText)')
    assert any("sound" in line and "they touch" in line for line in lines)
    assert any("✗ refuted" in line for line in lines)


def test_every_control_can_be_reached_and_used_with_the_keyboard(tab: Browser) -> None:
    controls = 'document.querySelectorAll("a[href], button, select, input, summary, .scroll")'
    assert tab.run(f"[...{controls}].every((one) => one.tabIndex >= 0)")
    tab.run('document.querySelector("th[data-k=variant] button").focus()')
    for kind in ("keyDown", "keyUp"):
        tab.send("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                 windowsVirtualKeyCode=13)  # fmt: skip
    tab.wait('document.querySelector("th[data-k=variant]").ariaSort === "ascending"', 5)
