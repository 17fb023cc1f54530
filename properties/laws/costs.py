"""What a call costs, counted instead of timed: operations, operators, memory."""

from dataclasses import replace

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import DIFFERENTIABLE, Trial
from harness.law import Law
from harness.meter import Count, SavedBytes, measure
from harness.tensors import each, leaves, make_tensors
from harness.variant import Ability, Role, Trait, Value
from properties.masked_cases import ONE_MASK_OF_TAPS, kernel_mask_name


def _counted(t: Trial, **replaced: Value) -> Count:
    given = leaves({**t.tensors, **replaced}).values()
    return measure(lambda: t(**replaced), given)


def _plain(t: Trial) -> Count:
    """Return what the library's convolution of the case counts, all sources as one signal."""
    kept = {name: word for name, word in t.case.options if name == "padding_mode"}
    bare = replace(t.case, sources=(), options=tuple(kept.items()))
    variant = t.variants["plain"]
    tensors, keywords = make_tensors(variant, bare, t.device), variant.call_keywords(bare)
    convolve = variant.reference.load()
    return measure(lambda: convolve(*tensors.values(), **keywords), leaves(tensors).values())


def _saved(t: Trial) -> int:
    names = set(t.names(*DIFFERENTIABLE))
    fresh: dict[str, Value] = {
        name: each(value, lambda v: v.detach().requires_grad_()) if name in names else value
        for name, value in t.tensors.items()
    }
    with SavedBytes(leaves(fresh).values()) as saved:
        kept = t(**fresh)
        total = saved.total
    del kept
    return total


def _costs(t: Trial, what: str, got: int) -> None:
    declared = t.declared(what)
    t.require(got == declared, f"{what}={got} where {declared} is declared")


def _not_copied(case: ConvCase) -> ConvCase | None:
    """Return `case` where the library reads every layout right, else a contiguous one, or None."""
    axes = zip(
        case.in_size, case.kernel_size, case.stride, case.padding, case.dilation, case.out_size,
        strict=True,
    )  # fmt: skip
    for size, k, s, p, d, count in axes:
        if not any(0 <= q * s - p + u * d < size for q in range(count) for u in range(k)):
            return None
    strided_tap = case.taps == 1 and max(case.stride) > 1
    return replace(case, layout="contiguous") if strided_tap else case


FLOPS_ARE_DECLARED = Law(
    id="C1",
    name="computes_what_it_declares",
    statement="counted flops = those declared",
    domain="implementations that declare theirs",
    check=lambda t: _costs(t, "flops", _counted(t).flops),
    of_costs="flops",
    share=0.5,
    rounds=True,
    about_oracle=False,
)

SAVED_BYTES_ARE_DECLARED = Law(
    id="C1b",
    name="keeps_what_it_declares",
    statement="bytes kept for the backward pass, those of arguments left out = those declared",
    domain="implementations that declare theirs; windows see a pixel of every axis, one tap "
    "with a stride is contiguous, and not bfloat16: other layouts are copied around defects of "
    "the library",
    dtypes=("float64", "float32", "float16"),
    within=_not_copied,
    check=lambda t: _costs(t, "saved_bytes", _saved(t)),
    of_costs="saved_bytes",
    share=0.5,
    rounds=True,
    about_oracle=False,
)


def _allocates_what_it_declares(t: Trial) -> None:
    most = t.declared("extra_bytes")
    assert most is not None
    extra = _counted(t).peak_bytes - _plain(t).peak_bytes
    t.require(extra <= most, f"extra_bytes={extra} where at most {most} are declared")


ALLOCATES_WHAT_IT_DECLARES = Law(
    id="C2",
    name="allocates_no_more_than_it_declares",
    statement="peak memory - peak memory of the plain convolution <= extra bytes declared",
    domain="implementations that declare theirs; without a gradient, outside of the library's "
    "kernels",
    check=_allocates_what_it_declares,
    of_costs="extra_bytes",
    share=0.5,
    rounds=True,
    about_oracle=False,
)


def _free_without_mask(t: Trial) -> None:
    got, plain = _counted(t, **dict.fromkeys(t.names(Role.MASK))), _plain(t)
    for what in ("kernels", "flops", "peak_bytes"):
        own, least = getattr(got, what), getattr(plain, what)
        t.require(own <= least, f"{what}={own} without a mask, {least} for the plain convolution")


FREE_WITHOUT_MASK = Law(
    id="C3",
    name="costs_nothing_without_a_mask",
    statement="operators, flops and peak memory of f(x, w, b) <= those of the plain convolution",
    domain="no mask; a bias that is added everywhere",
    requires=frozenset({Trait.FREE_WITHOUT_MASK}),
    within=lambda case: case.with_options(bias_where=None),
    check=_free_without_mask,
    share=0.5,
    rounds=True,
    about_oracle=False,
)


def _one_mask_for_all(case: ConvCase) -> ConvCase:
    """Let all filters and channels share one mask that keeps a tap, and add the bias everywhere."""
    empty = case.option("kernel_mask", "ones") == "zeros"
    shared = case.with_options(**ONE_MASK_OF_TAPS)
    return shared.with_options(kernel_mask="cross") if empty else shared


def _kept_share(t: Trial) -> None:
    kernel_mask = t.tensors[kernel_mask_name(t)]
    assert isinstance(kernel_mask, Tensor)
    kept = int(torch.count_nonzero(kernel_mask))
    if kept:
        counted, dense = _counted(t).flops, 2 * t.case.macs
        t.require(
            counted * t.case.taps == dense * kept,
            f"flops={counted} with {kept} of {t.case.taps} taps kept, {dense} with all",
        )


SKIPS_MASKED_TAPS = Law(
    id="K16",
    name="flops_are_the_kept_share",
    statement="counted flops = (kept taps / taps) * those of the dense convolution",
    domain="implementations that multiply no masked tap; one mask for all filters and channels, "
    "a tap or more kept, a bias that is added everywhere",
    requires=frozenset({Trait.MASKS_TAPS}),
    within=_one_mask_for_all,
    check=_kept_share,
    of_costs="flops",
    ability=Ability.SKIP_TAPS,
    share=0.5,
    rounds=True,
    about_oracle=False,
)
