"""Tiled sources by sums of the taps that land in the image, forward and backward as one."""

from collections.abc import Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared import onednn
from impls._shared.eager import Gradients, Rule
from impls._shared.onednn import Geometry
from impls._shared.sources import on_axes, source_axes
from impls.tile_concat.tiles import Tile, repeated, tile_of

# Measured on one CPU core: of so few outputs their windows are copied sooner than weights summed.
FEW = 8


class Own(NamedTuple):
    """One source: how it is convolved over the axes that it spans, and what it joins.

    Along an axis that it is tiled along, outputs of whose windows the same taps land in the image
    are one class: a sum of taps for each.

    Args:
        place: Among the sources.
        axes, tiled: Those that it spans, and the others.
        into: The place of the smallest source there is that spans them and more, or its own.
        missing: The axes that it is tiled along and that one is not.
        taps: How many taps there are along the tiled axes.
        classes: How many classes there are along every tiled axis.
        inside: Which of the taps are in the sum of each class, `(classes, taps)`.
        sums: The same as numbers; none where it is one tap for one class.
        apart: The order of dimensions that brings the tiled axes of a weight before the others.
        joined: The order that brings `(N, *classes, C_out, *out_size of axes)` to that of space.
        geometry: Of its convolution.
        short: Over all axes, how far the source is tiled and padded, where it has so few outputs
            that their windows times the weights as they are cost less than sums of taps.
    """

    place: int
    axes: Shape
    tiled: Shape
    into: int
    missing: Shape
    taps: int
    classes: Shape
    inside: Tensor
    sums: Tensor | None
    apart: Shape
    joined: Shape
    geometry: Geometry
    short: "Short | None"


class Short(NamedTuple):
    """A short tile over all axes, and its windows."""

    size: Shape
    kernel_size: Shape
    stride: Shape
    padding: Shape
    dilation: Shape

    @property
    def options(self) -> tuple[Shape, Shape, Shape, Shape]:
        """Return what tells the windows, in the order of `torch.nn.functional.unfold`."""
        return self.kernel_size, self.dilation, self.padding, self.stride


class Plan(NamedTuple):
    """What geometry alone decides: the sources that are there, smallest first, and the tiles."""

    owns: tuple[Own, ...]
    tiles: tuple[Tile, ...]


@lru_cache(maxsize=64)
def plan_of(
    present: tuple[bool, ...], size: Shape, kernel_size: Shape, stride: Shape, padding: Shape,
    dilation: Shape,
) -> Plan:  # fmt: skip
    """Return the plan of sources of which the widest is there, padded with zeros."""
    rank, spans = len(size), source_axes(len(size))
    axes = list(zip(size, kernel_size, stride, padding, dilation, strict=True))
    tiles = tuple(tile_of(*axis, "zeros") for axis in axes)
    with torch.inference_mode(False), torch.no_grad():  # it is shared by all modes
        inside = [_inside(tile, *axis[1:]) for tile, axis in zip(tiles, axes, strict=True)]
        places = [place for place, is_there in enumerate(present) if is_there]
        owns = []
        for place in reversed(places):
            own = spans[place]
            tiled = tuple(axis for axis in range(rank) if axis not in own)
            into = max((i for i in places if set(own) < set(spans[i])), default=place)
            which = torch.ones((1, 1), dtype=torch.bool, device="cpu")
            for axis in tiled:
                which = torch.kron(which, inside[axis])
            dims = [1 + tiled.index(a) if a in tiled else 2 + len(tiled) + own.index(a)
                    for a in range(rank)]  # fmt: skip
            geometry = Geometry(
                *(on_axes(values, own) for values in (stride, padding, dilation)), 1
            )
            owns.append(Own(
                place, own, tiled, into, tuple(axis for axis in tiled if axis in spans[into]),
                prod(on_axes(kernel_size, tiled)), tuple(len(inside[axis]) for axis in tiled),
                which, None if which.numel() == 1 and which else which.to(torch.float32),
                (*(2 + a for a in tiled), 0, 1, *(2 + a for a in own)),
                (0, 1 + len(tiled), *dims), geometry, _short(own, axes, tiles),
            ))  # fmt: skip
    return Plan(tuple(owns), tiles)


