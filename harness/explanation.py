"""Which implementation a call would take, and why: asked of the functional form itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.case import ConvCase


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What computes a case, and what was said of every other implementation.

    Args:
        case: The call as a case.
        device: Type of the device.
        implementation: Name of the one that computes it.
        reasons: By implementation: why it is or is not that one.
    """

    case: ConvCase
    device: str
    implementation: str
    reasons: tuple[tuple[str, str], ...]

    @property
    def reason(self) -> str:
        """Why the chosen one was."""
        return dict(self.reasons)[self.implementation]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.reasons)
        lines = [f"{name:<{width}}  {reason}" for name, reason in self.reasons]
        return "\n".join([f"{self.implementation} computes {self.case} on {self.device}", *lines])


class Explained(Exception):
    """Carries an explanation out of a call that was only asked."""

    def __init__(self, explanation: Explanation) -> None:
        super().__init__(str(explanation))
        self.explanation = explanation


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Given in the place of an implementation's name: which one would a call take?

    Args:
        pinned: The name that the call would pin.
    """

    pinned: str | None = None


def explain(
    function: Callable[..., Any], *tensors: Any, implementation: str | None = None, **options: Any
) -> Explanation:
    """Return which implementation `function(*tensors, **options)` takes; nothing is computed.

    Args:
        function: The functional form of a variant.
        tensors, options: Its arguments.
        implementation: The one that the call pins, if any.

    Raises:
        CaseError: whatever the call itself refuses.
        TypeError: `function` is no functional form of a variant.
    """
    try:
        function(*tensors, implementation=Inquiry(implementation), **options)
    except Explained as answer:
        return answer.explanation
    raise TypeError(f"{function!r} must be the functional form of a variant")
