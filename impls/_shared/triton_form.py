"""How Triton kernels stand in the table."""

import os
from collections.abc import Callable
from typing import Any

from harness.api import Implementation, Need


def triton_form(
    load: Callable[[], Callable[..., Any]], *, share: float = 0.05, **declared: Any
) -> Implementation:
    """Return the implementation of Triton kernels that `load` returns.

    Under `torch.func`, compilers and exporters, and for tensors without values, torch's own
    operators stand in for the kernels; a compiler fuses those itself.

    Args:
        load: Imports the kernels when called, not before.
        share: Which share of a law's cases it gets where a launch takes milliseconds: interpreted.
        declared: What the implementation declares beside that.
    """
    share = share if os.environ.get("TRITON_INTERPRET") == "1" else 1.0
    return Implementation(
        name="triton", load=load, needs=frozenset({Need.TRITON}), share=share, **declared
    )
