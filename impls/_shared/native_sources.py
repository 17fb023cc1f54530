"""What the operations in C++ on sources have in common: what they take, and what they cost."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from harness.api import ConvCase, Cost, Shape, Value
from impls._shared import native

Takes = Callable[[Any, Any, Tensor | None, int, Shape, str], bool]


def takes_sources(
    x: Any, weights: Iterable[Tensor | None], bias: Tensor | None, groups: int, padding: Shape,
    padding_mode: str,
) -> bool:  # fmt: skip
    """Return whether they take such sources: an image first, without groups."""
    whole = groups == 1 and x[0] is not None
    return whole and native.takes_zero_padded(padding, padding_mode, *x, bias, *weights)


def cost_where(takes: Takes) -> Callable[[ConvCase, Mapping[str, Value]], Cost]:
    """Return the cost of what `takes` takes: nothing is kept but the arguments."""

    def of_native(case: ConvCase, tensors: Mapping[str, Value]) -> Cost:
        x, weight, bias = (tensors[name] for name in ("x", "weight", "bias"))
        mode = case.option("padding_mode", "zeros")
        keeps = takes(x, weight, bias, case.groups, case.padding, mode)
        weights = [weight] if isinstance(weight, Tensor) else weight
        return Cost(saved_bytes=0) if keeps and not native.copies(*x, *weights, bias) else Cost()

    return of_native
