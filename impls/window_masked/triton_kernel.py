"""The convolution with a mask for every window, gathered as it is multiplied."""

from typing import Any

from torch import Tensor

from harness.api import per_channel
from impls._shared.triton_runtime import launches
from impls._shared.triton_taps import convolve_taps
from impls.window_masked.reference import unfolded


def gathered(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, **geometry: Any
) -> Tensor:
    """Return `y = sum_u w[u] (x[window(u)] * m[u]) + b`: the unfolded signal is never stored.

    A mask that is learned needs its own gradient: it takes the unfolded signal.
    """
    if mask.requires_grad or not launches(x, weight, bias, mask):
        return unfolded(x, weight, bias, mask, **geometry)
    y = convolve_taps(x, weight, mask=mask, **geometry)
    return y if bias is None else y + per_channel(bias, y)