def _short(own: Shape, axes: Sequence[tuple[int, ...]], tiles: Sequence[Tile]) -> Short | None:
    """Return the short tile of a source that spans one of two axes, if few outputs lie along it."""
    if len(axes) != 2 or len(own) != 1:
        return None
    size, kernel, stride, padding, dilation = axes[own[0]]
    if (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 > FEW:
        return None
    sizes = [(axis[0], axis[3]) if at in own else (tile.size, tile.padding)
             for at, (axis, tile) in enumerate(zip(axes, tiles, strict=True))]  # fmt: skip
    columns = list(zip(*axes, strict=True))
    return Short(
        tuple(size for size, _ in sizes), columns[1], columns[2],
        tuple(ring for _, ring in sizes), columns[4],
    )  # fmt: skip


def _inside(tile: Tile, taps: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return which taps of every class land in the image, `(classes, taps)`."""
    padding = tile.padding and padding
    count = (tile.size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    first = torch.arange(count, device="cpu")[:, None] * stride - padding
    at = first + torch.arange(taps, device="cpu") * dilation
    return (at >= 0) & (at < tile.size)


def rule_of(plan: Plan, plain: Any) -> Rule:
    """Return the rule whose tensors are the sources, the weight and the bias."""
    return Rule(plain, partial(_forward, plan), partial(_backward, plan))


def _forward(plan: Plan, *tensors: Tensor | None) -> Tensor:
    *x, weight, bias = tensors
    assert weight is not None
    waiting: list[tuple[Own, Tensor]] = []
    parts = _parts(weight, x)
    for own in plan.owns:
        source, part = x[own.place], parts[own.place]
        if not own.tiled:
            y = onednn.forward(source, part, bias, own.geometry)
        else:
            y = _term(own, source, part, bias)
        for other, term in waiting:
            if other.into == own.place:
                *before, last = other.missing
                term = repeated(plan.tiles, term, before)
                _add_classes(y, term, last, plan.tiles[last])
        bias = None
        waiting.append((own, y))
    return y


def _parts(weight: Tensor, x: Sequence[Tensor | None]) -> Sequence[Tensor]:
    """Return the weights of every source, as views."""
    return weight.split([0 if source is None else source.shape[1] for source in x], 1)


def _term(own: Own, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what a tiled source adds to every class, in the order of space."""
    n, filters = len(x), weight.shape[0]
    if not own.axes:
        y = torch.nn.functional.linear(_columns(own, x), weight.reshape(filters, -1), bias)
        return y.view(n, *own.classes, filters).permute(own.joined)
    if own.short:
        columns = _windows(own, own.short, x)
        y = torch.nn.functional.linear(columns, weight.reshape(filters, -1), bias)
        return y.view(n, *_outputs(own, x), filters).movedim(-1, 1)
    y = onednn.forward(x, _summed(own, weight), None, own.geometry)
    y = y.reshape(n, *own.classes, filters, *y.shape[2:]).permute(own.joined)
    return y if bias is None else y.add_(bias.view(-1, *(1,) * (y.dim() - 2)))


def _columns(own: Own, x: Tensor) -> Tensor:
    """Return a scalar source at the taps that land in the image: a row per sample and class."""
    zero = x.new_zeros(())
    columns = torch.where(own.inside[:, None], x[:, None, :, None], zero)
    return columns.reshape(len(x) * len(own.inside), -1)


def _windows(own: Own, short: Short, x: Tensor) -> Tensor:
    """Return the windows of a short tile: a row per sample and output, in the order of space."""
    tile = x.unsqueeze(2 + own.tiled[0]).expand(*x.shape[:2], *short.size)
    columns = torch.nn.functional.unfold(tile, *short.options)
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])


def _outputs(own: Own, x: Tensor) -> list[int]:
    """Return how many outputs a short tile has along both axes."""
    (size,), (s,), (p,), (d,) = x.shape[2:], *own.geometry[:3]
    assert own.short is not None
    along = (size + 2 * p - d * (own.short.kernel_size[own.axes[0]] - 1) - 1) // s + 1
    return [along if axis in own.axes else own.classes[0] for axis in range(2)]


def _summed(own: Own, weight: Tensor) -> Tensor:
    """Return the sums of taps of every class as filters, `(classes * C_out, C, *taps of axes)`."""
    apart = weight.permute(own.apart)
    shape = apart.shape[len(own.tiled) :]
    if own.sums is not None:
        apart = torch.mm(own.sums, apart.reshape(own.taps, -1))
    return apart.reshape(-1, *shape[1:])


