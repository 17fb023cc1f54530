"""Evidence whose name is known is drawn; whatever else bears the name stays a table."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness.evidence import Evidence, Made
from reports.pictures import picture

MADE = Made(date="2026-01-31", commit="c0ffee", machine="a core", command="make coffee")
TABLES: dict[str, tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]] = {
    "border_error": (
        ("field", "kernel", "n", "zeros", "diff"),
        (("Chebyshev", "3x3", 1, 0.5, 1e-6), ("Chebyshev", "3x3", 10, 0.6, 1e-4)),
    ),
    "border_convergence": (
        ("method", "kernel", "dtype", "63 steps", "126 steps", "order"),
        (("diff", "3x3", "float64", 1e-5, 1e-6, 3.0), ("zeros", "3x3", "float64", 0.6, 0.6, 0.0)),
    ),
    "activations": (
        ("stage", "way", "over", "mean", "deviation", "skewness", "kurtosis", "share present"),
        tuple(
            (stage, way, "present", 0.0, 1.0, 0.0, "no spread" if stage == 2 else 3.0, 1.0)
            for stage in (1, 2) for way in ("plain", "masked")
        ),
    ),
    "border_atlas": (
        ("field", "kernel", "layers", "way", "ring 0", "ring 1", "ring 2", "order"),
        tuple(
            (field, "3x3", 1, way, error, 1e-8, "beyond", 1.0)
            for field in ("Chebyshev", "harmonics")
            for way, error in (("boundary: zeros", 0.5), ("plain", 0.5), ("diff", 1e-4), ("bad", 3.0))
        ),
    ),
    "activation_maps": (
        ("stage", "way", "line", "largest mean", "hundredths of it, from left to right"),
        ((0, "input", 0, 0.5, "100 -5"), (0, "input", 1, 0.5, ". 0"), (1, "plain", 0, 2.0, "-100"),
         (1, "masked", 0, 1e-9, ".")),
    ),
    "crossover": (
        ("implementation", "structure", "1 present", "0.5 present", "crossover"),
        (("kept", "blocks", 1.2, 0.6, "wins below 0.7"), ("kept", "rows", 1.1, 1.05, "wins nowhere")),
    ),
}  # fmt: skip


def table(name: str, columns: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> Evidence:
    return Evidence(name=name, title="<T>", about="A & B.", made=MADE, columns=columns, rows=rows)


@pytest.mark.parametrize("name", TABLES)
def test_known_evidence_is_drawn_with_its_words(name: str) -> None:
    drawn = picture(table(name, *TABLES[name]))
    assert drawn is not None
    assert "<title" in drawn
    assert "&lt;T&gt;" in drawn
    assert "A &amp; B." in drawn
    assert "mathdefault" not in drawn
    assert drawn == picture(table(name, *TABLES[name]))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_not_what_its_name_says_stays_a_table(name: str) -> None:
    assert picture(table(name, ("a", "b"), (("x", 1.0), ("y", 2.0)))) is None
    columns, rows = TABLES[name]
    assert picture(table(name, columns, tuple(("?",) * len(columns) for _ in rows))) is None
    foreign = ("field", "kernel", "layers", "ring 0")
    assert picture(table("border_atlas", foreign, (("harmonics", "3x3", 1, 0.5),))) is None


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_one_of_its_columns_does_not_end_the_page(name: str) -> None:
    columns, rows = TABLES[name]
    for gone in range(len(columns)):
        kept = [[*line[:gone], *line[gone + 1 :]] for line in (columns, *rows)]
        drawn = picture(table(name, tuple(kept[0]), tuple(map(tuple, kept[1:]))))
        assert drawn is None or "<title" in drawn


def test_other_evidence_stays_a_table() -> None:
    assert picture(table("claims", ("a",), (("x",),))) is None


def test_ways_of_equal_numbers_share_a_line_of_the_atlas_which_says_so() -> None:
    drawn = picture(table("border_atlas", *TABLES["border_atlas"]))
    assert drawn is not None
    assert "zeros + 1" in drawn
    assert "boundary: zeros stands for plain too." in drawn
    words = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert words.count("50") == 2  # per cent, once a field
    assert words.count(".01") == 2
    assert words.count("300") == 2


def test_maps_that_are_not_square_or_too_many_stay_tables() -> None:
    columns, rows = TABLES["activation_maps"]
    assert picture(table("activation_maps", columns, rows[1:])) is None
    many = tuple((stage, "plain", 0, 1.0, "5") for stage in range(200))
    assert picture(table("activation_maps", columns, many)) is None
