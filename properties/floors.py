"""Floors: the bare tensor operations under a goal, which no form of the operation avoids.

A floor is timed beside the goal. It runs the plain convolution by the fastest form that the table
has, and one operation per unavoidable pass over memory: no check, no view, no bookkeeping of
gradients, and what geometry or mask alone decide is there before. Where a floor is above the limit,
more tensor operations of the library do not meet it: a kernel that fuses the passes might.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.proof import Call
from harness.selection import fastest
from harness.table import load_table
from harness.tensors import make_tensors

TABLE = load_table()
Run = Callable[[], Any]
FEW = 8  # outputs: a product with so few rows is cheaper than a convolution
# Entries that some levels of a cache hold.
HELD = 1 << 18


def of_partial(case: ConvCase, direction: str, device: str) -> Run:
    """Time x * m, the sum of m over channels, the convolution and y * share; dy * share, dx * m."""
    plain, backward = _plain(case, direction, device), direction == "backward"
    kind, per_channel = case.option("mask", "none"), case.option("mask_channels", "all") == "all"
    padded = any(case.padding)
    depthwise = per_channel and case.groups > 1 and kind != "none"
    x = torch.ones(case.x_shape, device=device)
    mask = torch.ones_like(x if per_channel else x[:, :1])
    channels = case.c_out if depthwise else 1
    share = torch.ones((1, channels, *case.out_size), device=device)
    dy = torch.ones(case.out_shape, device=device)
    # of many entries, a product with ones is the cheaper sum over channels
    ones = torch.ones((1, case.c_in), device=device)
    by_product = device == "cpu" and case.c_in >= 32 and mask.numel() >= 2**19

    def run() -> None:
        if kind != "none":
            torch.mul(x, mask)
            if per_channel and case.groups < case.c_in:
                torch.matmul(ones, mask.flatten(2)) if by_product else mask.sum(1, keepdim=True)
        y, gradients = plain()
        if kind != "none" or padded:
            y.mul_(share)
        if backward and (kind != "none" or padded):
            torch.mul(dy, share)
        if backward and kind != "none":
            gradients[0].mul_(mask)

    return run


def of_masked(case: ConvCase, direction: str, device: str) -> Run:
    """Time the convolution, the mix of the mask's channels and y * m'; dy * m'."""
    plain, backward = _plain(case, direction, device), direction == "backward"
    kind, per_channel = case.option("mask", "none"), case.option("mask_channels", "all") == "all"
    channels = case.c_in if per_channel else 1
    sampled = torch.ones((case.n, channels, *case.out_size), device=device)
    mixed = per_channel and case.groups < case.c_in
    weight = torch.ones(case.weight_shape, device=device)
    ones = (1,) * case.spatial_dims
    importance = torch.ones((*case.weight_shape[:2], *ones), device=device)
    dy = torch.ones(case.out_shape, device=device)
    none = (0,) * case.spatial_dims

    def run() -> None:
        updated = sampled
        if mixed:
            weight.abs()
            updated = torch.convolution(
                sampled, importance, None, ones, none, ones, False, none, case.groups
            )
        y, _ = plain()
        if kind != "none":
            y.mul_(updated)
            if backward:
                torch.mul(dy, updated)

    return run


def of_multi_source(case: ConvCase, direction: str, device: str) -> Run:
    """Time every source's own convolution, and a pass over y for each that lacks one axis.

    What lacks more joins those; of a few outputs the products with the weights alone are timed.
    """
    plain, backward = _plain(case, direction, device), direction == "backward"
    tensors = make_tensors(TABLE.variant("multi_source"), case, device)
    rank = case.spatial_dims
    small = [
        (x, weight) for x, weight in zip(tensors["x"][1:], tensors["weight"][1:], strict=True)
        if x is not None
    ]  # fmt: skip
    own = [_own_axes(x, weight, case) for x, weight in small]
    spread = [_spread(x, weight, case) for x, weight in small if x.dim() == rank + 1 > 2]

    def run() -> None:
        for convolve in own:
            for _ in range(3 if backward else 1):  # of the signal and of the weight, too
                convolve()
        y, _ = plain()
        for term in spread:
            y.add_(term)
            if backward:
                y.sum(2)  # of all axes the cheapest to sum along

    return run


