"""The convolution with masked taps, what the kept ones read gathered in C++."""

from typing import Any

from torch import Tensor

from harness.api import ConvCase
from impls._shared import native
from impls._shared.convolution import pad_by_mode
from impls._shared.eager import is_readable
from impls._shared.masks import present
from impls._shared.window_blocks import multiply_windows
from impls.kernel_masked.covers import cheapest_cover


def gathered_taps(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, kernel_mask: Tensor | None = None,
    mask: Tensor | None = None, *, bias_where: str = "all", padding_mode: str = "zeros",
    **geometry: Any,
) -> Tensor:  # fmt: skip
    """Return `sum over kept u of w[..., u] @ (x*m)[window(u)]` + bias term.

    What the kept taps of a block of outputs read stands side by side in a core's own cache and is
    multiplied by the kept part of the weight; depthwise, a plane stands there and is convolved. Masks
    that differ between filters or channels, hold fractions or keep no tap are left to covers.
    """
    kept = None
    if bias_where == "all" and kernel_mask is not None and native.takes(x, weight, bias):
        kept = _kept(kernel_mask, weight)
    if not kept:
        return cheapest_cover(
            x, weight, bias, kernel_mask, mask, bias_where=bias_where, padding_mode=padding_mode,
            **geometry,
        )  # fmt: skip
    signal = x if mask is None else present(x, mask)
    if padding_mode != "zeros" and any(geometry["padding"]):
        signal = pad_by_mode(signal, geometry["padding"], padding_mode)
        geometry["padding"] = (0,) * len(geometry["padding"])
    return multiply_windows(signal, weight, bias, None, kept, **geometry)


def may_pay(case: ConvCase) -> bool:
    """Return whether products can cost less than a cover, as far as sizes tell."""
    return case.groups in {1, case.c_in} and case.taps > 1


def _kept(kernel_mask: Tensor, weight: Tensor) -> list[int] | None:
    """Return the numbers of the taps that a mask of zeros and ones keeps for all filters alike."""
    taps = weight.shape[2:].numel()
    if kernel_mask.numel() != taps or kernel_mask.requires_grad or not is_readable(kernel_mask):
        return None
    values = kernel_mask.flatten().tolist()
    kept = [tap for tap, value in enumerate(values) if value == 1]
    return kept if len(kept) + values.count(0) == taps else None
