"""The page of a synthetic run that holds every status, a placebo, and names from strangers."""

from __future__ import annotations

import json
import random
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.evidence import Evidence, Made
from harness.machine import Machine
from harness.results import (
    ImplementationCard,
    LawCard,
    Measurement,
    Outcome,
    Recorder,
    ResultsError,
    Run,
    Status,
    VariantCard,
    Verdict,
    load_run,
)
from reports import frame
from reports.page import format_bytes, format_ratio, format_time, write_page

HOSTILE = "<script>alert(1)</script>"
BREAKOUT = "</script><img src=x onerror=alert(2)>$\\frac$ & \"'`{{ 7*7 }}"
DETAIL = """law       [Z] linear_in_signal: f(3x + y) = 3 f(x) + f(y)
case      n1 c1>1 i3x3 k3x3 s1x1 p1x1 d1x1 g1
left      [[ 2.  4.  2.]
           [ 4.  8. <5>]]
right     [[ 2.  4.  2.]
           [ 4.  8.  4.]]
differs   at [0, 0, 1, 2]: 5.0 is not 4.0"""
SHAPES = {
    "stem": "n2 c3>16 i64x64 k7x7 s2x2 p3x3 d1x1 g1",
    "body": "n2 c32>32 i28x28 k3x3 s1x1 p1x1 d1x1 g1",
    "depthwise": "n2 c32>32 i28x28 k3x3 s1x1 p1x1 d1x1 g32",
    "pointwise": "n2 c64>64 i14x14 k1x1 s1x1 p0x0 d1x1 g1",
    "dilated": "n1 c16>16 i32x32 k3x3 s1x1 p2x2 d2x2 g1",
    "volume": "n1 c8>8 i12x12x12 k3x3x3 s1x1x1 p1x1x1 d1x1x1 g1",
}
LAWS = tuple(
    LawCard(id=f"G{i}", name=name, statement=statement, requires=("linear",))
    for i, (name, statement) in enumerate(
        {
            "agrees_with_the_oracle": "f(x) = oracle(x), gradients equal",
            "linear_in_signal": "f(3x + y) = 3 f(x) + f(y)",
            "batch_is_independent": "f(cat) = cat f",
            "masked_values_are_invisible": "f(x, m) = f(x', m) where x = x' on m & elsewhere <any>",
            "inputs_stay_unmodified": "x, m, w, b are the same bytes after a call",
        }.items(),
        start=1,
    )
)
FAILURES = {
    (0, "volume", "by_taps"): (Status.UNSUPPORTED, "spatial_dims=3 needs the Triton kernel"),
    (0, "dilated", "compiled"): (Status.CRASHED, f"RuntimeError: {HOSTILE}"),
    (1, "pointwise", "by_taps"): (Status.REFUTED, "G2 linear_in_signal is refuted on this case"),
    (1, "volume", "compiled"): (Status.TIMED_OUT, "no block finished within 60 s"),
    (1, "dilated", "by_taps"): (Status.NOT_SELECTED, "the budget of 300 s was spent"),
}


