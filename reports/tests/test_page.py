"""The page of a synthetic run."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.evidence import Evidence, Made
from harness.results import Recorder, Status, load_run
from reports import ledger
from reports.page import render, write_page
from reports.tests.sample_run import (
    BREAKOUT,
    DETAIL,
    FAILURES,
    HOSTILE,
    THROTTLED,
    Structure,
    carried,
    describe_run,
    make_run,
)
from reports.words import Place, format_time, place_labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("results") / "run-1", blocks=6)


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return write_page(folder, folder.parent / "out" / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def structure(page: str) -> Structure:
    return Structure(page)


@pytest.fixture(scope="module")
def data(page: str) -> dict[str, Any]:
    return carried(page)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([("cpu", 1, "pinned")], [""]),
        ([("cpu", 1, "pinned"), ("cpu", 2, "")], ["cpu, 1 thread", "cpu, 2 threads"]),
        (
            [("cuda", 1, "tf32=1,l2=cold"), ("cuda", 1, "tf32=1,l2=hot")],
            ["cuda, 1 thread, l2=cold", "cuda, 1 thread, l2=hot"],
        ),
        (
            [("cpu", 1, "pinned"), ("cpu", 1, ""), ("cuda", 1, "tf32=1")],
            ["cpu, 1 thread, pinned", "cpu, 1 thread", "cuda, 1 thread"],
        ),
    ],
)
def test_places_are_named_by_what_differs(places: list[Place], words: list[str]) -> None:
    assert list(place_labels(places).values()) == words


def test_the_same_results_give_the_same_bytes(folder: Path, page: str, tmp_path: Path) -> None:
    assert write_page(folder, tmp_path / "a.html").read_text(encoding="utf-8") == page


def test_names_of_strangers_stay_text(page: str, structure: Structure) -> None:
    assert structure.tags.count("script") == 3  # two of data, one of ours
    assert "img" not in structure.tags
    assert not [name for name, _ in structure.attributes if name.startswith("on")]
    assert not any("alert(1)</script>" in script for script in structure.scripts)
    text = "".join(structure.words)
    assert HOSTILE in text
    assert BREAKOUT in text


def test_the_page_needs_no_network(page: str, structure: Structure) -> None:
    assert {link for link in structure.links if not link.startswith("#")} == {"index.html"}
    assert "default-src 'none'" in page  # nothing may be loaded, from anywhere
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_ids_are_unique_and_every_link_leads_somewhere(page: str, structure: Structure) -> None:
    assert len(structure.ids) == len(set(structure.ids))
    targets = {link[1:] for link in structure.links if link.startswith("#")} | set(
        re.findall(r"url\(#([^)]+)\)", page)
    )
    targets |= {
        one
        for name, value in structure.attributes
        if name == "aria-labelledby"
        for one in (value or "").split()
    }
    assert targets <= set(structure.ids)


def test_figures_have_a_text_alternative_and_the_colours_of_the_page(page: str) -> None:
    drawn = re.findall(r"<svg viewBox.*?</svg>", page, re.DOTALL)
    assert len(drawn) == 10  # means, maps, pace, rates, relations, one forest per variant
    for one in drawn:
        assert 'role="img"' in one
        assert re.search(r"<title id=.*?>.+?</title><desc id=.*?>.+?</desc>", one)
        assert "currentColor" in one
        assert "mathdefault" not in one
        assert "var(--" in one
        assert "#ffffff" not in re.sub(r"<text.*?</text>", "", one).split("<g", 3)[2]


def test_every_status_is_a_row_with_its_reason(data: dict[str, Any], structure: Structure) -> None:
    place = {name: i for i, name in enumerate(data["columns"])}
    rows = data["rows"]
    assert {row[place["status"]] for row in rows} == set(Status)
    text = "".join(structure.words)
    for status, reason in FAILURES.values():
        found = [row for row in rows if row[place["status"]] == status]
        assert {row[place["reason"]] for row in found} == {reason}
        assert {row[place["ratio"]] for row in found} == {None}
        assert text.count(reason) >= 2  # once per direction
    found = [row for row in rows if row[place["status"]] == Status.THROTTLED]
    assert {row[place["verdict"]] for row in found} == {"UNRESOLVED"}
    assert text.count(THROTTLED[1]) >= 2


def test_numbers_of_the_page_are_those_of_the_rows(data: dict[str, Any]) -> None:
    place = {name: i for i, name in enumerate(data["columns"])}
    row = next(
        row
        for row in data["rows"]
        if [row[place[n]] for n in ("variant", "implementation", "case_name", "direction")]
        == ["partial", "by_taps", "stem", "forward"]
    )
    assert row[place["ratio_low"]] < 0.62 < row[place["ratio_high"]]
    assert row[place["verdict"]] == "FASTER"
    assert row[place["macs"]] == 2 * 3 * 16 * 49 * 32 * 32
    assert row[place["samples"]] == 5 * 6
    assert row[place["ratio_memory"]] == pytest.approx(0.63)


def test_the_verdict_strip_says_how_much_and_for_how_many(structure: Structure) -> None:
    text = re.sub(r"\s+", " ", "".join(structure.words))
    line = (
        r"by_taps is 1\.\d{3}× faster than eager \[1\.\d{3}, 1\.\d{3}\]; faster in 6 of 6 cases; "
    )
    assert re.search(line + r"memory −37 %", text)
    assert "nothing of this variant was timed in this run; triton is not available" in text
    assert "No CUDA device: CPU only." in text
    assert "false alarm" in text


def test_who_is_in_doubt_makes_no_headline(structure: Structure) -> None:
    text = re.sub(r"\s+", " ", structure.text)
    # a law refutes the fastest of one variant, judges that of another on nothing, crashes in a third
    assert "by_taps is left out: refuted by G2" in text
    assert "by_taps is left out: mistrusted by G3" in text
    assert f"{BREAKOUT} is left out: crashed by G4" in text
    # and a cell that crashed says enough
    assert "compiled is left out: crashed by case dilated" in text
    assert "✗ by_taps (refuted)" in text
    assert "✗ by_taps (mistrusted)" in text


def test_nobody_is_a_headline_against_a_baseline_in_doubt(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", variants=1, processes=2, blocks=4)
    row = load_run(folder).verdicts[0]
    assert (row.variant, row.implementation) == ("partial", "eager")
    path = folder / "verdicts.jsonl"
    text = path.read_text(encoding="utf-8").replace("HOLDS", "REFUTED", 1)
    path.write_text(text, encoding="utf-8")
    page = Structure(write_page(folder, tmp_path / "p.html").read_text(encoding="utf-8"))
    text = re.sub(r"\s+", " ", page.text)
    assert "eager, the baseline: no ratio to it is a claim; refuted by G1" in text
    assert "by_taps is 1." not in text


def test_rows_against_a_baseline_in_doubt_are_grey_and_say_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", variants=1, processes=2, blocks=4)
    path = folder / "verdicts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("HOLDS", "REFUTED", 1), "utf-8")
    page = write_page(folder, tmp_path / "p.html").read_text(encoding="utf-8")
    lines = re.findall(r'<tr id="row-.*?</details>', page, re.DOTALL)
    assert len(lines) == 6 * 2 * 4 + 2  # every case, direction and implementation, and the placebo
    for line in lines:
        assert 'class="doubtful"' in line
        assert 'class="faster"' not in line
        assert 'class="slower"' not in line
    assert sum("✗ no claim: baseline refuted" in line for line in lines) >= 12
    drawn = re.findall(r"<svg viewBox.*?</svg>", page, re.DOTALL)
    names = [one for one in drawn if "(baseline refuted)" in one]
    assert len(names) == 4  # the means, a map per direction, the forest of the variant
    assert all("by_taps (mistrusted)" in one for one in names)  # its own doubt comes first
    assert "no claim, baseline refuted" in drawn[0]
    none = "Of 38 rows: 0 faster, 0 slower, 0 same, 0 unresolved, 38 without a claim."
    assert any(none in one for one in names)


def test_counterexamples_show_screen_and_replay_line(structure: Structure) -> None:
    text = "".join(structure.words)
    assert DETAIL in text
    assert "python3 -m harness check 'masked/by_taps/G2 n1 c1>1 i3x3" in text
    assert "71 % of the expected values are zero" in text


def test_variants_show_their_domain_and_what_implementations_decline(structure: Structure) -> None:
    text = re.sub(r"\s+", " ", structure.text)
    assert "Domain: 1, 2, 3 spatial axes; odd kernels. It claims, and laws check:" in text
    assert f"2 kinds of casethree spatial axes are declined; not {HOSTILE}" in text
    assert "none recorded" in text


def test_lines_replay_with_the_plugins_of_the_run(data: dict[str, Any]) -> None:
    place = {name: i for i, name in enumerate(data["columns"])}
    row = data["rows"][0]
    case = "n2 c3>16 i64x64 k7x7 s2x2 p3x3 d1x1 g1 float32 contiguous exact seed0"
    plugin = " --plugin 'my plug-in.py'"
    assert row[place["replay"]] == f"python3 -m harness check 'partial/eager {case}'{plugin}"
    assert row[place["timing"]] == (
        "python3 -m harness bench --variant partial --implementation eager"
        f" --case '{case}' --direction forward --device cpu --threads 1 --budget-s 90{plugin}"
    )


def test_a_profile_becomes_operator_tables(tmp_path: Path) -> None:
    Recorder(tmp_path).write_run(describe_run("profiled", ("partial",), 1, 1))
    assert "harness profile --into profiled" in write_page(tmp_path, tmp_path / "p.html").read_text(
        encoding="utf-8"
    )
    operators = [
        {"name": f"aten::{HOSTILE}", "calls": 3, "self_ns": 750_000, "device_ns": 0},
        {"name": "aten::mul", "calls": 1, "self_ns": 250_000, "device_ns": 0},
    ]
    entry = {"variant": "partial", "implementation": "eager", "case_name": "stem"}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps([entry | {"operators": operators}]), encoding="utf-8")
    text = "".join(Structure(write_page(tmp_path, tmp_path / "p.html").read_text("utf-8")).words)
    assert f"aten::{HOSTILE}" in text
    assert "75 %" in text
    assert "not measurable here" in text  # its trace was not read
    assert "the trace holds no kernel of a device" in text
    assert "the trace holds no allocation" in text
    parts = {"span_ns": 3e6, "kernel_ns": 2e6, "gap_ns": 1e6}
    kernel = {
        "name": HOSTILE, "calls": 5, "ns": 1.5e6, "grid": "64x1x1", "block": "128x1x1",
        "registers": 168, "shared_bytes": 2048, "occupancy": 37, "tensor_cores": True,
    }  # fmt: skip
    panes = {"kernels": [kernel], "memory": [[0.0, 1024], [2e6, 4096], [3e6, 0]]}
    kept = entry | {"operators": operators, "timeline": parts, "trace": HOSTILE, **panes}
    path.write_text(json.dumps([kept]), encoding="utf-8")
    structure = Structure(write_page(tmp_path, tmp_path / "p.html").read_text("utf-8"))
    assert HOSTILE in "".join(structure.words)
    assert format_time(3e6) in structure.text
    assert "https://ui.perfetto.dev" in structure.links
    said = re.sub(r"\s+", " ", structure.text)
    assert f"{HOSTILE}51.50 ms64x1x1128x1x11682.00 KiB37 %yes" in said
    assert "at most 4.00 KiB more than before it, over 3.00 ms" in said
    for broken, said in {
        "[": "cannot be read",
        "[{}]": "not a list of operator tables: 'variant'",
        json.dumps([entry | {"operators": [{"name": 1}]}]): "name=1 is no str",
        json.dumps([kept | {"timeline": {"gap_ns": -1}}]): "gap_ns=-1 is no count",
        json.dumps([kept | {"timeline": []}]): "timeline=[] is no dict",
        json.dumps([kept | {"kernels": [kernel | {"ns": "1"}]}]): "ns=1 is no int",
        json.dumps([kept | {"kernels": 5}]): "not a list of operator tables",
        json.dumps([kept | {"memory": [[1, 2, 3]]}]): "not a list of operator tables",
        json.dumps([kept | {"memory": [[1, -(2**70)]]}]): "is no count",
    }.items():
        path.write_text(broken, encoding="utf-8")
        assert said in "".join(
            Structure(write_page(tmp_path, tmp_path / "p.html").read_text("utf-8")).words
        )


def test_evidence_becomes_tables_with_their_origin(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", variants=1, processes=2, blocks=4)
    made = Made(date="2026-01-31", commit="c0ffee" * 7, machine="a core", command="make coffee")
    Evidence(
        name="mutants", title="Mutants", about=f"Cases until {HOSTILE}.", made=made,
        columns=("mutant", "cases"), rows=((BREAKOUT, 12345), (HOSTILE, 1)),
    ).save(folder / "evidence")  # fmt: skip
    page = write_page(folder, tmp_path / "page.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert BREAKOUT not in page
    for part in ("Mutants", "12,345", "make coffee", "c0ffeec0ffee", "2026-01-31"):
        assert part in page
    assert "This run carries no studies" not in page


def test_ceilings_that_were_measured_become_a_roof() -> None:
    rates = {"copy_bytes_per_s": 2e10, "float32_flop_per_s": 1e11}
    assert ledger.roofs(rates, "float32") == (100.0, 20.0)
    assert ledger.roofs(rates, "float16") is None
    assert ledger.roofs({**rates, "float32_flop_per_s": float("nan")}, "float32") is None


def test_a_run_with_ceilings_says_what_they_are(folder: Path, page: str, tmp_path: Path) -> None:
    assert "Not measurable here: the ceilings" in page
    loaded = load_run(folder)
    rates = {"copy_bytes_per_s": 2e10, "float32_flop_per_s": 1e11}
    text = render(dataclasses.replace(loaded, run=dataclasses.replace(loaded.run, ceilings=rates)))
    assert "20 GB/s in a copy (the slope), 100 GFLOP/s in a matrix product" in text
    assert "Not measurable here: the ceilings" not in text
