"""A function and nothing else: no side effects, no memory, no care for layout or mood."""

import functools
from dataclasses import replace

import torch
from torch import Tensor

from harness.case import LAYOUTS, ConvCase
from harness.check import Trial
from harness.law import Law
from harness.tensors import each, lay_out, leaves
from harness.variant import Role, Value


def _inputs_are_untouched(t: Trial) -> None:
    given = leaves(t.tensors)
    before = {name: (tensor._version, tensor.clone()) for name, tensor in given.items()}
    outputs = t()
    t.gradients()
    for name, (version, value) in before.items():
        t.agree({name: given[name]}, {name: value}, what="after a call")
        t.require(given[name]._version == version, f"{name} was written to in place")
    owned = {tensor.untyped_storage().data_ptr(): name for name, tensor in given.items()}
    for name, value in outputs.items():
        source = owned.get(value.untyped_storage().data_ptr()) if value.numel() else None
        t.require(source is None, f"{name} shares memory with {source}")


INPUTS_ARE_UNTOUCHED = Law(
    id="G25",
    name="inputs_are_untouched",
    statement="f changes no argument, and no output shares memory with one",
    check=_inputs_are_untouched,
    zero_is_right=True,
)


def _forgets(t: Trial) -> None:
    first = t()
    others: dict[str, Value] = {
        n: t.another(n) for n in t.names(Role.SIGNAL, Role.WEIGHT, Role.BIAS)
    }
    others |= {name: each(t.tensors[name], _inverted) for name in t.names(Role.MASK)}
    t.agree(t(**others), t.truth(**others), t.bound(**others), "another call, after the first")
    t.agree(t(), first, what="the same call, another call between")


def _inverted(mask: Tensor) -> Tensor:
    return ~mask if mask.dtype == torch.bool else 1 - mask


STATELESS = Law(
    id="G26",
    aliases=("P16",),
    name="remembers_nothing",
    statement="f(a), f(b), f(a): the first and the last are equal, bit for bit",
    check=_forgets,
    zero_is_right=True,
)


def _empty(case: ConvCase) -> ConvCase:
    return replace(case, n=0)


def _zero_batch(t: Trial) -> None:
    t.agree(t(), t.truth(), t.bound())
    t.agree(t.gradients(), t.true_gradients(), what="gradient")


ZERO_BATCH = Law(
    id="G33",
    name="takes_an_empty_batch",
    statement="f of no samples is no samples, with gradients of zero",
    domain="n = 0",
    within=_empty,
    check=_zero_batch,
    zero_is_right=True,
)


def _ignores_layout(t: Trial) -> None:
    contiguous, twice = t(), {name: b.scaled(2) for name, b in t.bound().items()}
    for layout in LAYOUTS:
        arrange = functools.partial(lay_out, layout=layout)
        for role in (Role.SIGNAL, Role.WEIGHT):
            moved = {name: each(t.tensors[name], arrange) for name in t.names(role)}
            t.agree(t(**moved), contiguous, twice, f"{role} {layout}")
    for role in (Role.SIGNAL, Role.WEIGHT):
        moved = {name: each(t.tensors[name], _among_others) for name in t.names(role)}
        t.agree(t(**moved), contiguous, twice, f"{role} in the midst of a storage")


def _among_others(value: Tensor) -> Tensor:
    """Return the same values, contiguous, behind one entry of a storage that are others'."""
    storage = value.new_full([value.numel() + 2], float("nan"))
    return storage[1:-1].view(value.shape).copy_(value)


IGNORES_LAYOUT = Law(
    id="G23",
    name="ignores_memory_layout",
    statement="f(x) is the same for every layout of x and w in memory, wherever in a storage they begin",
    check=_ignores_layout,
)


def _ignores_default_dtype(t: Trial) -> None:
    usual = t()
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if kept != torch.float64 else torch.float32)
    try:
        unusual = t()
    finally:
        torch.set_default_dtype(kept)
    for name, value in usual.items():
        t.require(unusual[name].dtype == value.dtype, f"{name}.dtype follows the default dtype")
    t.agree(unusual, usual, what="under another default dtype")


IGNORES_DEFAULT_DTYPE = Law(
    id="G32",
    name="ignores_the_default_dtype",
    statement="f does not depend on torch.get_default_dtype()",
    check=_ignores_default_dtype,
    zero_is_right=True,
)
