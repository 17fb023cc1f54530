"""Convolutions by oneDNN where the library's own choice on one thread is a slow loop."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import ConvCase, per_channel
from impls._shared.convolution import convolve, laid_out_like, pad_by_mode, readable
from impls._shared.eager import Gradients, Rule, follow, is_eager

# Entries of a signal, its last axis left out, from which on PyTorch 2.13 takes oneDNN by itself.
_LIBRARY_TAKES_IT = 20_480
_IS_AVAILABLE = torch.backends.mkldnn.is_available()


class Geometry(NamedTuple):
    """Where the windows of a convolution lie."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int


def is_looped(x_shape: Sequence[int], kernel_size: Sequence[int], groups: int) -> bool:
    """Return whether PyTorch 2.13 convolves float32 in 3D by its slow loop, on one thread."""
    n, c_in, *size = x_shape
    if len(size) != 3 or groups > 1 or n != 1 or min(kernel_size[-2:]) > 3:
        return False
    if not _IS_AVAILABLE:
        return False
    return n * c_in * size[0] * size[1] <= _LIBRARY_TAKES_IT


def is_filled(
    x_shape: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int], groups: int
) -> bool:
    """Return whether PyTorch 2.13 writes the bias of a dilated convolution channel by channel.

    It does so before the product of matrices that takes the place of oneDNN for one small image: two
    operations a channel, up to four times what the rest takes.
    """
    n, c_in, *size = x_shape
    if groups > 1 or n != 1 or max(dilation) == 1 or min((1, *kernel_size)[-2:]) > 3:
        return False
    return c_in * prod(size[:2]) <= _LIBRARY_TAKES_IT


class SlowPaths(NamedTuple):
    """Where the library is slow: `is_looped` and `is_filled`."""

    looped: bool
    filled: bool


def slow_paths(
    x_shape: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int], groups: int,
    dtype: torch.dtype,
) -> SlowPaths:  # fmt: skip
    """Return both; oneDNN takes float32 alone in the place of the loop."""
    return SlowPaths(
        dtype is torch.float32 and is_looped(x_shape, kernel_size, groups),
        is_filled(x_shape, kernel_size, dilation, groups),
    )


def pays(case: ConvCase) -> bool:
    """Return whether the library would take its slow loop for `case`."""
    padded = case.option("padding_mode", "zeros") != "zeros"
    ring = case.padding if padded else (0,) * case.spatial_dims
    size = (s + 2 * p for s, p in zip(case.in_size, ring, strict=True))
    return is_looped((case.n, case.c_in, *size), case.kernel_size, case.groups)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Return `conv(x, w) + b` by the faster of both, seen by no autograd."""
    stride, padding, dilation, groups = geometry
    if not is_looped(x.shape, weight.shape[2:], groups):
        if bias is None or not is_filled(x.shape, weight.shape[2:], dilation, groups):
            return convolve(x, weight, bias, **geometry._asdict())
        y, column = convolve(x, weight, None, **geometry._asdict()), per_channel(bias, x)
        return y + column if y._is_view() else y.add_(column)
    given = x
    x, weight = readable(x, weight, stride, padding, dilation)
    y = torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, groups)
    return y if x is given else laid_out_like(given, y)


def backward(
    dy: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor, geometry: Geometry
) -> Gradients:
    """Return the gradients of signal, weight and bias, seen by no autograd."""
    stride, padding, dilation, groups = geometry
    x, weight = readable(x, weight, stride, padding, dilation)
    # of few channels its gradient of the signal is the slower one
    is_slow = needed[0] and x.shape[1] < 4
    looped = not is_slow and is_looped(x.shape, weight.shape[2:], groups)
    if looped:  # tensors of oneDNN's own type are its own to convolve
        dy, x = dy.to_mkldnn(), x.to_mkldnn()
    of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
        dy, x, weight, [weight.shape[0]], stride, padding, dilation, False, [0] * len(padding),
        groups, list(needed[:3]),
    )  # fmt: skip
    return of_x.to_dense() if looped and needed[0] else of_x, of_weight, of_bias


def convolve_faster(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding_mode: str = "zeros",
    **geometry: Any,
) -> Tensor:
    """Return what `convolve` returns, by oneDNN where the library would take its slow loop."""
    if padding_mode != "zeros" and any(geometry["padding"]):
        x = pad_by_mode(x, geometry["padding"], padding_mode)
        geometry["padding"] = [0] * len(geometry["padding"])
    if not (is_looped(x.shape, weight.shape[2:], geometry["groups"]) and is_eager(x, weight, bias)):
        return convolve(x, weight, bias, **geometry)
    return follow(_rule(Geometry(**geometry)), x, weight, bias)


def _rule(geometry: Geometry) -> Rule:
    def gradients(
        dy: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor, _: Tensor | None
    ) -> Gradients:
        return backward(dy, needed, x, weight, geometry)

    return Rule(
        partial(convolve, **geometry._asdict()), partial(forward, geometry=geometry), gradients
    )
