"""Compiled forms say what the oracle says; a few, since compiling one takes 15 to 30 seconds."""

from dataclasses import replace
from itertools import product

import pytest

from harness.case import ConvCase
from harness.results import Outcome
from harness.search import replay
from harness.table import load_table

pytestmark = pytest.mark.thorough

TABLE = load_table()
LINES = {
    "plain": "n2 c4>6 i6x7 k3x2 s2x1 p1x0 d1x2 g2 float32 contiguous exact seed0",
    "partial": "n2 c4>6 i6x7 k3x2 s2x1 p1x0 d1x2 g2 float32 contiguous exact seed0 mask=bernoulli:0.5",
    "kernel_masked": "n2 c2>3 i6x7 k3x3 p1x1 float32 contiguous exact seed0 kernel_mask=cross",
    "multi_source": "n2 c2+1+2+3>4 i5x6 k3x3 p1x1 float32 contiguous exact seed0",
    "diff": "n2 c2>3 i6x7 k3x3 p1x1 float32 contiguous exact seed0",
    "tile_concat": "n2 c2+1+2+3>4 i5x6 k3x3 p1x1 float32 contiguous exact seed0",
    "input_masked": "n2 c2>3 i6x7 k3x3 p1x1 float32 contiguous exact seed0 mask=bernoulli:0.5",
    "window_masked": "n2 c2>3 i6x7 k3x3 p1x1 float32 contiguous exact seed0 mask=bernoulli:0.5",
    "masked": "n2 c2>3 i6x7 k3x3 p1x1 float32 contiguous exact seed0 mask=bernoulli:0.5",
    "boundary": "n2 c2>3 i6x7 k3x3 p1x1 float32 contiguous exact seed0 method=replicate",
}
IN_EVERY_RUN = ("partial", "kernel_masked", "multi_source", "diff")


@pytest.mark.filterwarnings("default")  # the compiler's own warnings are not ours to mend
@pytest.mark.parametrize("name", LINES)
def test_compiled_form_agrees(name, profile_name, device):
    thorough = profile_name in {"deep", "soak"}
    if not thorough and name not in IN_EVERY_RUN:
        pytest.skip("compiled under --hypothesis-profile deep only")
    variant = TABLE.variant(name)
    implementation = TABLE.implementation(variant, "compiled")
    case = ConvCase.parse(LINES[name])
    # another number of samples compiles anew, once for all that follow
    cases = [case, replace(case, n=3), replace(case, n=5)] if thorough else [case]
    for law, each in product(("G1", "G1b"), cases):
        finding = replay(
            TABLE.law(law), variant, implementation, each, device=device, variants=TABLE.variants
        )
        if finding.outcome is Outcome.UNSUPPORTED:
            pytest.skip(finding.screen)
        assert finding.outcome is Outcome.HOLDS, finding.screen


def test_every_variant_has_a_compiled_case():
    assert set(LINES) == set(TABLE.variants)
