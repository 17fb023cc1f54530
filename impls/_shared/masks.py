"""Applying a mask to a signal."""

from math import isfinite

import torch
from torch import Tensor


def present(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x * mask`, exactly 0 where `mask = 0`, whatever stands in `x` there.

    A bool mask costs one pass; a real one two, since NaN * 0 is NaN. What stands in a hole does
    not reach the mask's gradient either.
    """
    if mask.dtype == torch.bool:
        return x.masked_fill(~mask, 0)
    mask = mask.to(x.dtype)
    return x.masked_fill(mask == 0, 0) * mask


def present_by_product(x: Tensor, mask: Tensor) -> Tensor:
    """Return `present(x, mask)` as one product wherever that says the same.

    Selecting by a scattered mask costs about 4 ns per entry on a CPU, which no vector instruction
    helps; a product costs 0.1 ns. The two differ only where an absent entry is NaN or infinite,
    and then the sum of the products is not finite either: one reduction tells.
    """
    # elsewhere a selection is one fused pass, and reading a value waits; a product would give a
    # mask that is learned a gradient in its holes
    if x.device.type != "cpu" or torch.compiler.is_compiling() or mask.requires_grad:
        return present(x, mask)
    product = x * mask.to(x.dtype)
    try:
        harmless = isfinite(product.detach().sum().item())
    except RuntimeError:  # no value to read: a meta or fake tensor, or inside of vmap
        harmless = False
    return product if harmless else present(x, mask)
