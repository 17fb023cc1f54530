"""Faults of strangers who check nothing: they broadcast, convert, or return where they must raise."""

from typing import Any

import torch

from harness.mutant import Mutant

STRANGER = "a stranger"


def _errors_are_swallowed(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        try:
            return right(x, *rest, **keywords)
        except (RuntimeError, ValueError, TypeError, IndexError, ZeroDivisionError):
            return torch.zeros(1)

    return wrong


def _dtypes_are_converted(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x, *(None if v is None else v.to(x.dtype) for v in rest), **keywords)

    return wrong


def _batches_are_cut(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        n = min(source.shape[0] for source in x if source is not None)
        cut = tuple(None if source is None else source[:n] for source in x)
        return right(cut, *rest, **keywords)

    return wrong


MUTANTS = [
    Mutant(name="errors_are_swallowed", variant="plain", spoil=_errors_are_swallowed,
           origin=STRANGER),
    Mutant(name="dtypes_are_converted", variant="plain", spoil=_dtypes_are_converted,
           origin=STRANGER),
    Mutant(name="mask_is_broadcast", variant="partial", origin=STRANGER),
    Mutant(name="batches_are_cut", variant="tile_concat", spoil=_batches_are_cut, origin=STRANGER),
]  # fmt: skip
