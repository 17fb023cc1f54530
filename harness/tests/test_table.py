"""The table names what it holds, and leaves out what fails with its name."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.catalogue import describe, markdown, text
from harness.readme import END, START, renew
from harness.selection import declines
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
            r"no law .*; laws are those of `python3 -m harness list`; did you mean 'agrees_with_the_oracle'\?",
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


def test_a_plugin_that_exits_is_left_out_in_one_line(tmp_path):
    for name, source in (("exits", "raise SystemExit(3)"), ("raises", "raise OSError('a\\nb')")):
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    table = load_table([str(tmp_path / "exits.py"), str(tmp_path / "raises.py")])
    assert [line.partition(" is left out: ")[2] for line in table.failures] == [
        "SystemExit: 3",
        "OSError: a b",
    ]


def test_an_implementation_that_cannot_be_loaded_declines_with_the_reason(tmp_path):
    (tmp_path / "bare.py").write_text(
        "from harness.api import Implementation\n"
        "def load():\n    raise OSError('no library')\n"
        "IMPLEMENTATIONS = {'plain': [Implementation(name='bare', load=load)]}\n",
        encoding="utf-8",
    )
    table = load_table([str(tmp_path / "bare.py")])
    variant = table.variant("plain")
    _, case = table.case(variant, "n1 c1>1 i3 k2")
    reason = declines(table.implementation(variant, "bare"), variant, case)
    assert reason == "cannot be loaded: OSError: no library"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--budget-s", "-1"], "must be a number of seconds above 0"),
        (["--processes", "x"], "'x' must be a whole number of at least 1"),
    ],
)
def test_numbers_that_cannot_be_are_named(words, text, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", *words])
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_a_case_moved_into_the_domain_of_a_law_is_told(capsys):
    assert main(["check", "partial/box_filter/P1 n1 c1>1 i5 k2 p1"]) == 0
    assert "moved into its domain, padding 0: n1 c1>1 i5 k2 s1 p0" in capsys.readouterr().out


def test_the_replay_line_holds_for_a_plugin_whose_name_has_a_blank(tmp_path, capsys):
    path = tmp_path / "my plug.py"
    path.write_text((ROOT / "examples" / "plugin_broken.py").read_text(encoding="utf-8"))
    assert main(["check", "partial/broken/I5 n1 c1>1 i3 k2 p1", "--plugin", str(path)]) == 1
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith("replay:")]
    words = shlex.split(line.partition("python3 -m harness ")[2])
    assert words[-1] == str(path)
    assert main(words) == 1
