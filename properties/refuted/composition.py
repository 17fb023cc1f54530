"""Faults of values that composing, single taps and other algorithms find in the oracle too."""

from typing import Any

import torch

from harness.mutant import Mutant


def _windows_start_late(right: Any) -> Any:
    """Read every window one sample further on; the last one wraps around."""
    return lambda x, *rest, **keywords: right(x.roll(-1, -1), *rest, **keywords)


def _channels_are_mixed(right: Any) -> Any:
    """Let every channel take a little of its neighbour: linear, and the same everywhere."""

    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x + x.roll(1, 1), *rest, **keywords)

    return wrong


def _last_tap_is_dropped(right: Any) -> Any:
    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        cut = torch.cat([weight[..., :-1], torch.zeros_like(weight[..., -1:])], -1)
        return right(x, cut if weight.shape[-1] > 2 else weight, *rest, **keywords)

    return wrong


def _outputs_are_halved(right: Any) -> Any:
    """Linear in everything: only a law that knows the scale can find it."""
    return lambda *tensors, **keywords: right(*tensors, **keywords) / 2


def _wraps_by_replicating(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        if keywords.get("padding_mode") == "circular":
            keywords = {**keywords, "padding_mode": "replicate"}
        return right(x, *rest, **keywords)

    return wrong


_PLAIN = {
    "windows_start_late": _windows_start_late,
    "channels_are_mixed": _channels_are_mixed,
    "last_tap_is_dropped": _last_tap_is_dropped,
    "outputs_are_halved": _outputs_are_halved,
    "wraps_by_replicating": _wraps_by_replicating,
}

MUTANTS = [
    Mutant(name=name, variant="plain", spoil=spoil, in_oracle=True)
    for name, spoil in _PLAIN.items()
]
