"""Bounds are derived: what keeps within them is right, what does not is found, in every dtype."""

import math
from dataclasses import replace

import pytest
import torch

from harness.case import DTYPES, ConvCase
from harness.check import Refuted, Trial
from harness.effort import Profile
from harness.law import Law
from harness.results import Outcome
from harness.search import search
from harness.table import load_table
from harness.tensors import make_tensors
from harness.tolerance import (
    DIGITS,
    TF32_ROUNDOFF,
    UNIT_ROUNDOFF,
    Bound,
    error_bound,
    gamma,
    growth,
)
from harness.variant import Implementation
from properties.refuted.precision import MUTANTS

TABLE = load_table()
PLAIN = TABLE.variant("plain")
VALUES, GRADIENTS = TABLE.law("G1"), TABLE.law("G1b")
LOW = ("bfloat16", "float16")


def _parse(dtype, fill="exact", line="n1 c2>1 i5 k3 b1"):
    return ConvCase.parse(f"{line} {dtype} {fill}")


def _bound(case, **options):
    tensors = make_tensors(PLAIN, case)
    wide = {name: v if v is None else v.double() for name, v in tensors.items()}
    keywords = PLAIN.call_keywords(case)
    truth = PLAIN.oracle(*wide.values(), **keywords)
    size = PLAIN.oracle(*(v if v is None else v.abs() for v in wide.values()), **keywords)
    return truth, size, error_bound(PLAIN, case, tensors, truth, size, **options)


# -- tiers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_numbers_that_the_dtype_holds_are_compared_exactly(dtype):
    _, _, bound = _bound(_parse(dtype))
    assert bound.tier == "T0"
    assert not bound.error.any()


@pytest.mark.parametrize("dtype", LOW)
def test_whole_numbers_beyond_the_digits_of_the_dtype_are_not(dtype):
    case = _parse(dtype)
    tensors = make_tensors(PLAIN, case)
    large = torch.full((1, 1, 3), 2.0 ** DIGITS[dtype], dtype=torch.float64)
    assert error_bound(PLAIN, case, tensors, large, large).tier == "T1"
    assert error_bound(PLAIN, case, tensors, large / 2, large, widest=large).tier == "T1"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_is_at_least_the_textbook_one_for_float64_and_tight(dtype):
    truth, size, bound = _bound(_parse(dtype, "real"))
    assert bound.tier == "T1"
    u = UNIT_ROUNDOFF["float32" if dtype in LOW else dtype]
    storage = UNIT_ROUNDOFF[dtype] * truth.abs() if dtype in LOW else 0
    assert bool((bound.error >= bound.roundings * u * size + storage).all())
    assert bool(
        (bound.error <= 2.1 * gamma(bound.roundings, u) * size + 1.01 * storage + 1e-7).all()
    )


def test_growth_is_below_gamma_and_finite_where_gamma_is_not():
    assert growth((10, 2.0**-8)) <= gamma(10, 2.0**-8)
    assert math.isfinite(growth((1000, 2.0**-8)))


def test_entries_that_float16_may_not_hold_are_not_compared():
    case = _parse("float16", "real")
    tensors = make_tensors(PLAIN, case)
    sizes = torch.tensor([1.0, 60000.0, 70000.0], dtype=torch.float64)
    bound = error_bound(PLAIN, case, tensors, sizes, sizes)
    assert bound.error.isinf().tolist() == [False, False, True]
    trial = Trial(PLAIN, PLAIN.reference, case)
    got = torch.tensor([1.0, 60000.0, math.inf])
    trial.agree({"output": got}, {"output": sizes}, {"output": bound})


def test_operands_rounded_to_tf32_need_the_bound_of_tf32():
    case = _parse("float32", "real", "n2 c8>8 i9x9 k3x3 b0")
    tensors = make_tensors(PLAIN, case)
    truth, _, plain = _bound(case)
    _, _, wider = _bound(case, tf32=True)
    scale = 1 / TF32_ROUNDOFF

    def rounded(value):
        mantissa, exponent = torch.frexp(value)
        return torch.ldexp((mantissa * scale).round() / scale, exponent)

    x, weight = rounded(tensors["x"]), rounded(tensors["weight"])
    difference = (torch.conv2d(x, weight).double() - truth).abs()
    assert bool((difference > plain.error).any())
    assert bool((difference <= wider.error).all())


# -- what an implementation declares ---------------------------------------------------------------


ADDS_UP = next(mutant for mutant in MUTANTS if mutant.name == "adds_up_in_memory")


def _judge(implementation, dtype, law=VALUES, cases=60):
    effort = Profile(cases=cases, dtypes=(dtype,), shrink=False)
    return search(law, PLAIN, implementation, effort, variants=TABLE.variants)


