"""The convolution whose kernel is masked anew at every output position."""

from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor

from harness.api import (
    Arg,
    CaseError,
    ConvCase,
    Implementation,
    Kind,
    Role,
    Shape,
    Trait,
    Variant,
    call,
    compiled,
)
from impls._shared import window_blocks
from impls._shared.cases import QUICK, network_cases
from impls._shared.costs import of_products
from impls._shared.layer import layer_form
from impls._shared.native import native_form
from impls._shared.shapes import BIAS, INPUT_MASK_FAMILIES, INPUT_MASK_SHAPES, SIGNAL, WEIGHT
from impls._shared.traits import CONVOLUTION
from impls._shared.triton_form import triton_form
from impls.window_masked.layer import (
    LazyWindowMaskedConv1d,
    LazyWindowMaskedConv2d,
    LazyWindowMaskedConv3d,
    WindowMaskedConv1d,
    WindowMaskedConv2d,
    WindowMaskedConv3d,
)
from impls.window_masked.native import masked_in_blocks, of_native
from impls.window_masked.oracle import window_masked
from impls.window_masked.output_blocks import by_output_blocks, count_blocks, of_blocks
from impls.window_masked.reference import unfolded
from impls.window_masked.tap_chunks import CHUNK, by_tap_chunks

__all__ = [
    "VARIANT", "LazyWindowMaskedConv1d", "LazyWindowMaskedConv2d", "LazyWindowMaskedConv3d",
    "WindowMaskedConv1d", "WindowMaskedConv2d", "WindowMaskedConv3d", "functional",
]  # fmt: skip


def _mask_shape(case: ConvCase) -> Shape:
    """Return `(1|N, 1|C_in, *K, *S_out)` by the options `mask_batch`, `mask_channels`."""
    batch = 1 if case.option("mask_batch", "all") == "one" else case.n
    channels = 1 if case.option("mask_channels", "all") == "one" else case.c_in
    return (batch, channels, *case.kernel_size, *case.out_size)


def _cases() -> dict[str, str]:
    """Return one mask for all channels, as the paper has it, and per channel in some layers."""
    shared = network_cases(mask="bernoulli:0.5", mask_channels="one")
    own = network_cases(mask="bernoulli:0.5")
    layers = ("unet_encoder", "resnet50_conv2")
    return shared | {f"{name}_channels": own[name] for name in layers}


def _is_real(case: ConvCase) -> bool:
    return case.option("mask", "ones") == "real"


def _stored(case: ConvCase, direction: Role | None) -> int:
    # x * m, the sum that the bias joins; per tap what a sample is read for, filters per sample
    further = {None: case.bias, Role.SIGNAL: case.taps, Role.WEIGHT: 1}
    return further.get(direction, 0) + (direction is not Role.BIAS and _is_real(case))


def _stored_by_chunks(case: ConvCase, direction: Role | None) -> int:
    # each chunk adds to the last
    chunks = case.taps if case.taps * case.n * case.c_in * prod(case.out_size) > CHUNK else 0
    return _stored(case, direction) + (0 if direction is Role.BIAS else chunks)


def _stored_by_blocks(case: ConvCase, direction: Role | None) -> int:
    # each block of outputs adds to the filters' gradient
    added = count_blocks(case) if direction is Role.WEIGHT else 0
    return _stored_by_chunks(case, direction) + added


def _stored_by_native(case: ConvCase, direction: Role | None) -> int:
    # each block of outputs adds to the filters' gradient
    added = window_blocks.count_blocks(case, case.taps) if direction is Role.WEIGHT else 0
    return _stored(case, direction) + added


def _load_triton() -> Callable[..., Tensor]:
    from impls.window_masked.triton_kernel import gathered

    return gathered


VARIANT = Variant(
    name="window_masked",
    equation="y[q] = sum_u w[u] m[u,q] x[q*s - p + u*d] + b",
    source="Jain, Abbeel, Pathak, UAI 2020, section 3; 'masked kernel in convolution in pytorch'",
    args=(
        SIGNAL,
        WEIGHT,
        BIAS,
        Arg(
            name="mask",
            role=Role.MASK,
            shape=_mask_shape,
            covers="x",
            choices=("mask_channels", "mask_batch"),
        ),
    ),
    oracle=window_masked,
    implementations=(
        Implementation(
            name="unfolded",
            kind=Kind.REFERENCE,
            load=lambda: unfolded,
            stored=_stored,
            cost=of_products,
        ),
        native_form(lambda: masked_in_blocks, stored=_stored_by_native, cost=of_native),
        Implementation(
            name="output_blocks",
            load=lambda: by_output_blocks,
            stored=_stored_by_blocks,
            cost=of_blocks,
        ),
        Implementation(
            name="tap_chunks",
            load=lambda: by_tap_chunks,
            stored=_stored_by_chunks,
            cost=of_products,
        ),
        triton_form(_load_triton, stored=_stored, share=0.03),
        compiled(lambda: unfolded),
    ),
    traits=frozenset(
        {
            *CONVOLUTION,
            Trait.AFFINE_IN_SIGNAL,
            Trait.LINEAR_IN_WEIGHT,
            Trait.BATCH_INDEPENDENT,
            Trait.ONES_ARE_PLAIN,
            Trait.BROADCASTS_MASK,
            Trait.ADDITIVE_IN_MASK,
            Trait.MASKS_WINDOWS,
            Trait.ABSENCE_IS_PADDING,
            Trait.DILATION_IS_STUFFING,
            Trait.PADS_SIGNAL,
        }
    ),
    options={"mask": INPUT_MASK_FAMILIES, **INPUT_MASK_SHAPES},
    extra_roundings=_is_real,  # x * m
    layer=layer_form(
        WindowMaskedConv1d,
        WindowMaskedConv2d,
        WindowMaskedConv3d,
        takes=("mask",),
        arguments=lambda case, _: {"padding": case.padding},
    ),
    cases=_cases(),
    quick=QUICK,
)


def functional(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, **options: Any
) -> Tensor:
    """Return `y[n,o,q] = b_o + sum_{c,u} w[o,c,u] m[n,c,u,q] x[n,c,q*s - p + u*d]`.

    Args:
        x: Signal, shape `(N, C_in, *S)`; one sample, `(C_in, *S)`, is a batch of one, its mask too.
        weight: Taps, shape `(C_out, C_in/groups, *kernel_size)`.
        bias: Shape `(C_out,)`.
        mask: 1 = present, shape `(1|N, 1|C_in, *kernel_size, *S_out)`, bool or real in [0, 1].
        options: `stride`, `padding`, `dilation`, `groups`, `implementation`.

    Raises:
        CaseError: a geometry that cannot be, or a mask of another shape or range.
    """
    if mask is None:
        raise CaseError("mask=None must be a tensor; without a mask this is the plain convolution")
    return call(VARIANT, (x, weight, bias, mask), **options)
