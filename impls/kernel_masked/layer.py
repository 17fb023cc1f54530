"""Drop-in layers whose masked taps never act."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import impls.kernel_masked as variant
from harness.api import CaseError
from impls._shared.layer import ConvLayer, LazyConvLayer


class KernelMaskedConv(ConvLayer):
    """`torch.nn.ConvNd` with a constant mask over its taps; any rank.

    The mask is a buffer outside the state_dict: checkpoints of `torch.nn.ConvNd` load strictly,
    and none can change it.

    Args:
        kernel_mask: 1 = kept, shape `(*K)` or `(C_out|1, C_in/groups|1, *K)`; none keeps all taps.
        bias_where: `all`, or `support`: only where a kept tap lands on a present value.
    """

    kernel_mask: Tensor | None
    shown = ("bias_where",)

    def __init__(
        self, *args: Any, kernel_mask: Tensor | None = None, bias_where: str = "all", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.bias_where = bias_where
        self._constant_mask = None  # held apart from the buffer: `.to` would round its values
        if kernel_mask is not None:
            if tuple(kernel_mask.shape[-len(self.kernel_size) :]) != self.kernel_size:
                raise CaseError(
                    f"kernel_mask.shape={tuple(kernel_mask.shape)} must end in "
                    f"kernel_size={self.kernel_size}"
                )
            if not bool(((kernel_mask >= 0) & (kernel_mask <= 1)).all()):
                raise CaseError("kernel_mask must hold values in [0, 1]")
            binary = bool(((kernel_mask == 0) | (kernel_mask == 1)).all())
            kernel_mask = kernel_mask.detach().to("cpu", torch.bool if binary else None, copy=True)
            self._constant_mask = kernel_mask
            kernel_mask = kernel_mask.to(self.weight.device)
        self.register_buffer("kernel_mask", kernel_mask, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return `conv(x*m, w*k)` + bias term."""
        return variant.functional(
            x, self.weight, self.bias, self.kernel_mask, mask,
            bias_where=self.bias_where, **self.geometry(),
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Return the constructor's arguments; of the mask, its shape and how much it keeps."""
        mask = self.kernel_mask
        if mask is None:
            return super().extra_repr()
        told = f"kernel_mask={tuple(mask.shape)}"
        if not mask.is_meta:
            told += f" keeping {int((mask > 0).sum())} of {mask.numel()}"
        return f"{super().extra_repr()}, {told}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "KernelMaskedConv":
        """Apply `fn` to parameters and buffers; the mask keeps its values even in `to_empty`."""
        held = self.kernel_mask
        if held is not None and not held.is_meta:  # it may have been assigned since
            self._constant_mask = held.detach().cpu()
        super()._apply(fn, recurse)
        if self.kernel_mask is not None and not self.kernel_mask.is_meta:
            self.kernel_mask = self._constant_mask.to(self.kernel_mask.device)
        return self


class KernelMaskedConv1d(KernelMaskedConv, nn.Conv1d):
    """Over 1 spatial axis."""


class KernelMaskedConv2d(KernelMaskedConv, nn.Conv2d):
    """Over 2 spatial axes."""


class KernelMaskedConv3d(KernelMaskedConv, nn.Conv3d):
    """Over 3 spatial axes."""


class LazyKernelMaskedConv1d(LazyConvLayer, KernelMaskedConv1d):
    """Over 1 spatial axis, `in_channels` learned at the first call."""

    cls_to_become = KernelMaskedConv1d


class LazyKernelMaskedConv2d(LazyConvLayer, KernelMaskedConv2d):
    """Over 2 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = KernelMaskedConv2d


class LazyKernelMaskedConv3d(LazyConvLayer, KernelMaskedConv3d):
    """Over 3 spatial axes, `in_channels` learned at the first call."""

    cls_to_become = KernelMaskedConv3d
