"""Cases print, parse, and refuse what cannot be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.case import CaseError, ConvCase
from harness.strategies import cases
from harness.table import load_table

VARIANTS = list(load_table().variants.values())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_drawn_case_is_valid_and_survives_printing(data):
    variant = data.draw(st.sampled_from(VARIANTS))
    case = data.draw(cases(variant))
    variant.check_case(case)
    assert ConvCase.parse(str(case)) == case
    assert min(case.out_size) >= 1


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_named_case_is_valid_and_prints_as_it_is_written(variant):
    for line in variant.cases.values():
        case = ConvCase.parse(line)
        variant.check_case(case)
        assert ConvCase.parse(str(case)) == case
        assert case.fill == "real"
    assert set(variant.quick) <= set(variant.cases)
    assert variant.quick


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("n1 c6>8 i8 k3 g4", "c_in=6 is not divisible by groups=4"),
        ("n1 c8>6 i8 k3 g4", "c_out=6 is not divisible by groups=4"),
        ("n1 c1>1 i8x8 k3", r"kernel_size=\(3,\) needs 2 entries, one per spatial axis"),
        (
            "n1 c1>1 i2 k5 p1",
            r"spans 5 on spatial axis 0, larger than the padded input 2 \+ 2 \* 1",
        ),
        ("n1 c1>1 i4 k3 s0", r"stride=\(0,\) must be at least 1"),
        ("n1 c0>1 i4 k3", "c_in=0 must be at least 1"),
        ("n1 c1>1 i4", r"has no k token \(kernel_size\)"),
        ("n1 c1>1 i4 k3 wat", "'wat' is no token of a case"),
        ("n1 c1>1 i4 k3 k3", "'k3': kernel_size is given twice"),
        ("n1 c1>1 i4 k3 b2", "'b2': b is 0 or 1"),
        ("n1 c1>1 i4 k3x", "'k3x' is no token of a case"),
        ("n1 c1>1 i4 k3 mask=", "'mask=' is no option: expected name=value"),
        ("n1 c1+2+3>1 i4 k3", r"sources=\(1, 2, 3\) needs 2 entries"),
        ("n1 c4+3>2 i4 k3 g2", r"is not divisible by groups=2"),
    ],
)
def test_what_cannot_be_is_refused_with_argument_value_and_expectation(line, message):
    with pytest.raises(CaseError, match=message):
        ConvCase.parse(line)


def test_a_case_knows_its_counts():
    case = ConvCase.parse("n2 c4>6 i9x8 k3x2 s2x1 p1x0 d1x2 g2")
    assert case.out_shape == (2, 6, 5, 6)
    assert case.receptive_field == (3, 3)
    assert case.macs == 2 * 6 * 5 * 6 * (3 * 2 * 2)


def test_sources_must_sum_to_the_channels():
    one = {"in_size": (4,), "kernel_size": (3,), "stride": (1,), "padding": (0,), "dilation": (1,)}
    with pytest.raises(CaseError, match=r"c_in=4 must be the sum of sources=\(1, 2\)"):
        ConvCase(n=1, c_in=4, c_out=1, sources=(1, 2), **one)
