"""Mutants: wrong implementations that the laws must refute, so that the laws are tested too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from harness.variant import Implementation, LayerForm, Variant

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A fault that can be planted into an implementation.

    Args:
        name: What is wrong, e.g. `kernel_is_flipped`.
        variant: Whose implementations it spoils.
        spoil: Takes a right callable and returns the wrong one, with the same signature.
        spoil_layer: Takes the variant's way to make a layer and returns one that makes a wrong one.
        in_oracle: Whether the fault is planted into the oracle as well, so that agreement is
            blind and only a law of meaning can find it.
    """

    name: str
    variant: str
    spoil: Callable[[Function], Function] = lambda right: right
    spoil_layer: Callable[[LayerForm], LayerForm] | None = None
    in_oracle: bool = False

    def plant(self, variant: Variant) -> tuple[Variant, Implementation]:
        """Return `variant` with the fault in its reference (and oracle), and that reference."""
        right = variant.reference
        wrong = replace(right, name=self.name, load=lambda: self.spoil(right.load()))
        if self.spoil_layer is not None:
            assert variant.layer is not None, f"{variant.name} has no layer to spoil"
            wrong = replace(wrong, layer=self.spoil_layer(variant.layer))
        oracle = self.spoil(variant.oracle) if self.in_oracle else variant.oracle
        return replace(variant, oracle=oracle, implementations=(wrong,)), wrong
