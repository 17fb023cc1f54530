"""Errors: what is malformed is refused by every implementation, and nothing is broadcast."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from harness.call import call
from harness.case import CaseError
from harness.check import Trial
from harness.law import Law
from harness.tensors import each, torch_dtype
from harness.variant import Implementation, Kind, Role, Trait, Value, Variant
from properties.moves import spans

MASK_VALUES = (2.0, -1.0, float("nan"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A call that cannot be: what is wrong with it, and what is other than in the trial's."""

    wrong: str
    tensors: Mapping[str, Value] = field(default_factory=dict)
    keywords: Mapping[str, Any] = field(default_factory=dict)


@lru_cache
def _by_its_oracle(variant: Variant) -> Variant:
    """Return the variant whose public form computes what the oracle does."""
    oracle = Implementation(name="oracle", kind=Kind.REFERENCE, load=lambda: variant.oracle)
    return replace(variant, implementations=(oracle,))


def _status(t: Trial, malformed: Malformed, *, of_oracle: bool = False) -> Exception | None:
    """Return what the call raises, or None; of a stranger's callable, called as it is."""
    tensors = {**t.tensors, **malformed.tensors}.values()
    keywords = {**t.keywords, **malformed.keywords}
    try:
        if of_oracle:
            call(_by_its_oracle(t.variant), tuple(tensors), implementation="oracle", **keywords)
        elif t.implementation.origin:
            t.function(*tensors, **keywords)
        else:
            call(t.variant, tuple(tensors), implementation=t.implementation.name, **keywords)
    except Exception as error:  # noqa: BLE001 - any class is an answer
        return error
    return None


def _is_refused(t: Trial, malformed: Malformed) -> None:
    expected, got = _status(t, malformed, of_oracle=True), _status(t, malformed)
    t.require(isinstance(expected, CaseError), f"{malformed.wrong}: the oracle gives {expected!r}")
    t.require(got is not None, f"{malformed.wrong}: no error, but a result")
    same = bool(t.implementation.origin) or type(got) is type(expected)
    t.require(same, f"{malformed.wrong}: raises {got!r}, and the oracle {expected!r}")


# -- geometry and dtypes -------------------------------------------------------------------------


def _is_told(t: Trial, name: str) -> bool:
    """Whether a stranger's callable takes `name` at all; what it is never told it cannot refuse."""
    axes = zip(t.case.in_size, t.case.receptive_field, strict=True)
    roomy = tuple(size + 2 * field for size, field in axes)
    changed: dict[str, Any] = {name: (2,) * t.case.spatial_dims}
    if name == "groups":
        channels = {"c_in": 2 * t.case.c_in, "c_out": 2 * t.case.c_out}
        changed = {"groups": 2 * t.case.groups, "sources": tuple(2 * c for c in t.case.sources)}
        changed |= channels
    case = replace(t.case, in_size=roomy, **changed)
    return not t.implementation.origin or t.implementation.unsupported(case) is None


def _geometries(t: Trial) -> Iterator[Malformed]:
    case, rank = t.case, t.case.spatial_dims
    for name in (word for word in ("stride", "dilation") if _is_told(t, word)):
        for word, entry in (("zero", 0), ("negative", -1)):
            entries = (*(1,) * (rank - 1), entry)
            yield Malformed(wrong=f"{word} {name}", keywords={name: entries})
        yield Malformed(wrong=f"{name} with an axis too many", keywords={name: (1,) * (rank + 1)})
    for groups in (0, -1, case.c_in + 1) if _is_told(t, "groups") else ():
        yield Malformed(wrong=f"groups={groups}", keywords={"groups": groups})
    if "padding" in t.keywords and not t.implementation.origin:  # torch's layers crop by it
        negative = (*case.padding[:-1], -1)
        yield Malformed(wrong="negative padding", keywords={"padding": negative})
    weight = t.tensors["weight"]
    if isinstance(weight, Tensor) and "padding" in t.keywords:  # else it grows with the kernel
        side = case.in_size[-1] + 2 * case.padding[-1] + 1
        large = weight.new_ones((*weight.shape[:-1], side + (side % 2 == 0)))
        kernel = {"kernel_size": (*case.kernel_size[:-1], large.shape[-1])}
        yield Malformed(
            wrong="a kernel larger than the padded input", tensors={"weight": large},
            keywords=kernel if "kernel_size" in t.keywords else {},
        )  # fmt: skip


def _dtypes(t: Trial) -> Iterator[Malformed]:
    other = torch_dtype("float32" if t.case.dtype == "float64" else "float64")
    # a stranger's sum with a bias of another dtype promotes, as torch's sums do
    added = () if t.implementation.origin else (Role.BIAS, Role.NOISE)
    for name in t.names(Role.SIGNAL, Role.WEIGHT, *added):
        changed = each(t.tensors[name], lambda v: v.to(other))
        yield Malformed(wrong=f"{name} of another dtype", tensors={name: changed})


