"""Tensors are a function of the case alone; the error bound is tight, and not too tight."""

import pytest
import torch

from harness.case import CaseError, ConvCase
from harness.check import Trial
from harness.masks import STRUCTURES, make_mask
from harness.table import load_table
from harness.tensors import another, lay_out, make_tensors
from harness.tolerance import error_bound
from harness.variant import Role

PLAIN = load_table().variant("plain")
CASE = ConvCase.parse("n2 c4>6 i8x9 k3x2 g2")


@pytest.mark.parametrize("fill", ["exact", "ones", "arange", "sparse", "real", "wide"])
def test_the_same_case_gives_the_same_tensors(fill):
    case = ConvCase.parse(f"{CASE}".replace("exact", fill))
    first, second = make_tensors(PLAIN, case), make_tensors(PLAIN, case)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_writing_to_tensors_leaves_those_made_later_alone(dtype):
    case = ConvCase.parse(str(CASE).replace("float32", dtype))
    spoiled, role = make_tensors(PLAIN, case), Role.SIGNAL
    values = {name: tensor.clone() for name, tensor in spoiled.items()}
    second = another(spoiled["x"], case, role, "dy")
    kept = second.clone()
    for tensor in (*spoiled.values(), second):
        tensor.fill_(99.0)
    fresh = make_tensors(PLAIN, case)
    assert all(torch.equal(fresh[name], values[name]) for name in fresh)
    assert torch.equal(another(fresh["x"], case, role, "dy"), kept)


def test_another_seed_gives_other_values():
    other = ConvCase.parse(str(CASE).replace("seed0", "seed1"))
    assert not torch.equal(make_tensors(PLAIN, CASE)["x"], make_tensors(PLAIN, other)["x"])


def test_exact_fills_are_small_whole_numbers_and_tell_neighbours_apart():
    x = make_tensors(PLAIN, CASE)["x"]
    assert torch.equal(x, x.round())
    assert float(x.abs().max()) <= 4
    assert len(set(x.flatten()[:8].tolist())) == 8


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided", "transposed"])
def test_layouts_keep_the_values(layout):
    x = torch.arange(24.0).view(1, 2, 3, 4)
    moved = lay_out(x, layout)
    assert torch.equal(moved, x)
    assert moved.is_contiguous() == (layout == "contiguous")


def test_gaps_of_a_strided_layout_hold_nan():
    moved = lay_out(torch.zeros(1, 1, 2, 2), "strided")
    whole = torch.empty(0).set_(moved.untyped_storage())
    assert int(whole.isnan().sum()) == whole.numel() - 4


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("ones", {1.0}), ("zeros", {0.0}), ("bernoulli:0.5", {0.0, 1.0}), ("box", {0.0, 1.0}),
        ("checkerboard", {0.0, 1.0}), ("stripes", {0.0, 1.0}), ("real", {0.0, 0.25, 0.5, 0.75, 1.0}),
    ],
)  # fmt: skip
def test_mask_families(family, values):
    mask = make_mask((2, 3, 8, 8), family, torch.Generator().manual_seed(0))
    assert set(mask.unique().tolist()) == values


def test_an_unknown_mask_family_is_refused():
    with pytest.raises(CaseError, match="mask=gauss is no family of masks"):
        make_mask((1, 1, 2), "gauss", torch.Generator())


def _bound(line):
    trial = Trial(PLAIN, PLAIN.reference, ConvCase.parse(line))
    return trial, trial.bound()["output"]


def test_integer_sums_are_allowed_no_error():
    _, bound = _bound("n1 c64>8 i16x16 k3x3 float32 exact")
    assert (bound.tier, float(bound.error.max())) == ("T0", 0.0)


def test_integers_too_large_for_the_accumulator_are_bounded_instead():
    case = ConvCase.parse("n1 c1>1 i3 k3 b0 float32 exact")
    tensors = make_tensors(PLAIN, case)
    huge = torch.full((1, 1, 1), 2.0**24, dtype=torch.float64)
    assert error_bound(PLAIN, case, tensors, huge, huge).tier == "T1"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_of_a_real_sum_is_derived_and_narrow(dtype):
    trial, bound = _bound(f"n1 c2>4 i9x9 k1x1 {dtype} real")
    trial.agree(trial(), trial.truth(), trial.bound())
    assert bound.tier == "T1"
    assert 0.02 < trial.closeness.error_over_bound <= 1  # neither vacuous nor missed


@pytest.mark.parametrize("shape", [(2, 3, 64), (2, 3, 24, 32), (1, 2, 8, 16, 8)])
@pytest.mark.parametrize("family", STRUCTURES)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_structure_holds_its_share_alike_in_all_channels(shape, family, share):
    mask = make_mask(shape, f"{family}:{share}", torch.Generator().manual_seed(0))
    assert mask.shape == shape
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(mask, mask[:, :1].expand(shape))
    scattered = 0.25 if family in {"blocks", "border"} else 0.02  # few blocks; whole pixels
    assert abs(float(mask.mean()) - share) <= scattered * (0 < share < 1)


def test_a_border_is_absent_and_the_centre_present():
    mask = make_mask((1, 1, 8, 8), "border:0.25", torch.Generator())
    assert mask[0, 0, 2:6, 2:6].all()
    assert mask.sum() == 16


def test_a_structure_can_be_chosen_where_a_share_can():
    line = "n1 c1>1 i8x8 k3x3 s1x1 p1x1 d1x1 g1 b0 float32 contiguous real seed0"
    variant = load_table().variant("partial")
    variant.check_case(ConvCase.parse(f"{line} mask=freeform:0.5"))
    with pytest.raises(CaseError, match=r"mask=freeform must be one of"):
        variant.check_case(ConvCase.parse(f"{line} mask=freeform"))