def make_run(folder: Path, *, variants: int = 3, processes: int = 5, blocks: int = 12) -> Path:
    """Write a run with `eager` as baseline and placebo, faster `by_taps` and slower `compiled`."""
    draw = random.Random(7)
    names = ["partial", "masked", HOSTILE, *(f"variant_{i}" for i in range(variants - 3))]
    recorder = Recorder(folder)
    recorder.write_run(_run(folder.name, (*names, "diff"), processes, blocks))
    contenders = {"eager": 1.0, "by_taps": 0.62, "compiled": 1.31, BREAKOUT: 0.995}
    for v, variant in enumerate(names):
        for c, (case_name, case) in enumerate(SHAPES.items()):
            for direction, size in (("forward", 1.0), ("backward", 2.6)):
                for process in range(processes):
                    pace = [size * (1 + c) * draw.lognormvariate(0, 0.05) for _ in range(blocks)]
                    placebo = [("eager", 1.0, True)] if c == 0 else []
                    for name, speed, is_placebo in [
                        *((name, speed, False) for name, speed in contenders.items()),
                        *placebo,
                    ]:
                        row: dict[str, Any] = {
                            "run_id": folder.name, "variant": variant, "implementation": name,
                            "case": f"{case} float32 contiguous exact seed0", "case_name": case_name,
                            "direction": direction, "dtype": "float32", "device": "cpu",
                            "threads": 1, "placebo": is_placebo, "process": process,
                        }  # fmt: skip
                        failure = FAILURES.get((v, case_name, name))
                        if failure:
                            recorder.add(Measurement(**row, status=failure[0], reason=failure[1]))
                            continue
                        slope = 1.0 if name == "eager" else 1 + 0.06 * c + 0.03 * v
                        own = speed * slope * draw.lognormvariate(0, 0.006)
                        samples = [
                            round(2e6 * own * p * draw.lognormvariate(0, 0.01)) for p in pace
                        ]
                        recorder.add(
                            Measurement(
                                **row,
                                block=tuple(range(blocks)),
                                samples_ns=tuple(samples),
                                calls_per_sample=8,
                                peak_bytes=round(3e6 * (1 + c) * (0.63 if speed < 0.9 else 1)),
                                saved_bytes=round(1e6 * (1 + c))
                                if direction == "backward"
                                else None,
                                status=Status.MEASURED,
                                proof="agrees with the oracle, 3 inputs",
                            )
                        )
    for verdict in _verdicts(folder.name, names, contenders):
        recorder.add(verdict)
    return folder


def _run(run_id: str, names: tuple[str, ...], processes: int, blocks: int) -> Run:
    def card(name: str, kind: str, reason: str | None = None) -> ImplementationCard:
        needs = ("triton", "cuda") if reason else ()
        return ImplementationCard(
            name=name, kind=kind, needs=needs, available=not reason, reason=reason, origin="impls"
        )

    implementations = (
        card("oracle", "oracle"),
        card("eager", "reference"),
        card("by_taps", "optimized"),
        card("compiled", "optimized"),
        card(BREAKOUT, "optimized"),
        card("triton", "optimized", "no CUDA device"),
    )
    return Run(
        id=run_id,
        started="2026-11-21T09:30:00+00:00",
        commit="3f2c9a41d07be5512c0f6e83b1a4d9970e2f5c18",
        dirty="91ac0be2d4f7",
        machine=Machine(
            system="Linux 6.8.0 x86_64",
            processor="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            cores=2,
            memory_bytes=8 * 2**30,
            gpu="",
            gpu_memory_bytes=0,
            driver="",
            flags={"cudnn.allow_tf32": "True", "mkldnn": "True"},
        ),
        versions={"python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6"},
        argv=("python3", "-m", "harness", "bench", "--plugin", "my plug-in.py"),
        seed=0,
        device="cpu",
        threads=1,
        processes=processes,
        blocks=blocks,
        catalogue=tuple(
            VariantCard(
                name=name,
                equation="y = conv(x*m, w) * win / coverage + b   where coverage > 0\nm' = coverage > 0",
                source="Liu et al. 2018, eq. (1)",
                traits=("linear_in_signal", "takes_mask", "batch_independent"),
                baseline="eager",
                implementations=implementations,
            )
            for name in names
        ),
        laws=LAWS,
        notes=("No CUDA device: CPU only.", f"plug-in {BREAKOUT} left out: ImportError"),
        settings={"order": "random"},
    )


def _verdicts(run_id: str, names: list[str], contenders: dict[str, float]) -> list[Verdict]:
    rows = []
    for v, variant in enumerate(names):
        for i, law in enumerate(LAWS):
            for name in contenders:
                status, case, detail, replay = Outcome.HOLDS, "", "", ""
                if (v, i, name) == (1, 1, "by_taps"):
                    status, detail = Outcome.REFUTED, DETAIL
                    case = "n1 c1>1 i3x3 k3x3 s1x1 p1x1 d1x1 g1 float32 contiguous exact seed0"
                    replay = f"python3 -m harness check 'masked/by_taps/G2 {case}'"
                elif (v, i, name) == (0, 3, "compiled"):
                    status, detail = Outcome.UNSUPPORTED, "compiled declines NaN inputs"
                elif (v, i, name) == (2, 3, BREAKOUT):
                    status, detail = Outcome.CRASHED, f"{HOSTILE}\n{BREAKOUT}"
                elif (v, i, name) == (0, 2, "by_taps"):
                    status, detail = Outcome.MISTRUSTED, "71 % of the expected values are zero"
                rows.append(
                    Verdict(
                        run_id=run_id,
                        law=law.id,
                        law_name=law.name,
                        variant=variant,
                        implementation=name,
                        status=status,
                        cases=40 + i,
                        case=case,
                        detail=detail,
                        replay=replay,
                    )
                )
    return rows


