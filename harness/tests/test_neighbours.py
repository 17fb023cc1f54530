"""A counterexample is minimal: every simpler neighbour holds, and a script shows it alone."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.case import ConvCase
from harness.effort import Profile
from harness.judge import as_verdict
from harness.mutant import Mutant
from harness.neighbours import descend
from harness.results import Recorder
from harness.search import search
from harness.table import load_table

ROOT = Path(__file__).parents[2]
TABLE = load_table()
PLAIN, AGREES = TABLE.variant("plain"), TABLE.law("G1")


def _needs(**least):
    """Return a failure that needs some fields to be at least so large."""

    def fails(case):
        return all(max(getattr(case, name), default=0) >= size for name, size in least.items())

    return fails


def test_steps_lead_to_the_smallest_failing_case():
    case = ConvCase.parse("n3 c4>6 i9x8 k3x2 s2x1 p1x0 d1x2 g2 float32 strided real seed7")
    found, neighbours = descend(case, PLAIN, _needs(kernel_size=2, stride=2))
    assert (found.n, found.c_in, found.c_out, found.groups, found.bias) == (1, 1, 1, 1, False)
    assert (max(found.kernel_size), max(found.stride)) == (2, 2)
    assert (found.padding, found.layout, found.fill) == ((0, 0), "contiguous", "ones")
    assert neighbours
    assert not any(n.fails for n in neighbours)


@pytest.mark.parametrize("name", ["diff", "tile_concat", "boundary", "masked"])
def test_every_neighbour_is_a_case_of_the_variant(name):
    variant = TABLE.variant(name)
    line = variant.cases[variant.quick[0]]
    _, neighbours = descend(ConvCase.parse(line), variant, lambda _: False)
    assert len(neighbours) > 5
    for neighbour in neighbours:
        variant.check_case(neighbour.case)


def _finding(fill_matters=False):
    def crop(right):
        def wrong(x, weight, *rest, **keywords):
            y = right(x, weight, *rest, **keywords)
            return y if max(keywords["padding"]) == 0 else y.roll(1, -1)

        return wrong

    variant, wrong = Mutant(name="wrong", variant="plain", spoil=crop).plant(PLAIN)
    return variant, wrong, search(AGREES, variant, wrong, Profile(cases=60), variants={})


def test_the_screen_says_which_neighbours_hold():
    *_, finding = _finding()
    said = "\n".join(finding.certificate)
    assert "p 1->0" in said.partition("do not matter")[0]
    assert "b 0->1" in said.partition("do not matter")[2]
    assert finding.screen.endswith("found now: it is not in the corpus")
    assert finding.case is not None


def test_the_script_shows_the_failure_by_itself(tmp_path):
    plugin = tmp_path / "wrong.py"
    plugin.write_text(
        "from harness.api import Implementation\n"
        "from impls._shared.convolution import convolve\n"
        "def wrong(x, weight, bias, **keywords):\n"
        "    return convolve(x, weight, bias, **keywords).abs()\n"
        "IMPLEMENTATIONS = {'plain': [Implementation(name='wrong', load=lambda: wrong)]}\n",
        encoding="utf-8",
    )
    table = load_table([str(plugin)])
    variant = table.variant("plain")
    wrong = table.implementation(variant, "wrong")
    finding = search(AGREES, variant, wrong, Profile(cases=60), variants=table.variants)
    assert len(finding.script.splitlines()) <= 12
    ended = subprocess.run(
        [sys.executable, "-c", finding.script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "harness.truth.Refuted: output differs" in ended.stderr, ended.stderr


def test_a_counterexample_is_kept_in_a_file_of_its_own(tmp_path):
    variant, wrong, finding = _finding()
    recorder = Recorder(tmp_path)
    recorder.add(as_verdict("20260131-120000-beef", AGREES, variant, wrong, finding))
    kept = json.loads((tmp_path / "counterexamples/plain-wrong-G1.json").read_text())
    assert ConvCase.parse(kept["case"]) == finding.case
    assert (kept["law"], kept["found"], kept["screen"]) == ("G1", "2026-01-31", finding.screen)


def test_a_case_outside_of_the_domain_is_no_neighbour():
    case = ConvCase.parse("n1 c1>1 i3 k3 p1 float64 contiguous ones")
    law = replace(AGREES, within=lambda c: c if c.padding == (1,) else None)
    variant, wrong, _ = _finding()
    finding = search(law, variant, wrong, Profile(cases=1, dtypes=("float64",)), first=[case])
    assert "p 1->0" not in "\n".join(finding.certificate).partition("not in the domain")[0]


def test_a_failure_that_needs_earlier_calls_says_so(tmp_path):
    plugin = tmp_path / "remembers.py"
    plugin.write_text(
        "from harness.api import Implementation\n"
        "from impls._shared.convolution import convolve\n"
        "kept = {}\n"
        "def remembers(x, weight, bias, **keywords):\n"
        "    first = kept.setdefault((x.shape, weight.shape), weight.detach().clone())\n"
        "    return convolve(x, first.to(x), bias, **keywords)\n"
        "IMPLEMENTATIONS = {'plain': [Implementation(name='remembers', load=lambda: remembers)]}\n",
        encoding="utf-8",
    )
    table = load_table([str(plugin)])
    variant = table.variant("plain")
    wrong = table.implementation(variant, "remembers")
    finding = search(AGREES, variant, wrong, Profile(cases=200), variants=table.variants)
    assert "depends on earlier calls" in finding.screen
    stateless = search(TABLE.law("G26"), variant, wrong, Profile(cases=60), variants=table.variants)
    assert "depends on earlier calls" not in stateless.screen
    assert stateless.case is not None
