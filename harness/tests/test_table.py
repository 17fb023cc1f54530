"""The table names what it holds, and leaves out what fails with its name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.catalogue import describe, markdown, text
from harness.readme import END, START, renew
from harness.table import UnknownName, load_table

ROOT = Path(__file__).parents[2]
TEN = {
    "plain", "input_masked", "window_masked", "kernel_masked", "partial", "masked", "multi_source",
    "tile_concat", "diff", "boundary",
}  # fmt: skip


def test_ten_variants_each_with_oracle_reference_and_optimized():
    variants = {v["name"]: v for v in describe(load_table())["variants"]}
    assert set(variants) == TEN
    for variant in variants.values():
        kinds = [i["kind"] for i in variant["implementations"] if i["available"]]
        assert {"oracle", "reference", "optimized"} <= set(kinds), variant["name"]
        json.dumps(variant)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda t: t.variant("patial"),
            r"no variant 'patial'; variants are .*; did you mean 'partial'\?",
        ),
        (
            lambda t: t.implementation(t.variant("partial"), "boxfilter"),
            r"no implementation of partial 'boxfilter'; its .* are oracle, .*; did you mean 'box_filter'\?",
        ),
        (
            lambda t: t.law("agrees_with_oracle"),
            r"no law .*; did you mean 'agrees_with_the_oracle'\?",
        ),
        (
            lambda t: t.case(t.variant("plain"), "unet_frist"),
            r"no case of plain 'unet_frist'; its cases are .*; did you mean 'unet_first'\?",
        ),
    ],
)
def test_unknown_names_come_with_what_exists_and_the_nearest(ask, message):
    with pytest.raises(UnknownName, match=message):
        ask(load_table())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package", "ModuleNotFoundError"),
        ("x = 1", "defines neither IMPLEMENTATIONS nor VARIANT"),
        ("IMPLEMENTATIONS = {'patial': []}", "did you mean 'partial'"),
        ("raise SystemError('at import')", "at import"),
        (
            """
from harness.api import Implementation
IMPLEMENTATIONS = {'partial': [Implementation(name='box_filter', load=print)]}
""",
            "partial/box_filter is in the table already",
        ),
    ],
)
def test_a_failing_plug_in_is_named_and_left_out(tmp_path, source, reason):
    path = tmp_path / "plugin.py"
    path.write_text(source, encoding="utf-8")
    table = load_table([str(path)])
    assert len(table.failures) == 1
    assert reason in table.failures[0]
    assert str(path) in table.failures[0]
    assert set(table.variants) == TEN


def test_a_plug_in_adds_an_implementation():
    path = ROOT / "examples" / "plugin_by_unfold.py"
    table = load_table([str(path)])
    assert table.failures == ()
    added = table.implementation(table.variant("partial"), "by_unfold")
    assert added.origin == f"plug-in {path}"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 30


def test_listings_name_everything():
    table = load_table()
    for name in TEN:
        assert f"`{name}`" in markdown(table)
        assert f"\n{name}: " in "\n" + text(table)


def test_the_readme_is_renewed_between_its_marks():
    assert renew(f"a\n{START}\nold\n{END}\nb", "new") == f"a\n{START}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="needs the marks"):
        renew("nothing", "new")


def test_importing_the_table_loads_nothing_heavy_and_starts_no_threads():
    code = (
        "import sys, threading; from harness.table import load_table; load_table();"
        "heavy = {'pandas', 'seaborn', 'matplotlib', 'triton', 'onnx', 'rich', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] 1"
