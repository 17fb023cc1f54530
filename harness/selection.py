"""Which implementation computes a case: what can, what pays, what was measured to win."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import torch

from harness.case import CaseError, ConvCase
from harness.choice import Near, nearest
from harness.explanation import Explanation
from harness.variant import Function, Implementation, Kind, Need, Variant


def fastest(variant: Variant, case: ConvCase, device: str = "cpu") -> Implementation:
    """Return the preferred implementation for `case` on `device`.

    That is what won the nearest measured case, where this kind of machine has measured one near;
    else an optimized one that pays, in the order of the variant, before the reference.
    """
    winner = _winner(variant, case, device)
    ranked = [
        (winner is None or i.name != winner.choice.implementation, not i.pays(case),
         i.kind is Kind.REFERENCE, place)
        for place, i in enumerate(variant.implementations)
    ]  # fmt: skip
    for *_, place in sorted(ranked):
        candidate = variant.implementations[place]
        elsewhere = candidate.needs & {Need.CUDA, Need.TRITON} and device != "cuda"
        if elsewhere or Need.COMPILER in candidate.needs:
            continue  # compiling behind a caller's back would stall the first call for seconds
        if declines(candidate, variant, case) is None:
            return candidate
    raise CaseError(f"no implementation of {variant.name} computes {case}")


def _winner(variant: Variant, case: ConvCase, device: str) -> Near | None:
    # a file cannot be read while tracing
    return None if torch.compiler.is_compiling() else nearest(variant, case, device)


def declines(implementation: Implementation, variant: Variant, case: ConvCase) -> str | None:
    """Return why `implementation` does not compute `case`, or None."""
    if reason := implementation.missing() or implementation.unsupported(case):
        return reason
    if implementation.within(case) != case:
        return "outside of what it computes"
    try:
        function = implementation.load()
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything at all
        return f"cannot be loaded: {type(error).__name__}: {error}"
    accepted = uncached(_keywords_of)(function)
    lacking = variant.call_keywords(case).keys() - accepted
    return f"takes no argument {min(lacking)!r}" if lacking and "**" not in accepted else None


def explanation_of(
    variant: Variant, case: ConvCase, device: str, pinned: str | None
) -> Explanation:
    """Return what `fastest`, or a pin, takes for `case`, and what speaks against the others."""
    chosen = named(variant, pinned) if pinned else fastest(variant, case, device)
    near, reasons = _winner(variant, case, device), []
    for i in variant.implementations:
        reason = declines(i, variant, case)
        if reason is not None:
            reasons.append((i.name, f"does not compute it: {reason}"))
        elif i is chosen:
            won = near is not None and near.choice.implementation == i.name
            why = str(near) if won else "the preferred one that computes it"
            reasons.append((i.name, "pinned" if pinned else why))
        elif i.needs & {Need.CUDA, Need.TRITON} and device != "cuda":
            reasons.append((i.name, f"runs on cuda, not on {device}"))
        elif Need.COMPILER in i.needs:
            reasons.append((i.name, "would stall its first call: only where it is pinned"))
        elif not i.pays(case):
            reasons.append((i.name, "computes it, but does not pay for its overhead here"))
        else:
            reasons.append((i.name, "computes it, and is preferred less"))
    return Explanation(case=case, device=device, implementation=chosen.name, reasons=tuple(reasons))


def named(variant: Variant, name: str) -> Implementation:
    """Return the implementation called `name`.

    Raises:
        CaseError: there is none.
    """
    for implementation in variant.implementations:
        if implementation.name == name:
            return implementation
    names = ", ".join(i.name for i in variant.implementations)
    raise CaseError(f"implementation={name!r} must be one of {names}")


@lru_cache(maxsize=1024)
def _keywords_of(function: Function) -> frozenset[str]:
    parameters = inspect.signature(function).parameters.values()
    return frozenset("**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters)


def uncached(function: Any) -> Any:
    """Return `function` without its cache while compiling: the compiler guards its own result."""
    return function.__wrapped__ if torch.compiler.is_compiling() else function
