"""Useful work is what a definition needs, issued work what was called for."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from harness.bound_call import Call
from harness.case import ConvCase
from harness.table import load_table
from harness.tensors import leaves, make_tensors
from harness.work import useful_flop, work_of

TABLE = load_table()
LINE = "n2 c2>6 i7x6 k3x2 s2x1 p1x0 d1x2 g2 b1 float32 contiguous real seed0"


def _case(variant: str, line: str = LINE, mask: str = "") -> ConvCase:
    return ConvCase.parse(f"{line} mask={mask}" if mask else line)


def _useful(variant: str, case: ConvCase) -> int:
    found = TABLE.variant(variant)
    return useful_flop(found, case, make_tensors(found, case))


def test_without_a_mask_every_multiply_add_is_needed():
    case = _case("plain")
    assert _useful("plain", case) == 2 * case.macs


@pytest.mark.parametrize(("mask", "share"), [("ones", 1), ("zeros", 0)])
def test_a_mask_of_ones_needs_all_and_a_mask_of_zeros_nothing(mask, share):
    case = _case("partial", mask=mask)
    assert _useful("partial", case) == share * 2 * case.macs


@pytest.mark.parametrize("mask", ["bernoulli:0.5", "box", "stripes"])
def test_a_position_counts_as_often_as_windows_cover_it(mask):
    case = _case("partial", mask=mask)
    variant = TABLE.variant("partial")
    kept = (make_tensors(variant, case)["mask"] != 0).double().expand(case.x_shape)
    ones = torch.ones(case.weight_shape, dtype=torch.float64)
    geometry = {n: getattr(case, n) for n in ("stride", "padding", "dilation", "groups")}
    counted = float(F.conv2d(kept, ones, **geometry).sum())
    # multiply-adds on padding are counted for a mask of ones as for none
    whole = float(F.conv2d(torch.ones_like(kept), ones, **geometry).sum())
    assert _useful("partial", case) == pytest.approx(2 * case.macs * counted / whole, abs=1)


def test_a_source_is_convolved_over_its_own_axes_alone():
    line = "n2 c3+0+5+0>4 i8x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
    variant = TABLE.variant("multi_source")
    case = ConvCase.parse(line)
    tensors = make_tensors(variant, case)
    shapes = [tuple(t.shape) for t in leaves({"w": tensors["weight"]}).values()]
    assert sorted(len(shape) for shape in shapes) == [3, 4]
    positions = {4: case.out_size[0] * case.out_size[1]}
    (line_kernel,) = [s for s in shapes if len(s) == 3]
    (signal,) = [t for t in leaves({"x": tensors["x"]}).values() if t.dim() == 3]
    positions[3] = case.out_size[case.in_size.index(signal.shape[-1])]
    macs = sum(case.n * torch.Size(s).numel() * positions[len(s)] for s in shapes)
    assert line_kernel[:2] == (4, 5)
    assert useful_flop(variant, case, tensors) == 2 * macs < 2 * case.macs


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_what_is_issued_is_what_operators_were_called_for(direction):
    variant, case = TABLE.variant("plain"), replace(_case("plain"), groups=1, bias=False)
    with torch.set_grad_enabled(direction == "backward"):
        call = Call(variant, variant.reference, case, direction)
        tensors = make_tensors(variant, case)
        work = work_of(call, tensors, counted=True)
        assert work_of(call, tensors, counted=False) == work._replace(
            issued_flop=None, issued_bytes=None
        )
    products = 1 if direction == "forward" else 3
    assert work.useful_flop == work.issued_flop == products * 2 * case.macs
    moved = [*case_bytes(case)]
    least = sum(moved) if direction == "forward" else 2 * sum(moved[:2]) + moved[2]
    assert work.useful_bytes == least
    assert work.issued_bytes is not None
    assert work.issued_bytes >= least


def test_a_formula_that_does_not_fit_is_no_count_and_no_failure(monkeypatch):
    def unfit(*_, **__):
        raise TypeError

    monkeypatch.setattr("harness.meter._flops", lambda: dict.fromkeys(_OPERATORS, unfit))
    variant, case = TABLE.variant("plain"), _case("plain")
    call = Call(variant, variant.reference, case, "forward")
    work = work_of(call, make_tensors(variant, case), counted=True)
    assert (work.useful_flop, work.issued_flop, work.issued_bytes) == (2 * case.macs, None, None)


_OPERATORS = (torch.ops.aten.convolution, torch.ops.aten.mkldnn_convolution)


def case_bytes(case: ConvCase) -> list[int]:
    shapes = (case.x_shape, case.weight_shape, case.out_shape)
    return [4 * torch.Size(shape).numel() for shape in shapes]


def test_an_implementation_that_convolves_the_mask_too_issues_more_than_is_useful():
    variant, case = TABLE.variant("partial"), _case("partial", mask="bernoulli:0.5")
    call = Call(variant, TABLE.implementation(variant, "convolved_mask"), case, "forward")
    work = work_of(call, make_tensors(variant, case), counted=True)
    assert work.issued_flop is not None
    assert work.useful_flop is not None
    assert work.issued_flop > 2 * case.macs > work.useful_flop > 0
