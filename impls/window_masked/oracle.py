"""The definition of the convolution with a mask for every window."""

from typing import Any

import torch
from torch import Tensor

from harness.api import per_channel, taps


def window_masked(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, *, groups: int, **geometry: Any
) -> Tensor:
    """Return `y[n,o,q] = b_o + sum_{c,u} w[o,c,u] m[n,c,u,q] x[n,c,q*s - p + u*d]`.

    Source: Jain, Abbeel, Pathak, "Locally masked convolution", UAI 2020, section 3.
    """
    filters = weight.unflatten(0, (groups, -1))
    y = x.new_zeros(())
    for tap, window in taps(x, weight.shape[2:], **geometry):
        masked = window * mask[(slice(None), slice(None), *tap)].to(x.dtype)
        y = y + torch.einsum(
            "ngc...,gkc->ngk...", masked.unflatten(1, (groups, -1)), filters[(..., *tap)]
        )
    y = y.flatten(1, 2)
    return y if bias is None else y + per_channel(bias, y)
