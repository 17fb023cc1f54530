"""Tensors for a case: a family of values and a seed, never a list of elements."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.masks import make_mask
from harness.variant import Arg, Role, Shape, Value, Variant

# Largest magnitudes of integer fills: products of these stay exact in float32 for n_acc < 2^20.
LARGEST = {Role.SIGNAL: 4, Role.WEIGHT: 2, Role.BIAS: 2, Role.NOISE: 1}
# Of the fill `wide`, the end left out: float16 ends at 2^16, and a sum of products must stay below.
EXPONENTS = {"float16": (-8, 4)}
# Values of more entries than this are drawn anew each time: those of timed layers, not of laws.
MOST_KEPT = 2**12


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch dtype called `name`."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def make_tensors(variant: Variant, case: ConvCase, device: str = "cpu") -> dict[str, Value]:
    """Return the tensor arguments of `variant` for `case`, by name, on `device`.

    Floating-point tensors have the dtype of the case; signals are laid out as it says. The same
    case gives the same tensors on every machine and device.
    """
    tensors: dict[str, Value] = {}
    for arg in variant.args:
        shape = arg.shape(case)
        if shape is None:
            tensors[arg.name] = None
        elif _is_shape(shape):
            tensors[arg.name] = _make(variant, arg, case, shape, arg.name, device)
        else:
            tensors[arg.name] = tuple(
                None if part is None else _make(variant, arg, case, part, f"{arg.name}{i}", device)
                for i, part in enumerate(shape)
            )
    return tensors


def another(value: Tensor, case: ConvCase, role: Role, salt: str) -> Tensor:
    """Return a second tensor of the shape, dtype, device and fill of `value`, other in its values.

    The dtype of the case holds its values too, so that every precision draws the same.
    """
    drawn = _filled(tuple(value.shape), case, role, salt).to(torch_dtype(case.dtype))
    return drawn.to(device=value.device, dtype=value.dtype, copy=True)


def each(value: Value, function: Callable[[Tensor], Tensor]) -> Value:
    """Apply `function` to every tensor that `value` holds."""
    if isinstance(value, tuple):
        return tuple(None if part is None else function(part) for part in value)
    return None if value is None else function(value)


def leaves(tensors: Mapping[str, Value]) -> dict[str, Tensor]:
    """Return every tensor in `tensors`, sequences flattened to `name[i]`."""
    flat: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if isinstance(value, Tensor):
            flat[name] = value
        elif value is not None:
            flat |= {f"{name}[{i}]": part for i, part in enumerate(value) if part is not None}
    return flat


def _is_shape(shape: tuple[object, ...]) -> bool:
    return all(isinstance(entry, int) for entry in shape)


def _generator(seed: int, salt: str) -> torch.Generator:
    # The seed of the case alone, not its geometry: neighbours of a case keep their values' start.
    digest = hashlib.blake2s(f"{seed}/{salt}".encode(), digest_size=6).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def _make(
    variant: Variant, arg: Arg, case: ConvCase, shape: Shape, salt: str, device: str
) -> Tensor:
    if arg.role is Role.MASK:
        family = case.option(arg.name, variant.options[arg.name][0])
        mask = arg.make(case, shape, family) if arg.make else None
        mask = make_mask(shape, family, _generator(case.seed, salt)) if mask is None else mask
        as_bool = case.option("mask_dtype", "same") == "bool"
        return mask.to(device=device, dtype=torch.bool if as_bool else torch_dtype(case.dtype))
    value = _filled(shape, case, arg.role, salt)
    value = value.to(device=device, dtype=torch_dtype(case.dtype), copy=True)
    return lay_out(value, case.layout) if arg.role is Role.SIGNAL else value


def _filled(shape: Shape, case: ConvCase, role: Role, salt: str) -> Tensor:
    """Return values in float64 that are never to be written to: the next call may return them."""
    fill = _fill if prod(shape) > MOST_KEPT else _kept_fill
    return fill(
        shape, case.fill, case.seed, LARGEST[role], EXPONENTS.get(case.dtype, (-8, 9)), salt
    )


def _fill(
    shape: Shape, fill: str, seed: int, largest: int, exponents: tuple[int, int], salt: str
) -> Tensor:
    count, generator = prod(shape), _generator(seed, salt)
    if fill == "ones":
        return torch.ones(shape, dtype=torch.float64)
    if fill == "arange":
        return (torch.arange(count, dtype=torch.float64) % (2 * largest + 1) - largest).view(shape)
    if fill in ("exact", "sparse"):
        value = _integers(count, largest, generator).view(shape)
        if fill == "sparse":
            value *= torch.rand(shape, generator=generator) < 0.25
        return value
    value = torch.randn(shape, generator=generator, dtype=torch.float64)
    if fill == "wide":
        value *= torch.exp2(torch.randint(*exponents, shape, generator=generator).double())
    return value


# Hundreds of laws ask for the same few values of a drawn case.
_kept_fill = functools.lru_cache(maxsize=4096)(_fill)


def _integers(count: int, largest: int, generator: torch.Generator) -> Tensor:
    """Return whole numbers without 0, every run of `2 largest` of them a permutation.

    Neighbours differ, so that a swapped or repeated entry shows in the smallest tensors already.
    """
    block = torch.cat([torch.arange(1, largest + 1), -torch.arange(1, largest + 1)]).double()
    order = torch.rand(-(-count // len(block)), len(block), generator=generator).argsort(1)
    return block[order].flatten()[:count]


def lay_out(value: Tensor, layout: str) -> Tensor:
    """Return the same values in another memory layout; gaps hold NaN."""
    if layout == "contiguous" or value.dim() < 2:
        return value.contiguous()
    if layout == "transposed":
        return value.transpose(-1, value.dim() - 2).contiguous().transpose(-1, value.dim() - 2)
    if layout == "channels_last":
        if value.dim() < 3:
            return value
        return value.movedim(1, -1).contiguous().movedim(-1, 1)
    gaps = value.new_full([*value.shape[:-1], 2 * value.shape[-1] + 1], float("nan"))
    strided = gaps[..., 1::2]
    strided.copy_(value)
    return strided
