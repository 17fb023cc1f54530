from dataclasses import replace

import pytest

from harness.api import Implementation, Kind, Need
from harness.case import CaseError
from harness.plan import Cell, Selection, cell_of, grouped, make_plan
from harness.results import Measurement, Status
from harness.table import Table, UnknownName, load_table

SMALL = "n1 c2>2 i6x6 k3x3 p1x1 float32 contiguous real seed0"


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table()


def _extended(table: Table, **fields) -> Table:
    plain = table.variants["plain"]
    implementation = Implementation(load=plain.reference.load, **fields)
    wider = replace(plain, implementations=(*plain.implementations, implementation))
    return Table(variants={"plain": wider, "partial": table.variants["partial"]}, laws={})


def test_the_quick_plan_has_every_variant_both_directions_and_a_placebo_per_cell_group(table):
    plan = make_plan(table, Selection())
    assert {cell.variant for cell in plan.cells} == set(table.variants)
    groups = {cell.group for cell in plan.cells}
    placebos = [cell for cell in plan.cells if cell.placebo]
    assert {cell.group for cell in placebos} == groups
    assert len(placebos) == len(groups)
    assert all(cell.implementation == plan.baselines[cell.variant] for cell in placebos)
    assert {cell.direction for cell in plan.cells} == {"forward", "backward"}


def test_compiled_forms_wait_for_full_or_for_their_name(table):
    quick = make_plan(table, Selection(variants=("plain",)))
    (skipped,) = [s for s in quick.skipped if s.cell.implementation == "compiled"]
    assert skipped.status is Status.NOT_SELECTED
    assert "--full" in skipped.reason
    named = make_plan(table, Selection(variants=("plain",), implementations=("compiled",)))
    full = make_plan(table, Selection(variants=("plain",), full=True))
    for plan in (named, full):
        assert not [s for s in plan.skipped if s.status is Status.NOT_SELECTED]
    assert {cell.case_name for cell in full.cells} == set(table.variants["plain"].cases)


def test_the_baseline_is_timed_beside_whatever_is_named(table):
    plan = make_plan(table, Selection(variants=("plain",), implementations=("onednn",)))
    assert {cell.implementation for cell in plan.cells} == {"library", "onednn"}
    other = make_plan(table, Selection(variants=("plain",), baselines=("plain=onednn",)))
    assert other.baselines == {"plain": "onednn"}
    assert {cell.implementation for cell in other.cells if cell.placebo} == {"onednn"}


def test_every_number_of_threads_is_a_cell_with_a_placebo_of_its_own(table):
    plan = make_plan(table, Selection(variants=("plain",), cases=(SMALL,), threads=(1, 4, 1)))
    groups = grouped(plan.cells)
    assert [key.threads for key in groups] == [1, 4] * 2
    assert all(sum(cell.placebo for cell in cells) == 1 for cells in groups.values())


def test_on_a_device_calls_find_the_cache_cold_or_hot_or_are_graphs(table):
    plan = make_plan(table, Selection(variants=("plain",), cases=(SMALL,), device="cuda"))
    modes = {key.mode for key in grouped(plan.cells)}
    assert modes == {"l2=cold", "l2=hot", "graph=1,l2=cold"}
    assert {key.mode for key in grouped(make_plan(table, Selection()).cells)} == {""}
    proved = {cell.proved_as for cell in plan.cells}
    assert not any(cell.placebo or cell.mode for cell in proved)


@pytest.mark.parametrize("mode", ["", "l2=cold", "l2=hot", "graph=1,l2=cold"])
def test_a_row_says_which_cell_it_is_about(mode):
    flags = ",".join(filter(None, ["autocast=False,cudnn.benchmark=False", mode]))
    row = Measurement(
        run_id="r", variant="plain", implementation="library", case=SMALL, case_name="",
        direction="forward", dtype="float32", device="cuda", threads=2, flags=flags,
        status=Status.CRASHED,
    )  # fmt: skip
    assert cell_of(row) == Cell("plain", "library", SMALL, "", "forward", False, 2, mode)


def test_declined_cells_keep_their_reason(table):
    declining = _extended(table, name="narrow", unsupported=lambda _: "has one channel only")
    plan = make_plan(declining, Selection(variants=("plain",), cases=(SMALL,)))
    reasons = {s.reason for s in plan.skipped if s.cell.implementation == "narrow"}
    assert reasons == {"has one channel only"}
    stiff = _extended(table, name="stiff", differentiable=False, kind=Kind.OPTIMIZED)
    plan = make_plan(stiff, Selection(variants=("plain",), cases=(SMALL,)))
    assert [
        (s.cell.direction, s.reason) for s in plan.skipped if s.cell.implementation == "stiff"
    ] == [("backward", "is not differentiable")]
    elsewhere = _extended(table, name="elsewhere", needs=frozenset({Need.CUDA}))
    plan = make_plan(elsewhere, Selection(variants=("plain",), cases=(SMALL,)))
    assert all("CUDA" in s.reason for s in plan.skipped if s.cell.implementation == "elsewhere")


def test_dtypes_replace_those_of_the_cases(table):
    plan = make_plan(table, Selection(variants=("plain",), dtypes=("float64", "float32")))
    assert {cell.case.split()[-4] for cell in plan.cells} == {"float64", "float32"}
    with pytest.raises(CaseError, match=r"dtype='float8' must be one of float64, float32"):
        make_plan(table, Selection(dtypes=("float8",)))


def test_a_case_that_only_some_variants_have_is_timed_there_and_noted(table):
    descriptor = SMALL + " mask=box"
    plan = make_plan(table, Selection(variants=("plain", "partial"), cases=(descriptor,)))
    assert {cell.variant for cell in plan.cells} == {"partial"}
    assert any(note.startswith("plain is left out") for note in plan.notes)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"variants": ("plian",)}, UnknownName, "no variant 'plian'.*did you mean 'plain'"),
        ({"cases": ("unet_frist",)}, UnknownName, "no case 'unet_frist'.*did you mean 'unet_first'"),
        ({"variants": ("plain",), "cases": ("nix",)}, UnknownName, "no case of plain 'nix'"),
        ({"cases": ("n1 c2>2 i1 k3",)}, CaseError, "larger than the padded input"),
        ({"implementations": ("libary",)}, UnknownName, "no implementation 'libary'.*'library'"),
        ({"variants": ("plain",), "implementations": ("x",)}, UnknownName, "of plain 'x'"),
        ({"variants": ("plain",), "baselines": ("slow",)}, UnknownName, "of plain 'slow'"),
    ],
)  # fmt: skip
def test_unknown_names_say_what_there_is(table, fields, error, text):
    with pytest.raises(error, match=text):
        make_plan(table, Selection(**fields))