class Structure(HTMLParser):
    """What a browser would build: tags, ids, links, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag holds."""
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        """Keep the text of scripts apart from that of the page."""
        (self.scripts if self.tags[-1:] == ["script"] else self.words).append(data)


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
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    loaded: dict[str, Any] = json.loads(match[1])
    return loaded


def test_the_same_results_give_the_same_bytes(folder: Path, page: str, tmp_path: Path) -> None:
    assert write_page(folder, tmp_path / "a.html").read_text(encoding="utf-8") == page


def test_names_of_strangers_stay_text(page: str, structure: Structure) -> None:
    assert structure.tags.count("script") == 2
    assert "img" not in structure.tags
    assert not [name for name, _ in structure.attributes if name.startswith("on")]
    assert not any("alert(1)</script>" in script for script in structure.scripts)
    text = "".join(structure.words)
    assert HOSTILE in text
    assert BREAKOUT in text


def test_the_page_needs_no_network(page: str, structure: Structure) -> None:
    assert all(link.startswith("#") for link in structure.links)
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_ids_are_unique_and_every_link_leads_somewhere(page: str, structure: Structure) -> None:
    assert len(structure.ids) == len(set(structure.ids))
    targets = {link[1:] for link in structure.links} | set(re.findall(r"url\(#([^)]+)\)", page))
    targets |= {
        one
        for name, value in structure.attributes
        if name == "aria-labelledby"
        for one in (value or "").split()
    }
    assert targets <= set(structure.ids)


def test_figures_have_a_text_alternative_and_the_colours_of_the_page(page: str) -> None:
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawn) == 7  # pace, means, two maps, one forest per variant with numbers
    for one in drawn:
        assert 'role="img"' in one
        assert re.search(r"<title id=.*?>.+?</title><desc id=.*?>.+?</desc>", one)
        assert "currentColor" in one
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
        assert text.count(reason) >= 4  # twice per direction: in its variant and in the whole table


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
        r"by_taps is 1\.\d{3}× faster than eager \[1\.\d{3}, 1\.\d{3}\]; faster in 5 of 6 cells, "
    )
    assert re.search(line + r"no ratio in 1; memory −37 %", text)
    assert "nothing of this variant was timed in this run; triton is not available" in text
    # A law refutes the fastest of this variant, so it is no headline, and the strip says so.
    assert "by_taps is left out: refuted by G2" in text
    assert "No CUDA device: CPU only." in text
    assert "false alarm" in text


def test_counterexamples_show_screen_and_replay_line(structure: Structure) -> None:
    text = "".join(structure.words)
    assert DETAIL in text
    assert "python3 -m harness check 'masked/by_taps/G2 n1 c1>1 i3x3" in text
    assert "71 % of the expected values are zero" in text


def test_lines_replay_with_the_plugins_of_the_run(data: dict[str, Any]) -> None:
    place = {name: i for i, name in enumerate(data["columns"])}
    row = data["rows"][0]
    case = "n2 c3>16 i64x64 k7x7 s2x2 p3x3 d1x1 g1 float32 contiguous exact seed0"
    plugin = " --plugin 'my plug-in.py'"
    assert row[place["replay"]] == f"python3 -m harness check 'partial/eager {case}'{plugin}"
    assert row[place["timing"]] == (
        "python3 -m harness bench --variant partial --implementation eager"
        f" --case '{case}' --direction forward --device cpu --threads 1{plugin}"
    )


