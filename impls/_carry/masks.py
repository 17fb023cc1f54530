"""Masks beside a signal: what is absent, and what a module hands on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import CaseError, named_padding, per_axis


class Carried(NamedTuple):
    """What a module that carries a mask returns.

    Args:
        output: The signal, 0 where nothing is present.
        mask: That of the output, `(1|N, 1|C, *S)`; None where none was given.
    """

    output: Tensor
    mask: Tensor | None


def holes(x: Tensor, mask: Tensor) -> Tensor:
    """Return where nothing of `x (N, C, *S)` is present, of the mask's shape.

    Args:
        x: Signal.
        mask: `(1|N, 1|C, *S)`, bool or real; present is what is above 0.

    Raises:
        CaseError: a mask of another shape.
    """
    leading = zip(mask.shape[:2], x.shape[:2], strict=False)
    fits = mask.dim() == x.dim() and mask.shape[2:] == x.shape[2:]
    if not fits or any(own not in (1, count) for own, count in leading):
        raise CaseError(
            f"mask.shape={tuple(mask.shape)} must be (1|{x.shape[0]}, 1|{x.shape[1]}, "
            f"*{tuple(x.shape[2:])}) for x.shape={tuple(x.shape)}"
        )
    return ~(mask > 0)


def filled(x: Tensor, absent: Tensor, value: float = 0) -> Tensor:
    """Return `x` with `value` where `absent`; no gradient leads there.

    channels_last stays, where the mask is shared or channels_last too; `masked_fill` would lose it
    and be 1.5 to 5 times as slow for a shared mask.
    """
    return torch.where(absent, value, x)


def without_holes(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x`, exactly 0 where nothing is present; no gradient leads there."""
    return filled(x, holes(x, mask))


def at_centres(mask: Tensor, module: Any, out_size: Sequence[int]) -> Tensor:
    """Return the mask at the centre of every window of a convolution, as `masked` has it.

    So a box at the origin stays one, of the size of the output that the box alone would have where
    the padding is half of the kernel's field. Several channels: present where one of the group is.

    Args:
        mask: `(1|N, 1|C_in, *S)`.
        module: A `torch.nn.ConvNd`: kernel_size, stride, padding, dilation, groups.
        out_size: Of the convolution's output.
    """
    kernel_size, dilation = module.kernel_size, module.dilation
    if isinstance(module.padding, str):
        sides = named_padding(module.padding, kernel_size, module.stride, dilation)
        before = tuple(side for side, _ in sides)
    else:
        before = per_axis("padding", module.padding, len(kernel_size))
    axes = zip(kernel_size, module.stride, before, dilation, out_size, strict=True)
    for axis, (k, s, p, d, count) in enumerate(axes, start=2):
        centres = torch.arange(count, device=mask.device) * s + (d * (k - 1) // 2 - p)
        mask = mask.index_select(axis, centres.clamp(0, mask.shape[axis] - 1))
    if mask.shape[1] == 1:
        return mask
    mask = mask.unflatten(1, (module.groups, -1)).amax(2)
    return mask if module.groups == 1 else mask.repeat_interleave(
        module.out_channels // module.groups, 1
    )  # fmt: skip