def _refuses_as_the_oracle_does(t: Trial) -> None:
    for malformed in (*_geometries(t), *_dtypes(t)):
        _is_refused(t, malformed)
    if not t.implementation.origin:
        for name in t.names(Role.MASK):
            mask = t.tensors[name]
            assert isinstance(mask, Tensor)
            for value in MASK_VALUES if mask.numel() else ():
                filled = torch.full_like(mask, value, dtype=torch.float32)
                _is_refused(t, Malformed(wrong=f"{name} of {value}", tensors={name: filled}))


REFUSES_AS_THE_ORACLE_DOES = Law(
    id="G2",
    name="refuses_what_the_oracle_refuses",
    statement="a geometry that cannot be, mixed dtypes or a mask outside of [0, 1] raises the "
    "class that the public form of the oracle raises",
    domain="the public form; a stranger's callable may raise another class, add a bias of another dtype, crop by a "
    "padding and take any mask value",
    check=_refuses_as_the_oracle_does,
    about_oracle=False,
    rounds=True,
    zero_is_right=True,
    share=0.3,
)


# -- shapes --------------------------------------------------------------------------------------


def _longer(value: Tensor, axis: int, more: int) -> Tensor:
    index = torch.arange(value.shape[axis] + more, device=value.device) % value.shape[axis]
    return value.index_select(axis, index)


def _shapes(t: Trial) -> Iterator[Malformed]:
    case = t.case
    more = 1 + max(case.n, case.c_in, case.c_out)  # other than any count that may be
    for name in t.names(Role.MASK, Role.WEIGHT, Role.BIAS):
        value = t.tensors[name]
        if not isinstance(value, Tensor):
            continue
        yield Malformed(wrong=f"{name} without its first axis", tensors={name: value[0]})
        for axis in range(value.dim()):
            longer = _longer(value, axis, more)
            is_count = axis in (0, 1) and name != "bias"
            # more filters or taps are another, well-formed weight
            if name != "weight" or (axis == 1 and value.dim() == case.spatial_dims + 2):
                yield Malformed(wrong=f"{name} longer on axis {axis}", tensors={name: longer})
            if value.shape[axis] > 1 and not is_count and name != "weight":
                short = value.narrow(axis, 0, 1)
                yield Malformed(wrong=f"{name} of size 1 on axis {axis}", tensors={name: short})
    for name in t.names(Role.SIGNAL):
        value = t.tensors[name]
        if isinstance(value, Tensor):
            yield Malformed(wrong=f"{name} with an axis too many", tensors={name: value[None]})
            yield Malformed(
                wrong=f"{name} with more channels", tensors={name: _longer(value, 1, 1)}
            )


def _never_broadcasts(t: Trial) -> None:
    for malformed in _shapes(t):
        _is_refused(t, malformed)


NEVER_BROADCASTS = Law(
    id="G43",
    name="never_broadcasts",
    statement="a mask, bias, weight or signal of a shape that the case does not ask for raises",
    check=_never_broadcasts,
    about_oracle=False,
    rounds=True,
    zero_is_right=True,
    share=0.3,
)


# -- sources -------------------------------------------------------------------------------------


def _disagreeing(t: Trial) -> Iterator[Malformed]:
    sources = t.tensors["x"]
    assert isinstance(sources, tuple)
    present = [i for i, source in enumerate(sources) if source is not None]
    spanned = spans(t.case.spatial_dims)
    for i in present if len(present) > 1 else ():
        source = sources[i]
        assert isinstance(source, Tensor)
        for axis, word in ((0, "of more samples"), (source.dim() - 1, "longer on its last axis")):
            beside = {a for j in present if j != i for a in spanned[j]}
            if axis and not {*spanned[i][-1:]} & beside:  # a size that no other source tells
                continue
            changed = (*sources[:i], _longer(source, axis, 1), *sources[i + 1 :])
            yield Malformed(wrong=f"source {i} {word}", tensors={"x": changed})
    for i in present:
        absent = (*sources[:i], None, *sources[i + 1 :])
        yield Malformed(wrong=f"no source {i}, which has a weight", tensors={"x": absent})


def _sources_agree(t: Trial) -> None:
    for malformed in _disagreeing(t):
        _is_refused(t, malformed)


SOURCES_AGREE = Law(
    id="S15",
    name="sources_that_disagree_are_refused",
    statement="sources of other sizes or samples than the rest, or without their weight's channels, "
    "raise",
    requires=frozenset({Trait.TAKES_SOURCES}),
    check=_sources_agree,
    about_oracle=False,
    rounds=True,
    zero_is_right=True,
    share=0.3,
)
