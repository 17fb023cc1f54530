"""The laws are tested too: every mutant is refuted by some law, every law refutes some mutant."""

import functools
import importlib
import pkgutil

import pytest

import properties.refuted
from harness.results import Outcome
from harness.search import Profile, search
from harness.table import load_table

TABLE = load_table()
MODULES = [
    importlib.import_module(f"properties.refuted.{found.name}")
    for found in pkgutil.iter_modules(properties.refuted.__path__)
]
MUTANTS = [mutant for module in MODULES for mutant in module.MUTANTS]
EFFORT = Profile(cases=60, shrink=False)


def _claimants(law):
    return [name for name, v in TABLE.variants.items() if law.requires <= v.traits]


@functools.cache
def _refutes(law_id, mutant):
    """Return whether the law refutes `mutant` within the effort."""
    variant, wrong = mutant.plant(TABLE.variant(mutant.variant))
    others = {**TABLE.variants, variant.name: variant}
    finding = search(TABLE.laws[law_id], variant, wrong, EFFORT, variants=others)
    return finding.outcome in (Outcome.REFUTED, Outcome.CRASHED)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.variant}-{m.name}")
def test_mutant_is_refuted(mutant):
    # agreement is quick to find what the oracle lacks; elsewhere the particular laws come first
    laws = sorted(
        TABLE.laws_of(TABLE.variant(mutant.variant)), key=lambda law: len(_claimants(law))
    )
    if not mutant.in_oracle:
        laws = [TABLE.laws["G1"], TABLE.laws["G1b"], *laws]
    assert any(_refutes(law.id, mutant) for law in laws), mutant.name


@pytest.mark.parametrize("law", TABLE.laws.values(), ids=lambda law: f"{law.id}-{law.name}")
def test_law_refutes_a_mutant(law):
    claimants = _claimants(law)
    own = [m for m in MUTANTS if m.variant in claimants]
    own.sort(key=lambda m: m.variant != "plain")  # the general faults are planted there
    assert any(_refutes(law.id, mutant) for mutant in own), f"no mutant is refuted by {law.name}"


@pytest.mark.parametrize("variant", TABLE.variants.values(), ids=lambda v: v.name)
def test_variant_has_mutants(variant):
    assert sum(mutant.variant == variant.name for mutant in MUTANTS) >= 2


def test_every_trait_is_required_and_claimed():
    required = set().union(*(law.requires for law in TABLE.laws.values()))
    claimed = set().union(*(variant.traits for variant in TABLE.variants.values()))
    assert required == claimed
