"""Partial convolution: every window divided by what of it is present."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.api import (
    ConvCase,
    Implementation,
    Kind,
    Role,
    Trait,
    Value,
    Variant,
    call,
    compiled,
)
from impls._shared.cases import QUICK, network_cases
from impls._shared.layer import layer_form, padding_of
from impls._shared.native import native_form
from impls._shared.shapes import (
    BIAS,
    INPUT_MASK,
    INPUT_MASK_FAMILIES,
    INPUT_MASK_SHAPES,
    PADDING_MODE,
    SIGNAL,
    WEIGHT,
)
from impls._shared.traits import CONVOLUTION
from impls._shared.triton_form import triton_form
from impls.partial.box_filter import by_box_filter
from impls.partial.costs import of_box_filter, of_convolved_mask, of_native
from impls.partial.layer import (
    LazyPartialConv1d,
    LazyPartialConv2d,
    LazyPartialConv3d,
    PartialConv1d,
    PartialConv2d,
    PartialConv3d,
)
from impls.partial.native import in_few_passes
from impls.partial.oracle import PartialOutput, coverage, partial
from impls.partial.reference import convolved_mask

__all__ = [
    "VARIANT", "LazyPartialConv1d", "LazyPartialConv2d", "LazyPartialConv3d", "PartialConv1d",
    "PartialConv2d", "PartialConv3d", "PartialOutput", "functional",
]  # fmt: skip


def _divides_exactly(case: ConvCase, tensors: Mapping[str, Value]) -> bool:
    """Whether every `win / coverage` is a power of two, so that dividing rounds nothing."""
    covered, win = coverage(
        tensors["x"], tensors["weight"], tensors["mask"], **VARIANT.call_keywords(case)
    )
    exponents = torch.log2(win / covered[covered > 0])
    return bool((exponents == exponents.round()).all())


def _layer_arguments(case: ConvCase, tensors: Mapping[str, Value]) -> dict[str, Any]:
    shared = case.option("mask_channels", "all") == "one"
    return padding_of(case, tensors) | {"multi_channel": not shared}


def _stored(case: ConvCase, direction: Role | None) -> int:
    """Return 1 each for x * m, the sum, its ratio and what the bias joins.

    The gradient of the bias passes its sum over the batch, its product with m', and m'.
    """
    real = case.option("mask", "ones") == "real"
    if direction is Role.BIAS:
        return 1 + 2 * real
    return real + 2 + (direction is None and case.bias)


def _load_triton() -> Callable[..., PartialOutput]:
    from impls.partial.triton_kernel import fused_epilogue

    return fused_epilogue


VARIANT = Variant(
    name="partial",
    equation="y = (conv(x*m, w) * win/coverage + b) * m', m' = min(coverage, 1)",
    source="Liu et al., ECCV 2018, arXiv 1804.07723, eq. (1)-(2); NVIDIA/partialconv",
    args=(SIGNAL, WEIGHT, BIAS, INPUT_MASK),
    oracle=partial,
    implementations=(
        Implementation(
            name="convolved_mask",
            kind=Kind.REFERENCE,
            load=lambda: convolved_mask,
            stored=_stored,
            cost=of_convolved_mask,
        ),
        native_form(lambda: in_few_passes, stored=_stored, cost=of_native),
        Implementation(
            name="box_filter", load=lambda: by_box_filter, stored=_stored, cost=of_box_filter
        ),
        triton_form(_load_triton, stored=_stored),
        compiled(lambda: by_box_filter),
    ),
    traits=frozenset(
        {
            *CONVOLUTION,
            Trait.AFFINE_IN_SIGNAL,
            Trait.LINEAR_IN_WEIGHT,
            Trait.BATCH_INDEPENDENT,
            Trait.SUBSAMPLES,
            Trait.ONES_UNPADDED_ARE_PLAIN,
            Trait.HOLES_INVISIBLE,
            Trait.SERVES_DIVERSE_SIZES,
            Trait.BROADCASTS_MASK,
            Trait.REWEIGHTS_BY_COVERAGE,
            Trait.ABSENCE_IS_PADDING,
            Trait.PADS_SIGNAL,
        }
    ),
    options={"mask": (*INPUT_MASK_FAMILIES, "none"), **INPUT_MASK_SHAPES, **PADDING_MODE},
    keywords={"padding_mode": str},
    exact=_divides_exactly,
    extra_roundings=lambda _: 4,  # win / coverage, its product with m', the product with y, + b*m'
    layer=layer_form(
        PartialConv1d,
        PartialConv2d,
        PartialConv3d,
        takes=("mask",),
        arguments=_layer_arguments,
    ),
    cases=network_cases(mask="bernoulli:0.5"),
    quick=QUICK,
)


def functional(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    padding: Any = 0,
    **options: Any,
) -> PartialOutput:
    """Return `y = (conv(x*m, w) * win/coverage + b) * m'` and `m' = min(coverage, 1)`.

    Args:
        x: Signal, shape `(N, C_in, *S)`; one sample, `(C_in, *S)`, is a batch of one, its mask too.
        weight: Taps, shape `(C_out, C_in/groups, *kernel_size)`.
        bias: Shape `(C_out,)`.
        mask: 1 = present, shape `(1|N, 1|C_in, *S)`, bool or real in [0, 1]; none = all present.
        padding: Per axis, or `'same'`, `'valid'`.
        options: `stride`, `dilation`, `groups`, `padding_mode`, `implementation`.

    Returns:
        The output, and the mask for the next layer: `(1|N, 1, *S_out)` for a shared mask or one
        group, else `(1|N, C_out, *S_out)`.

    Raises:
        CaseError: a geometry that cannot be, or a mask of another shape or range.
    """
    if padding == "same" and mask is None:
        # so that what is padded counts as absent
        rank = weight.dim() - 2
        mask = x.new_ones((*(1 for _ in x.shape[:-rank]), *x.shape[-rank:]))
    return call(VARIANT, (x, weight, bias, mask), padding=padding, **options)