def test_a_profile_becomes_operator_tables(tmp_path: Path) -> None:
    Recorder(tmp_path).write_run(_run("profiled", ("partial",), 1, 1))
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
    for broken, said in {
        "[": "cannot be read",
        "[{}]": "not a list of operator tables: 'variant'",
        json.dumps([entry | {"operators": [{"name": 1}]}]): "name=1 is no str",
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
    assert "This run carries no evidence" not in page


def test_a_run_that_measured_nothing_still_gives_a_page(tmp_path: Path) -> None:
    Recorder(tmp_path).write_run(_run("empty", ("partial",), 1, 1))
    text = "".join(Structure(write_page(tmp_path, tmp_path / "p.html").read_text("utf-8")).words)
    assert "nothing of this variant was timed" in text
    assert "No law was checked in this run" in text


def test_one_process_and_one_implementation_give_a_page(tmp_path: Path) -> None:
    Recorder(tmp_path).write_run(_run("small", ("partial",), 1, 1))
    row = Measurement(
        run_id="small", variant="other", implementation="eager", case="as another version wrote it",
        case_name="", direction="forward", dtype="float32", device="cpu", threads=1, block=(0,),
        samples_ns=(12_345,), status=Status.MEASURED,
    )  # fmt: skip
    Recorder(tmp_path).add(row)
    with (tmp_path / "measurements.jsonl").open("a") as file:
        file.write('{"run_id": "sma')
    text = "".join(Structure(write_page(tmp_path, tmp_path / "p.html").read_text("utf-8")).words)
    assert "12.3 µs" in text
    assert "as another version wrote it" in text
    assert "the last line was cut short" in text
    assert "no ratio; its cells: 1 × measured" in text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"run\.json: cannot be read"):
        write_page(tmp_path, tmp_path / "p.html")


def test_cells_of_one_name_are_told_apart() -> None:
    common: dict[str, Any] = {"run_id": "r", "variant": "v", "implementation": "i", "device": "cpu"}
    common |= {"direction": "forward", "case_name": "stem"}
    rows = [
        Measurement(
            **common, case=f"{dtype} case", dtype=dtype, threads=threads, status=Status.CRASHED
        )
        for dtype in ("float32", "float16")
        for threads in (1, 2)
    ]
    labels = set(frame.case_labels(rows).values())
    assert "stem · float16 · 2 threads" in labels
    assert len(labels) == 4
    assert set(frame.case_labels(rows[:1]).values()) == {"stem"}


def test_names_that_no_font_holds_give_a_page(tmp_path: Path) -> None:
    Recorder(tmp_path).write_run(_run("glyphs", ("partial",), 2, 2))
    for process in range(2):
        for name in ("eager", "\x1b[31m\ud800 卷积 🚀"):
            Recorder(tmp_path).add(
                Measurement(
                    run_id="glyphs",
                    variant="partial",
                    implementation=name,
                    case="?\x00",
                    case_name="\x07",
                    direction="forward",
                    dtype="float32",
                    device="cpu",
                    threads=1 + process,
                    block=(0, 1),
                    samples_ns=(100, 120 + process),
                    status=Status.MEASURED,
                )
            )
    text = "".join(Structure(write_page(tmp_path, tmp_path / "p.html").read_text("utf-8")).words)
    assert "卷积 🚀" in text
    assert "cpu, 2 threads" in text
    assert "an interval takes two processes" in text


def test_three_hundred_cells_are_small_and_quick(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    folder = make_run(tmp_path / "run", variants=6, processes=5, blocks=4)
    assert len(frame.cells_frame(load_run(folder), ())) >= 300
    start = time.process_time()
    target = write_page(folder, tmp_path / "p.html")
    assert time.process_time() - start < 10
    assert target.stat().st_size < 2_500_000


def test_numbers_carry_units_and_three_digits() -> None:
    assert [format_time(ns) for ns in (None, 999, 1_234, 56_789_000, 1.5e9)] == [
        "", "999 ns", "1.23 µs", "56.8 ms", "1.50 s",
    ]  # fmt: skip
    assert [format_bytes(n) for n in (None, 0, 1536, 5 * 2**20)] == [
        "",
        "0 B",
        "1.50 KiB",
        "5.00 MiB",
    ]
    assert [format_ratio(r) for r in (None, 0.0123, 0.705, 2.5, 31.25)] == [
        "", "0.012", "0.705", "2.50", "31.2",
    ]  # fmt: skip
