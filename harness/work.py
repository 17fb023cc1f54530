"""What a case asks for and what an implementation calls for: operations and bytes, per call.

Useful is what the definition needs: two operations per multiply-add of an entry that is present,
and every argument read and every result written once. Issued is what the operators of an
implementation were called for, whether it is needed or not; what a kernel does that is none of
torch's operators is not seen. The share of a ceiling follows from these and the time.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from harness.bound_call import Call
from harness.case import ConvCase
from harness.meter import Meter
from harness.tensors import leaves
from harness.variant import Role, Value, Variant

PRODUCTS = {"forward": 1, "backward": 3}
"""Convolutions of the same size: the output, and the gradients of signal and weight."""


class Work(NamedTuple):
    """Operations and bytes of one call; None is what cannot be told."""

    useful_flop: int | None = None
    issued_flop: int | None = None
    useful_bytes: int | None = None
    issued_bytes: int | None = None


def work_of(call: Call, tensors: Mapping[str, Value], *, counted: bool) -> Work:
    """Return the work of a call; `counted` says whether its operators can be."""
    direction = "backward" if call.backward else "forward"
    useful = useful_flop(call.variant, call.case, tensors) * PRODUCTS[direction]
    bound = call.bind(tensors)
    given = list(leaves(tensors).values())
    if not counted:
        return Work(useful, None, _least_bytes(call, bound, given), None)
    least = _least_bytes(call, bound, given)
    try:
        with Meter(given) as meter:
            call(bound)
    except Exception:  # noqa: BLE001 - a formula that does not fit: no count, and nobody's fault
        return Work(useful, None, least, None)
    return Work(useful, meter.count.flops or None, least, meter.count.moved_bytes)


def useful_flop(variant: Variant, case: ConvCase, tensors: Mapping[str, Value]) -> int:
    """Return the operations of the definition, forward: those on absent entries are not needed.

    Several masks multiply as if they were independent of each other.
    """
    macs = float(_macs(case, tensors, variant))
    for arg in variant.args:
        if arg.role is Role.MASK:
            for mask in leaves({arg.name: tensors[arg.name]}).values():
                macs *= _present(mask, case)
    return round(2 * macs)


def _macs(case: ConvCase, tensors: Mapping[str, Value], variant: Variant) -> int:
    """Return the multiply-adds; where there is a signal per source, the sum over sources."""
    names = {arg.role: arg.name for arg in reversed(variant.args)}
    signals, weights = tensors[names[Role.SIGNAL]], tensors[names[Role.WEIGHT]]
    if not (isinstance(signals, tuple) and isinstance(weights, tuple)):
        return case.macs
    return sum(
        case.n * weight.numel() * prod(case.out_size[axis] for axis in _axes(case, signal, weight))
        for signal, weight in zip(signals, weights, strict=True)
        if signal is not None and weight is not None
    )


def _axes(case: ConvCase, signal: Tensor, weight: Tensor) -> tuple[int, ...]:
    """Return the axes that a source spans: those of its sizes."""
    sizes, kernel = tuple(signal.shape[2:]), tuple(weight.shape[2:])
    for axes in itertools.combinations(range(case.spatial_dims), len(sizes)):
        if sizes == tuple(case.in_size[a] for a in axes) and kernel == tuple(
            case.kernel_size[a] for a in axes
        ):
            return axes
    return tuple(range(len(sizes)))


def _present(mask: Tensor, case: ConvCase) -> float:
    """Return the share of multiply-adds whose entry a mask keeps.

    A mask of the signal counts every position as often as windows cover it.
    """
    kept = (mask != 0).double()
    if tuple(mask.shape[2:]) == case.in_size:
        for axis, cover in enumerate(_covers(case), start=2):
            shape = [-1 if place == axis else 1 for place in range(kept.dim())]
            kept = kept * (cover / cover.mean().clamp(min=1e-300)).to(kept.device).view(shape)
    return float(kept.mean()) if kept.numel() else 1.0


def _covers(case: ConvCase) -> list[Tensor]:
    """Return per axis how many windows hold each position."""
    found = []
    for axis, size in enumerate(case.in_size):
        starts = torch.arange(case.out_size[axis]) * case.stride[axis] - case.padding[axis]
        taps = torch.arange(case.kernel_size[axis]) * case.dilation[axis]
        places = (starts[:, None] + taps).flatten()
        inside = places[(places >= 0) & (places < size)]
        found.append(torch.bincount(inside, minlength=size).double())
    return found


def _least_bytes(
    call: Call, bound: tuple[tuple[Value, ...], list[Tensor]], given: list[Tensor]
) -> int:
    """Return the bytes of all arguments and results, each moved once."""
    result = call(bound)
    outputs, gradients = call.read(result, _named(call, bound))
    moved = [*given, *outputs.values(), *gradients.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in moved)


def _named(call: Call, bound: tuple[tuple[Value, ...], list[Tensor]]) -> dict[str, Value]:
    return dict(zip(call.roles, bound[0], strict=True))
