"""The laws are tested too: every mutant is refuted by some law, every law refutes some mutant."""

import functools
from collections import Counter

import pytest

from harness.effort import COSTLY
from harness.evidence import EVIDENCE, load_evidence
from harness.kills import AGREEMENT, kill, load_mutants
from harness.table import load_table

pytestmark = pytest.mark.thorough

TABLE = load_table()
MUTANTS = load_mutants()


STORED = {table.name: table for table in load_evidence(EVIDENCE)}


def _quickest(name, key, value):
    """Return what was quickest when the table was stored: only an order to try things in."""
    if name not in STORED:
        return {}
    return dict(
        zip(
            zip(*map(STORED[name].column, key), strict=True),
            STORED[name].column(value),
            strict=True,
        )
    )


KILLER = _quickest("mutants", ("variant", "mutant"), "law of meaning")
VICTIM = _quickest("kills", ("law",), "mutant")


def _claimants(law):
    return [name for name, v in TABLE.variants.items() if law.requires <= v.traits]


@functools.cache
def _refutes(law_id, mutant):
    return kill(TABLE.laws[law_id], mutant, TABLE) is not None


def _group(mutant):
    return pytest.param(
        mutant,
        marks=pytest.mark.xdist_group(f"mutants-{mutant.variant}"),
        id=f"{mutant.variant}-{mutant.name}",
    )


@pytest.mark.parametrize("mutant", [_group(mutant) for mutant in MUTANTS])
def test_mutant_is_refuted(mutant):
    # agreement is quick to find what the oracle lacks; elsewhere the particular laws come first
    laws = sorted(
        TABLE.laws_of(TABLE.variant(mutant.variant)),
        key=lambda law: (law.share < COSTLY, len(_claimants(law))),
    )
    if not mutant.in_oracle and mutant.spoil_layer is None:
        laws = [*(TABLE.laws[name] for name in AGREEMENT), *laws]
    quickest = KILLER.get((mutant.variant, mutant.name))
    laws.sort(key=lambda law: law.id != quickest)
    assert any(_refutes(law.id, mutant) for law in laws), mutant.name


@pytest.mark.parametrize("law", TABLE.laws.values(), ids=lambda law: f"{law.id}-{law.name}")
def test_law_refutes_a_mutant(law):
    claimants = _claimants(law)
    own = [m for m in MUTANTS if m.variant in claimants]
    quickest = VICTIM.get((law.id,), "")
    # the general faults are planted in the plain convolution
    own.sort(key=lambda m: (f"{m.variant}/{m.name}" != quickest, m.variant != "plain"))
    assert any(_refutes(law.id, mutant) for mutant in own), f"no mutant is refuted by {law.name}"


def test_every_variant_has_mutants_and_many_are_in_the_oracle_too():
    variants = Counter(mutant.variant for mutant in MUTANTS)
    assert min(variants[name] for name in TABLE.variants) >= 3
    assert len(MUTANTS) >= 60
    assert sum(mutant.in_oracle for mutant in MUTANTS) >= 20


def test_every_trait_is_required_and_claimed():
    required = set().union(*(law.requires for law in TABLE.laws.values()))
    claimed = set().union(*(variant.traits for variant in TABLE.variants.values()))
    assert required == claimed
