"""The convolution with masked taps as one matrix product per kept tap."""

from typing import Any

import torch
from torch import Tensor

from harness.api import per_channel, taps
from impls._shared.masks import present
from impls.kernel_masked.reference import multiplied_weight


def kept_taps(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_mask: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    bias_where: str = "all",
    **geometry: Any,
) -> Tensor:
    """Return `sum over kept u of (w*k)[..., u] @ (x*m)[window(u)]` + bias term.

    Multiplies exactly the taps that some filter keeps, whatever pattern they form.
    """
    if kernel_mask is None or kernel_mask.is_meta or torch.compiler.is_compiling():
        return multiplied_weight(
            x, weight, bias, kernel_mask, mask, bias_where=bias_where, **geometry
        )
    size = tuple(weight.shape[2:])
    keep = (kernel_mask.reshape(-1, *size) > 0).any(0)
    try:
        chosen = {tuple(u) for u in keep.nonzero().tolist()} or {(0,) * len(size)}
    except RuntimeError:  # no value to read: a fake tensor, or inside of vmap
        return multiplied_weight(
            x, weight, bias, kernel_mask, mask, bias_where=bias_where, **geometry
        )
    signal = x if mask is None else present(x, mask)
    y = _sum(signal, present(weight, kernel_mask), chosen, **geometry)
    if bias is None:
        return y
    term = per_channel(bias, y)
    if bias_where == "support":
        with torch.no_grad():
            seen = (x != 0) if mask is None else (mask > 0).expand_as(x)
            kept = (kernel_mask > 0).expand_as(weight)
            support = _sum(seen.to(x.dtype), kept.to(x.dtype), chosen, **geometry) > 0.5  # a count
        term = torch.where(support, term, 0.0)
    return y + term


def _sum(
    x: Tensor, weight: Tensor, chosen: set[tuple[int, ...]], *, groups: int, **geometry: Any
) -> Tensor:
    """Return the sum over the chosen taps."""
    filters = weight.unflatten(0, (groups, -1))
    y = None
    for tap, window in taps(x, weight.shape[2:], **geometry):
        out_size = window.shape[2:]
        if tap in chosen:
            term = torch.matmul(filters[(..., *tap)], window.unflatten(1, (groups, -1)).flatten(3))
            y = term if y is None else y + term
    assert y is not None
    return y.flatten(1, 2).unflatten(2, out_size)
