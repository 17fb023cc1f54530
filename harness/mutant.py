"""Mutants: wrong implementations that the laws must refute, so that the laws are tested too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from harness.variant import Implementation, LayerForm, Variant

Function = Callable[..., Any]
# How often a fault may round the result, besides the right operation: a few products and sums.
FAULTY_ROUNDINGS = 4


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
        implementation: Which one is spoilt; none = the reference.
        origin: Where it says that it comes from: a stranger's is called as it is, without the
            checks of the public form.
    """

    name: str
    variant: str
    spoil: Callable[[Function], Function] = lambda right: right
    spoil_layer: Callable[[LayerForm], LayerForm] | None = None
    in_oracle: bool = False
    implementation: str = ""
    origin: str = ""

    def plant(self, variant: Variant) -> tuple[Variant, Implementation]:
        """Return `variant` with the fault in one implementation (and oracle), and that one."""
        right = variant.reference
        if self.implementation:
            right = next(i for i in variant.implementations if i.name == self.implementation)
        wrong = replace(right, name=self.name, load=lambda: self.spoil(right.load()),
                        origin=self.origin)  # fmt: skip
        if self.spoil_layer is not None:
            assert variant.layer is not None, f"{variant.name} has no layer to spoil"
            wrong = replace(wrong, layer=self.spoil_layer(variant.layer))
        if not self.in_oracle:
            return replace(variant, implementations=(wrong,)), wrong
        # Its bounds are those of the operation that the fault makes, which rounds where the right
        # one need not: a law must find what the fault means, not that.
        roundings = variant.extra_roundings
        spoilt = replace(
            variant,
            oracle=self.spoil(variant.oracle),
            magnitude=variant.magnitude and self.spoil(variant.magnitude),
            exact=lambda *_: False,
            extra_roundings=lambda case: roundings(case) + FAULTY_ROUNDINGS,
            implementations=(wrong,),
        )
        return spoilt, wrong
