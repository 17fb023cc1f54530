"""Where a law says that its domain is sharp, a case just outside it breaks the law."""

from dataclasses import replace

import pytest

from harness.effort import Profile
from harness.results import Outcome
from harness.search import search
from harness.table import load_table, with_oracle

pytestmark = pytest.mark.thorough

TABLE = load_table()
EFFORT = Profile(cases=120, dtypes=("float64",))
SHARP = [
    pytest.param(law, variant, id=f"{variant.name}-{law.id}-{law.name}")
    for variant in TABLE.variants.values()
    for law in TABLE.laws_of(variant)
    if law.outside
]


@pytest.mark.parametrize(("law", "variant"), SHARP)
def test_law_fails_just_outside_its_domain(law, variant):
    oracle = with_oracle(variant)[0]
    beyond = replace(law, within=law.outside)
    finding = search(beyond, variant, oracle, EFFORT, variants=TABLE.variants)
    assert finding.outcome is Outcome.REFUTED, f"{law.domain}: {finding.outcome} {finding.screen}"