def test_a_wrong_accumulator_shows_the_one_that_it_has():
    adds = Implementation(name="adds", load=lambda: ADDS_UP.spoil(PLAIN.oracle))
    finding = _judge(adds, "bfloat16")
    assert finding.outcome is Outcome.REFUTED
    assert "error over bound" in finding.screen
    assert "effective u = error / (n Y)" in finding.screen
    declared = replace(adds, accumulators={("bfloat16", "output"): "bfloat16"})
    assert _judge(declared, "bfloat16").outcome is Outcome.HOLDS


def _by_fft(x, weight, bias=None, *, stride, padding, dilation, groups, padding_mode="zeros"):
    if len(stride) > 1 or groups > 1 or padding_mode != "zeros":
        return PLAIN.reference.load()(
            x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
            padding_mode=padding_mode,
        )  # fmt: skip
    x = torch.nn.functional.pad(x, (padding[0], padding[0]))
    field = dilation[0] * (weight.shape[2] - 1) + 1
    sparse = weight.new_zeros((*weight.shape[:2], field))
    sparse[..., :: dilation[0]] = weight
    size = x.shape[2]
    spectrum = torch.fft.rfft(x).unsqueeze(1) * torch.fft.rfft(sparse, size).conj()
    y = torch.fft.irfft(spectrum.sum(2), size)[..., : size - field + 1 : stride[0]]
    return y if bias is None else y + bias.view(1, -1, 1)


def test_a_transform_is_outside_of_the_sums_and_inside_of_twice_the_reference():
    fft = Implementation(name="fft", load=lambda: _by_fft)
    assert _judge(fft, "float32").outcome is Outcome.REFUTED
    declared = replace(fft, model="transform")
    assert _judge(declared, "float32").outcome is Outcome.HOLDS

    def lossy(*arguments, **keywords):
        return _by_fft(*arguments, **keywords) * (1 + 2.0**-12)

    wrong = replace(declared, load=lambda: lossy)
    assert _judge(wrong, "float32").outcome is Outcome.REFUTED


MATTERS = {
    "computes_in_the_precision_below": ("float64", "float32", "float16"),
    "adds_up_in_memory": LOW,
    "last_column_is_off_by_a_millionth": ("float64", "float32"),
    "last_column_is_off_by_a_hundredth": DTYPES,
    "counts_in_the_dtype_of_the_signal": LOW,
}


@pytest.mark.parametrize(
    ("mutant", "dtype"),
    [(mutant, dtype) for mutant in MUTANTS for dtype in MATTERS[mutant.name]],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_fault_of_precision_is_found_in_every_dtype_that_it_matters_in(mutant, dtype):
    variant, wrong = mutant.plant(TABLE.variant(mutant.variant))
    others = {**TABLE.variants, variant.name: variant}
    effort = Profile(cases=60, dtypes=(dtype,), shrink=False)
    assert search(VALUES, variant, wrong, effort, variants=others).outcome is Outcome.REFUTED


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("law", [VALUES, GRADIENTS], ids=lambda law: law.name)
def test_low_precision_uses_its_bound_and_keeps_it(law, dtype):
    finding = _judge(PLAIN.reference, dtype, law)
    assert finding.outcome is Outcome.HOLDS
    assert 0.25 < finding.tightness[dtype] <= 1


# -- trust -----------------------------------------------------------------------------------------


def test_a_law_that_compares_nothing_in_one_dtype_is_mistrusted_there():
    def check(trial):
        y = trial()["output"]
        loose = trial.case.dtype == "bfloat16"
        error = torch.full(y.shape, math.inf if loose else 0.0, dtype=torch.float64)
        trial.agree({"output": y}, {"output": y}, {"output": Bound(error=error, tier="T1")})

    law = Law(id="X1", name="says_nothing", statement="y = y", check=check)
    finding = search(law, PLAIN, PLAIN.reference, Profile(cases=120))
    assert finding.outcome is Outcome.MISTRUSTED
    assert finding.screen.endswith("bfloat16")
    exempt = replace(law, zero_is_right=True)
    assert search(exempt, PLAIN, PLAIN.reference, Profile(cases=120)).outcome is Outcome.HOLDS


def test_a_difference_without_a_derivation_has_no_note():
    trial = Trial(PLAIN, PLAIN.reference, _parse("float32"))
    zeros, ones = torch.zeros(1), torch.ones(1)
    bound = Bound(error=torch.zeros(1, dtype=torch.float64), tier="T1")
    with pytest.raises(Refuted) as raised:
        trial.agree({"output": zeros}, {"output": ones}, {"output": bound})
    assert raised.value.note == ""
