"""Where a curve of ratios falls through 1, and what is said where it does not."""

import math

import pytest

from harness import crossover
from harness.__main__ import main
from harness.comparison import compare
from harness.contest import Rules
from harness.crossover import DENSITIES, Curve
from harness.evidence import Made, read_evidence
from harness.proof import Proof
from harness.results import Measurement, Status

MADE = Made(date="2026-01-31", commit="c0ffee", machine="a core", command="crossover")


def _curve(ratio, scatter=1e-3):
    """Return a curve whose processes scatter around `ratio(density)`."""
    rows = []
    for density in DENSITIES:
        (row,) = compare(
            Measurement(
                run_id="contest", variant="crossover", implementation=name, case=str(density),
                case_name="x", direction="as named", dtype="float32", device="cpu", threads=1,
                process=process, block=(0, 1), calls_per_sample=1, status=Status.MEASURED,
                samples_ns=(round(time * (1 + scatter * process * (name != "dense"))),) * 2,
            )
            for process in range(4)
            for name, time in (("dense", 1e8), ("aware", 1e8 * ratio(density)))
        )  # fmt: skip
        rows.append(row)
    return Curve("aware", "blocks", tuple(rows))


def test_the_crossover_is_interpolated_with_an_interval_over_processes():
    found = crossover.crossing(_curve(lambda density: math.exp(density - 0.4)))
    assert 0.39 < found.low < found.density < found.high < 0.41
    assert found.high - found.low < 0.01


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (lambda density: math.exp(density - 0.6), "wins below 0.60"),
        (lambda _: 0.5, "wins at every density"),
        (lambda _: 1.5, "wins at no density"),
        (lambda density: 1.2 - 0.3 * (density > 0.3), "no crossover can be told"),
        # wins in the middle alone: it does not win below anything
        (lambda density: 1.2 - 0.5 * (0.2 < density < 0.6), "no crossover can be told"),
    ],
)
def test_a_curve_is_put_into_words(ratio, words):
    assert crossover.words_of(_curve(ratio)).startswith(words)


def test_an_interval_that_reaches_beyond_the_densities_encloses_nothing():
    curve = _curve(lambda density: math.exp(0.1 * (density - 0.5)), scatter=0.03)
    assert crossover.crossing(curve) is None
    assert crossover.words_of(curve) == "no crossover can be told"


def test_a_wrong_implementation_is_left_out_with_the_reason(monkeypatch, capsys):
    line = crossover.CASE.replace("i64x64", "i4x4").replace("c32>32", "c1>1")
    curve = _curve(lambda _: 0.5)
    proofs = lambda cells, _: {
        cell: Proof(reason="output differs" * (cell.implementation == "present_box"))
        for cell in cells
    }
    monkeypatch.setattr(crossover, "examine", proofs)
    found = [
        curve._replace(implementation="masked_signal"),
        curve._replace(implementation="present_box"),
    ]
    monkeypatch.setattr(crossover, "curves", lambda *_: (found, 0.01))
    assert main(["crossover", "--case", line]) == 1
    said = capsys.readouterr().out
    assert "present_box is wrong, and left out: n1 c1>1 i4x4" in said
    assert "present_box blocks" not in said
    assert "masked_signal blocks" in said


def test_a_kept_table_names_the_whole_command_that_repeats_it(monkeypatch, tmp_path):
    monkeypatch.setattr(crossover, "EVIDENCE", tmp_path)
    monkeypatch.setattr(crossover, "FAMILIES", ("border",))
    monkeypatch.setattr(crossover, "DENSITIES", (0.75, 0.25))
    line = crossover.CASE.replace("i64x64", "i4x4").replace("c32>32", "c1>1")
    words = ["crossover", "--case", line, "--processes", "2", "--blocks", "2", "--write"]
    assert main(words) == 0
    kept = read_evidence(tmp_path / "crossover.json")
    assert kept.made.command == (
        f"python3 -m harness crossover --variant input_masked --case '{line}' --direction forward "
        "--device cpu --processes 2 --blocks 2 --write"
    )
    assert {row[1] for row in kept.rows} == {"border"}
    assert "timed twice differs from itself by" in kept.about


def test_the_table_has_a_column_per_density():
    curve = _curve(lambda density: math.exp(density - 0.6))
    table = crossover.as_evidence("v", crossover.CASE, "forward", Rules(4, 2), [curve], 0.01, MADE)
    assert len(table.rows[0]) == 2 + len(DENSITIES) + 1
    assert table.rows[0][:2] == ("aware", "blocks")
    assert crossover.line_of(curve).startswith("aware blocks: 1: 1.49, 0.75: 1.16")


def test_a_contest_is_of_the_dense_convolution_and_every_implementation():
    line = crossover.CASE.replace("i64x64", "i8x8") + " mask=border:0.25"
    runs = crossover.contest(f"input_masked forward {line}", "cpu")
    assert next(iter(runs)) == crossover.DENSE
    assert "present_box" in runs
    for run in runs.values():
        run()