def _add_classes(total: Tensor, term: Tensor, axis: int, tile: Tile) -> None:
    """Add to outputs along `axis` what is known per class."""
    dim, (_, _, before, repeats) = 2 + axis, tile
    classes = term.shape[dim]
    if classes == 1 or repeats == 1:  # a class of every output
        total.add_(term)
        return
    behind = classes - before - 1
    outputs = total.split([before, repeats, behind], dim)
    for output, added in zip(outputs, term.split([before, 1, behind], dim), strict=True):
        output.add_(added)


def _of_classes(dy: Tensor, axis: int, tile: Tile) -> Tensor:
    """Return the sum of `dy` over the outputs of every class along `axis`."""
    dim, (_, _, before, repeats) = 2 + axis, tile
    if repeats == 1:
        return dy
    if repeats == dy.shape[dim]:
        return dy.sum(dim, keepdim=True)
    behind = dy.shape[dim] - before - repeats
    first, inner, last = dy.split([before, repeats, behind], dim)
    return torch.cat([first, inner.sum(dim, keepdim=True), last], dim)


def _backward(plan: Plan, dy: Tensor, needed: Sequence[bool], *tensors: Tensor | None) -> Gradients:
    *x, weight, _ = tensors
    assert weight is not None
    found: list[Tensor | None] = [None] * len(tensors)
    parts, reached = _parts(weight, x), {0: dy}
    of_weight: Tensor | None = None
    targets: list[Tensor] = []
    for own in reversed(plan.owns):
        at = own.place
        asked = (needed[at], needed[-2], False)
        if not own.tiled:
            found[at], of_image, _ = onednn.backward(dy, asked, x[at], parts[at], own.geometry)
            if of_image is not None:
                # not before: until here the library holds most
                of_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
                targets = _parts(of_weight, x)
                targets[0].copy_(of_image)
                del of_image
            continue
        gradient = reached[own.into]
        for axis in own.missing:
            gradient = _of_classes(gradient, axis, plan.tiles[axis])
        reached[at] = gradient
        target = targets[at] if needed[-2] else None
        found[at] = _gradients(own, gradient, needed[at], x[at], parts[at], target)
    found[-2] = of_weight
    if needed[-1]:
        smallest = reached[plan.owns[0].place]
        found[-1] = smallest.sum([0, *range(2, smallest.dim())])
    return found


def _gradients(
    own: Own, dy: Tensor, needs_x: bool, x: Tensor, weight: Tensor, target: Tensor | None
) -> Tensor | None:
    """Return the gradient of a tiled source; write that of its weights to `target`."""
    n, filters = len(x), weight.shape[0]
    if own.short:
        rows, tile = dy.movedim(1, -1).reshape(-1, filters), own.short
        if target is not None:
            torch.mm(rows.t(), _windows(own, tile, x), out=target.view(filters, -1))
        if not needs_x:
            return None
        columns = torch.mm(rows, weight.reshape(filters, -1)).view(n, -1, weight[0].numel())
        of_tile = torch.nn.functional.fold(columns.transpose(1, 2), tile.size, *tile.options)
        return of_tile.sum(2 + own.tiled[0])
    order = [own.joined.index(dim) for dim in range(dy.dim())]
    if not own.axes:
        rows = dy.permute(order).reshape(-1, filters)
        if target is not None:
            torch.mm(rows.t(), _columns(own, x), out=target.view(filters, -1))
        if not needs_x:
            return None
        found = torch.mm(rows, weight.reshape(filters, -1)).view(n, -1, x.shape[1], own.taps)
        return torch.where(own.inside[:, None], found, found.new_zeros(())).sum((1, 3))
    classes = dy.permute(order).reshape(n, -1, *on_axes(dy.shape[2:], own.axes))
    of_x, of_sums, _ = onednn.backward(
        classes, (needs_x, target is not None, False), x, _summed(own, weight), own.geometry
    )
    if target is not None:
        apart = target.permute(own.apart)
        if own.sums is not None:
            of_sums = torch.mm(own.sums.t(), of_sums.reshape(len(own.sums), -1))
        apart.copy_(of_sums.reshape(apart.shape))
    return of_x
