"""Results of strangers: script in every string, huge, damaged, foreign; nothing runs or breaks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.evidence import Evidence, Made
from harness.results import ResultsError, load_run
from reports.bounds import NAME, TEXT, bounded
from reports.index import write_index
from reports.page import write_page
from reports.tests.sample_run import BREAKOUT, HOSTILE, Structure, carried, make_run

KEPT = {"run_id", "status", "direction", "dtype", "device", "commit", "id", "started"}


def poisoned(value: Any, poison: str, *, inside: str = "") -> Any:
    """Return plain data with `poison` for every text that a stranger chooses."""
    if isinstance(value, str):
        return value if inside in KEPT else f"{poison}{value}"
    if isinstance(value, list):
        return [poisoned(item, poison, inside=inside) for item in value]
    if isinstance(value, dict):
        return {key: poisoned(item, poison, inside=key) for key, item in value.items()}
    return value


def poison_run(folder: Path, poison: str) -> Path:
    path = folder / "run.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(poisoned(data, poison)), encoding="utf-8")
    for name in ("measurements.jsonl", "verdicts.jsonl"):
        path = folder / name
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps(poisoned(row, poison)) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = Made(date=poison, commit=poison, machine=poison, command=poison)
    Evidence(
        name="poison", title=poison, about=poison, made=made, columns=(poison,), rows=((poison,),)
    ).save(folder / "evidence")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("hostile") / "run", variants=2, processes=2, blocks=3)


@pytest.fixture
def run(small: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for path in small.rglob("*.json*"):
        target = folder / path.relative_to(small)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("poison", [HOSTILE, BREAKOUT, "]]><!--", "=cmd|'/C calc'!A0"])
def test_script_in_every_string_stays_text(run: Path, tmp_path: Path, poison: str) -> None:
    page = write_page(poison_run(run, poison), tmp_path / "out" / "p.html").read_text("utf-8")
    index = write_index(tmp_path / "out").read_text("utf-8")
    for text, scripts in ((page, 3), (index, 2)):
        found = Structure(text)
        assert found.tags.count("script") == scripts
        assert "img" not in found.tags
        assert not [name for name, _ in found.attributes if name.startswith("on")]
        assert not any(link.lower().startswith(("javascript:", "data:")) for link in found.links)
    assert poison in Structure(page).text
    assert all(row[0].startswith(poison) for row in carried(page)["rows"])


def test_names_of_ten_megabytes_are_cut_and_stay_apart(run: Path, tmp_path: Path) -> None:
    huge = "A" * 10_000_000
    path = run / "measurements.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["implementation"] = {"by_taps": huge + "1", "compiled": huge + "2"}.get(
            row["implementation"], row["implementation"]
        )
    kept, seen = [], set()
    for row in rows:  # one row of each is enough to fill 20 MB
        key = row["implementation"]
        if len(key) < 99 or key not in seen:
            kept.append(json.dumps(row))
        seen.add(key)
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    target = write_page(run, tmp_path / "p.html")
    assert target.stat().st_size < 2_000_000
    names = {row[1] for row in carried(target.read_text("utf-8"))["rows"]}
    assert len([name for name in names if "10,000,001 characters" in name]) == 2


def test_long_texts_are_cut_where_they_are_told(run: Path) -> None:
    verdict = load_run(run).verdicts[0]
    long = dataclasses.replace(verdict, detail="d" * 10**6, law_name="n" * 10**6)
    short = bounded(long)
    assert len(short.detail) == TEXT
    assert len(short.law_name) == NAME
    assert "1,000,000 characters" in short.law_name
    assert bounded(verdict) is verdict


def damage(run: Path, name: str, change: Any) -> None:
    path = run / name
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def drop(column: str) -> Any:
    return lambda text: text.replace(f'"{column}"', f'"no_{column}"', 1)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("measurements.jsonl", drop("status"), "status is missing"),
        ("measurements.jsonl", drop("threads"), "threads is missing"),
        ("run.json", drop("machine"), "machine is missing"),
        ("verdicts.jsonl", drop("law"), "law is missing"),
        ("run.json", lambda text: text[: len(text) // 2], "is not JSON"),
        ("run.json", lambda _: "[" * 200_000, "is not JSON"),
        ("run.json", lambda _: '{"version": 1}', "is missing"),
        ("run.json", lambda _: "<html>", "is not JSON"),
        ("measurements.jsonl", lambda text: "[" * 200_000 + "\n" + text, "is not JSON"),
        ("measurements.jsonl", lambda text: text.replace('"threads": 1', '"threads": NaN', 1),
         "threads=nan must be int"),
        ("measurements.jsonl", lambda text: text.replace('"threads": 1', f'"threads": {2**70}', 1),
         "64-bit"),
        ("measurements.jsonl",
         lambda text: text.replace('"samples_ns": [', f'"samples_ns": [{10**300}, ', 1), "64-bit"),
        ("measurements.jsonl", lambda text: text.replace('"run_id": "run"', '"run_id": "x"', 1),
         "belongs to another run"),
    ],
)  # fmt: skip
def test_damage_gives_one_clear_error_and_no_page(
    run: Path, tmp_path: Path, name: str, change: Any, said: str
) -> None:
    damage(run, name, change)
    with pytest.raises(ResultsError, match=said) as error:
        write_page(run, tmp_path / "p.html")
    assert len(str(error.value)) < 1000
    assert not (tmp_path / "p.html").exists()


def test_a_number_that_is_none_is_no_number_of_the_page(run: Path, tmp_path: Path) -> None:
    change = lambda text: text.replace('"tightness": {}', '"tightness": {"float32": NaN}')
    damage(run, "verdicts.jsonl", change)
    page = Structure(write_page(run, tmp_path / "p.html").read_text("utf-8"))
    assert "Error against speed" in page.text


def test_samples_that_no_clock_gives_break_nothing(run: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (run / "measurements.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        if row["samples_ns"]:
            row["samples_ns"] = [(0, -5, 2**62, 1)[number % 4]] * len(row["samples_ns"])
            row["peak_bytes"] = (0, -1, 2**62, None)[number % 4]
    (run / "measurements.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    page = write_page(run, tmp_path / "p.html").read_text("utf-8")
    assert "Infinity" not in page
    assert "inf×" not in page


def test_a_truncated_last_line_is_told_and_left_out(run: Path, tmp_path: Path) -> None:
    damage(run, "measurements.jsonl", lambda text: text[:-40])
    page = Structure(write_page(run, tmp_path / "p.html").read_text("utf-8"))
    assert "measurements.jsonl: the last line was cut short" in page.text
