"""What variants and implementations declare about themselves, in words."""

from __future__ import annotations

import dataclasses

from harness.case import ConvCase
from harness.catalogue import variant_card
from harness.limits import domain_in_words, limits_of
from harness.table import load_table


def test_a_card_says_for_what_a_variant_is_defined_and_what_an_implementation_declines() -> None:
    variant = load_table().variant("diff")
    assert "odd kernels" in domain_in_words(variant)
    assert "no padding argument" in domain_in_words(variant)
    card = variant_card(variant)
    assert card.domain == domain_in_words(variant)
    told = {one.name: one.limits for one in card.implementations}
    assert any(
        limit.startswith("not channels_last") for limits in told.values() for limit in limits
    )


def test_limits_that_raise_are_told_and_end_nothing() -> None:
    def fails(_: ConvCase) -> str | None:
        raise KeyError("n")

    variant = load_table().variant("plain")
    broken = dataclasses.replace(variant.implementations[0], unsupported=fails)
    assert "its limits cannot be told: KeyError: 'n'" in limits_of(variant, broken)
