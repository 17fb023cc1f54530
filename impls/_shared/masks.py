"""Applying a mask to a signal."""

import torch
from torch import Tensor


def present(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x * mask`, exactly 0 where `mask = 0`, whatever stands in `x` there.

    A bool mask costs one pass; a real one two, since NaN * 0 is NaN.
    """
    if mask.dtype == torch.bool:
        return x.masked_fill(~mask, 0)
    mask = mask.to(x.dtype)
    return (x * mask).masked_fill(mask == 0, 0)