def of_tile_concat(case: ConvCase, direction: str, device: str) -> Run:
    """Time what the outputs inside need, as of several sources whose sums of taps stand ready.

    The image has its convolution, every tiled source one over its own axes; the border comes on top.
    """
    return of_multi_source(case, direction, device)


def of_window_masked(case: ConvCase, direction: str, device: str) -> Run:
    """Time the product of every tap with its mask, and the products of matrices over all taps.

    Some outputs at a time, in the same memory, so that the cache holds it.
    """
    backward, groups, rows = direction == "backward", case.groups, case.n_acc
    blocks, count = _blocks(prod(case.out_size), groups * rows, device)
    own = case.option("mask_channels", "all") == "all"
    windows = torch.ones((groups, rows // case.taps, case.taps, count), device=device)
    mask = torch.ones_like(windows if own else windows[:1, :1])
    columns, of_columns = torch.ones_like(windows), torch.ones_like(windows)
    seen, of_seen = (each.view(groups, rows, count) for each in (columns, of_columns))
    filters = torch.ones((groups, case.c_out // groups, rows), device=device)
    y, of_filters = filters.new_ones(groups, case.c_out // groups, count), torch.ones_like(filters)

    def run() -> None:
        for _ in range(case.n * blocks):
            torch.mul(windows, mask, out=columns)
            torch.bmm(filters, seen, out=y)
            if backward:
                torch.bmm(y, seen.mT, out=of_filters)
                torch.bmm(filters.mT, y, out=of_seen)
                of_columns.mul_(mask)

    return run


def of_kernel_masked(case: ConvCase, direction: str, device: str) -> Run:
    """Time the products of matrices with the kept taps; what they read stands side by side before.

    Some outputs at a time, so that the cache holds what is read. One product runs at the peak of
    the processor: the library's convolution of as many taps is no faster.
    """
    mask = make_tensors(TABLE.variant("kernel_masked"), case, "cpu")["kernel_mask"]
    rows = case.n_acc // case.taps * max(1, int((mask > 0).sum()))
    backward, (blocks, count) = direction == "backward", _blocks(prod(case.out_size), rows, device)
    filters = torch.ones((case.c_out // case.groups, rows), device=device)
    columns = torch.ones((rows, count), device=device)
    y = torch.ones((case.c_out // case.groups, count), device=device)
    of_filters, of_columns = torch.ones_like(filters), torch.ones_like(columns)

    def run() -> None:
        for _ in range(case.n * case.groups * blocks):
            torch.mm(filters, columns, out=y)
            if backward:
                torch.mm(y, columns.t(), out=of_filters)
                torch.mm(filters.t(), y, out=of_columns)

    return run


def of_diff(case: ConvCase, direction: str, device: str) -> Run:
    """Time the copy into a wider image, one product per axis, and the convolution without padding.

    Backward: what the gradient of the wider image gives back, one product per axis.
    """
    border = [d * (k - 1) for k, d in zip(case.kernel_size, case.dilation, strict=True)]
    wide = tuple(size + ring for size, ring in zip(case.in_size, border, strict=True))
    none = (0,) * case.spatial_dims
    plain = _plain(replace(case, in_size=wide, padding=none), direction, device)
    x = torch.ones(case.x_shape, device=device)
    sides = [
        torch.ones((ring, x.numel() // size), device=device)
        for ring, size in zip(border, case.in_size, strict=True)
        if ring
    ]
    buffer = torch.ones((*case.x_shape[:2], *wide), device=device)
    inner = buffer
    for axis, (ring, size) in enumerate(zip(border, case.in_size, strict=True), start=2):
        inner = inner.narrow(axis, ring // 2, size)

    def run() -> None:
        if sides:
            inner.copy_(x)
        for side in sides:
            side.mul(3)
            if direction == "backward":
                side.mul(3)
        plain()

    return run


def of_explicit(case: ConvCase, direction: str, device: str) -> Run:
    """Time the convolution of the interior, and the border as products with every class' kernel.

    The outputs are spread evenly over the classes; their windows stand side by side beforehand, as
    rows: few of them are multiplied several times as fast as lying.
    """
    none, inside = (0,) * case.spatial_dims, prod(_inside(case))
    plain = _plain(replace(case, padding=none), direction, device) if inside else None
    outputs = prod(case.out_size) - inside
    classes = max(1, min(case.taps - 1, outputs)) * case.groups
    count = max(1, case.n * outputs * case.groups // classes)
    kernels = torch.ones((classes, case.c_out // case.groups, case.n_acc), device=device)
    windows = torch.ones((classes, count, case.n_acc), device=device)
    dy = torch.ones((classes, count, case.c_out // case.groups), device=device)

    def run() -> None:
        if plain is not None:
            plain()
        if outputs:
            torch.bmm(windows, kernels.mT)
        if outputs and direction == "backward":
            torch.bmm(dy.mT, windows)
            torch.bmm(dy, kernels)

    return run


# -- parts -------------------------------------------------------------------------------------


def _blocks(outputs: int, rows: int, device: str) -> tuple[int, int]:
    """Return in how many blocks of how many outputs a cache holds so many rows, all alike."""
    if device != "cpu":
        return 1, outputs
    blocks = -(-outputs // min(outputs, max(64, HELD // rows)))
    return blocks, -(-outputs // blocks)


def _plain(case: ConvCase, direction: str, device: str) -> Callable[[], tuple[Tensor, Any]]:
    """Return the call of the plain convolution: its output, its gradients if any are asked for."""
    variant = TABLE.variant("plain")
    image = case.sources[0] if case.sources else case.c_in
    bare = replace(case, c_in=image, sources=(), options=())
    call = Call(variant, fastest(variant, bare, device), bare, direction)
    bound = call.bind(make_tensors(variant, bare, device))

    def run() -> tuple[Tensor, Any]:
        result = call(bound)
        return (result[0].detach(), result[1]) if direction == "backward" else (result, ())

    return run


def _own_axes(x: Tensor, weight: Tensor, case: ConvCase) -> Run:
    """Return the convolution of a source along as many axes as it has, each like the first.

    Of a few outputs it is the product of their windows, which stand ready, with the weights.
    """
    rank = x.dim() - 2
    outputs = case.n * prod(case.out_size[:rank])
    if not rank or outputs <= FEW:
        windows = torch.ones((outputs, weight[0].numel()), device=x.device)
        return lambda: torch.mm(windows, weight.flatten(1).t())
    alike = ((values[0],) * rank for values in (case.stride, case.padding, case.dilation))
    stride, padding, dilation = alike
    none = (0,) * rank
    return lambda: torch.convolution(x, weight, None, stride, padding, dilation, False, none, 1)


def _spread(x: Tensor, weight: Tensor, case: ConvCase) -> Tensor:
    """Return a term of the shape in which a source joins the output, along its last axes."""
    rank = x.dim() - 2
    size: Sequence[int] = (1,) * (case.spatial_dims - rank) + case.out_size[-rank:]
    return torch.ones((case.n, weight.shape[0], *size), device=x.device)


def _inside(case: ConvCase) -> list[int]:
    """Return how many outputs along each axis see no padding."""
    axes = zip(
        case.in_size, case.out_size, case.stride, case.padding, case.receptive_field, strict=True
    )
    return [
        max(0, min(out - 1, (size + p - field) // s) - -(-p // s) + 1)
        for size, out, s, p, field in axes
    ]
