"""Masked convolution: the output is scaled by the mask's share at the centre of its window."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.api import (
    ConvCase,
    Domain,
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
from impls.masked.costs import of_native, of_pointwise_mask, of_sampled_centres
from impls.masked.layer import (
    LazyMaskedConv1d,
    LazyMaskedConv2d,
    LazyMaskedConv3d,
    MaskedConv1d,
    MaskedConv2d,
    MaskedConv3d,
)
from impls.masked.native import mixed_in_blocks
from impls.masked.oracle import MaskedOutput, masked
from impls.masked.reference import pointwise_mask
from impls.masked.sampled_centres import by_sampled_centres

__all__ = [
    "VARIANT", "LazyMaskedConv1d", "LazyMaskedConv2d", "LazyMaskedConv3d", "MaskedConv1d",
    "MaskedConv2d", "MaskedConv3d", "MaskedOutput", "functional",
]  # fmt: skip


def _divides_exactly(case: ConvCase, tensors: Mapping[str, Value]) -> bool:
    """Whether every `m'` is a multiple of 1/4 and its sums can be stored: then none is rounded."""
    updated = masked(*tensors.values(), **VARIANT.call_keywords(case)).mask
    if updated is None:
        return True
    importance = tensors["weight"].double().abs().flatten(2).sum(2)
    total = importance.sum(1)
    stored = [importance, total, updated.double() * total.view(-1, *(1 for _ in case.kernel_size))]
    dtype = getattr(torch, case.dtype)
    return torch.equal(updated * 4, (updated * 4).round()) and all(
        torch.equal(sums.to(dtype).double(), sums) for sums in stored
    )


def _extra_roundings(case: ConvCase) -> int:
    # both sums of the ratio, x * m, the division and its product with y
    return 2 * (case.taps + case.c_in // case.groups) + 3


def _stored(case: ConvCase, direction: Role | None) -> int:
    # m', the sum or dy * m', and x * m
    if case.option("mask", "ones") == "none":
        return 0
    real = case.option("mask", "ones") == "real" and case.option("apply_mask", "False") == "True"
    return 2 + (real and direction is not Role.BIAS)


def _cases() -> dict[str, str]:
    """Return a mask per channel in every layer, one for all channels in some."""
    shared = network_cases(mask="bernoulli:0.5", mask_channels="one")
    layers = ("resnet50_conv2", "unet_encoder", "unet_bottleneck_8x8", "unet3d_bottleneck")
    return network_cases(mask="bernoulli:0.5") | {f"{name}_shared": shared[name] for name in layers}


def _layer_arguments(case: ConvCase, tensors: Mapping[str, Value]) -> dict[str, Any]:
    apply_mask = case.option("apply_mask", "False") == "True"
    return padding_of(case, tensors) | {"apply_mask": apply_mask}


def _load_triton() -> Callable[..., MaskedOutput]:
    from impls.masked.triton_kernel import fused_epilogue

    return fused_epilogue


VARIANT = Variant(
    name="masked",
    equation="y = (conv(x, w) + b) * m', m' = sum_c A m[centre] / sum_c A, A = sum_u |w|",
    source="masked_torch README, with centres clamped into the image",
    args=(SIGNAL, WEIGHT, BIAS, INPUT_MASK),
    oracle=masked,
    implementations=(
        Implementation(
            name="pointwise_mask",
            kind=Kind.REFERENCE,
            load=lambda: pointwise_mask,
            stored=_stored,
            cost=of_pointwise_mask,
        ),
        native_form(lambda: mixed_in_blocks, stored=_stored, cost=of_native),
        Implementation(
            name="sampled_centres",
            load=lambda: by_sampled_centres,
            stored=_stored,
            cost=of_sampled_centres,
        ),
        triton_form(_load_triton, stored=_stored),
        compiled(lambda: by_sampled_centres),
    ),
    traits=frozenset(
        {
            *CONVOLUTION,
            Trait.AFFINE_IN_SIGNAL,
            Trait.BATCH_INDEPENDENT,
            Trait.SUBSAMPLES,
            Trait.ONES_ARE_PLAIN,
            Trait.BROADCASTS_MASK,
            Trait.SCALES_BY_MASK,
            Trait.FREE_WITHOUT_MASK,
            Trait.ABSENCE_IS_PADDING,
            Trait.DILATION_IS_STUFFING,
            Trait.PADS_SIGNAL,
        }
    ),
    domain=Domain(odd_kernels=True),
    options={
        "mask": (*INPUT_MASK_FAMILIES, "none"),
        **INPUT_MASK_SHAPES,
        **PADDING_MODE,
        "apply_mask": ("False", "True"),
    },
    keywords={"padding_mode": str, "apply_mask": lambda word: word == "True"},
    exact=_divides_exactly,
    extra_roundings=_extra_roundings,
    layer=layer_form(
        MaskedConv1d,
        MaskedConv2d,
        MaskedConv3d,
        takes=("mask",),
        arguments=_layer_arguments,
    ),
    cases=_cases(),
    quick=(*QUICK, "unet_bottleneck_8x8_shared", "unet3d_bottleneck_shared"),
)


def functional(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    **options: Any,
) -> MaskedOutput:
    """Return `y = (conv(x, w) + b) * m'` and `m'`; `(conv(x, w) + b, None)` without a mask.

    Args:
        x: Signal, shape `(N, C_in, *S)`; one sample, `(C_in, *S)`, is a batch of one, its mask too.
        weight: Taps, shape `(C_out, C_in/groups, *kernel_size)`, kernels odd on every axis.
        bias: Shape `(C_out,)`.
        mask: 1 = present, shape `(1|N, 1|C_in, *S)`, bool or real in [0, 1].
        options: `stride`, `padding`, `dilation`, `groups`, `padding_mode`, `implementation`, and
            `apply_mask`: whether `x` is masked first.

    Returns:
        The output, and the mask for the next layer: `(1|N, 1, *S_out)` for a shared mask, else
        `(1|N, C_out, *S_out)`.

    Raises:
        CaseError: a geometry that cannot be, or a mask of another shape or range.
    """
    return call(VARIANT, (x, weight, bias, mask), **options)
