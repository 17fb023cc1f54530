"""The convolution of a masked signal: what is absent counts as zero."""

from typing import Any

from torch import Tensor

from harness.api import (
    CaseError,
    ConvCase,
    Implementation,
    Kind,
    Role,
    Trait,
    Variant,
    call,
    compiled,
)
from impls._shared.cases import QUICK, network_cases
from impls._shared.costs import of_selected_signal
from impls._shared.layer import layer_form
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
from impls.input_masked.costs import of_masked_product
from impls.input_masked.layer import (
    InputMaskedConv1d,
    InputMaskedConv2d,
    InputMaskedConv3d,
    LazyInputMaskedConv1d,
    LazyInputMaskedConv2d,
    LazyInputMaskedConv3d,
)
from impls.input_masked.masked_product import by_masked_product
from impls.input_masked.oracle import input_masked
from impls.input_masked.present_box import by_present_box
from impls.input_masked.reference import masked_signal

__all__ = [
    "VARIANT", "InputMaskedConv1d", "InputMaskedConv2d", "InputMaskedConv3d",
    "LazyInputMaskedConv1d", "LazyInputMaskedConv2d", "LazyInputMaskedConv3d", "functional",
]  # fmt: skip

# From so many multiply-adds on, looking for a box costs a few percent where there is none.
LARGE = 2**27


def _cases() -> dict[str, str]:
    """Return scattered holes in every layer, and one present box in some."""
    boxed = network_cases(mask="box", mask_channels="one")
    layers = ("unet_encoder", "resnet50_conv2", "inpainting_encoder", "unet3d_layer")
    return network_cases(mask="bernoulli:0.5") | {f"{name}_box": boxed[name] for name in layers}


def _is_real(case: ConvCase) -> bool:
    return case.option("mask", "ones") == "real"


def _stored(case: ConvCase, direction: Role | None) -> int:
    return 0 if direction is Role.BIAS else _is_real(case)  # x * m, or its adjoint


def _stored_by_box(case: ConvCase, direction: Role | None) -> int:
    # the sum that the bias joins; the gradients of samples that are convolved apart
    further = {None: int(case.bias), Role.WEIGHT: case.n}
    return _stored(case, direction) + further.get(direction, 0)


VARIANT = Variant(
    name="input_masked",
    equation="y = conv(x*m, w) + b",
    source="the question 'masked kernel in convolution in pytorch' and its accepted answer",
    args=(SIGNAL, WEIGHT, BIAS, INPUT_MASK),
    oracle=input_masked,
    implementations=(
        Implementation(
            name="masked_signal",
            kind=Kind.REFERENCE,
            load=lambda: masked_signal,
            stored=_stored,
            cost=of_selected_signal,
        ),
        Implementation(
            name="present_box",
            load=lambda: by_present_box,
            stored=_stored_by_box,
            pays=lambda case: case.macs >= LARGE,
        ),
        Implementation(
            name="masked_product",
            load=lambda: by_masked_product,
            stored=_stored,
            cost=of_masked_product,
        ),
        compiled(lambda: masked_signal),
    ),
    traits=frozenset(
        {
            *CONVOLUTION,
            Trait.AFFINE_IN_SIGNAL,
            Trait.LINEAR_IN_WEIGHT,
            Trait.BATCH_INDEPENDENT,
            Trait.SUBSAMPLES,
            Trait.ONES_ARE_PLAIN,
            Trait.HOLES_INVISIBLE,
            Trait.SERVES_DIVERSE_SIZES,
            Trait.BROADCASTS_MASK,
            Trait.ADDITIVE_IN_MASK,
            Trait.MASKS_SIGNAL,
            Trait.ABSENCE_IS_PADDING,
            Trait.DILATION_IS_STUFFING,
            Trait.PADS_SIGNAL,
        }
    ),
    options={"mask": INPUT_MASK_FAMILIES, **INPUT_MASK_SHAPES, **PADDING_MODE},
    keywords={"padding_mode": str},
    extra_roundings=_is_real,  # x * m
    layer=layer_form(InputMaskedConv1d, InputMaskedConv2d, InputMaskedConv3d, takes=("mask",)),
    cases=_cases(),
    quick=QUICK,
)


def functional(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, **options: Any
) -> Tensor:
    """Return `y = conv(x*m, w) + b`.

    Args:
        x: Signal, shape `(N, C_in, *S)`; what stands where `mask` is 0 is never read. One sample,
            `(C_in, *S)`, is a batch of one, its mask too.
        weight: Taps, shape `(C_out, C_in/groups, *kernel_size)`.
        bias: Shape `(C_out,)`.
        mask: 1 = present, shape `(1|N, 1|C_in, *S)`, bool or real in [0, 1].
        options: `stride`, `padding`, `dilation`, `groups`, `padding_mode`, `implementation`.

    Raises:
        CaseError: a geometry that cannot be, or a mask of another shape or range.
    """
    if mask is None:
        raise CaseError("mask=None must be a tensor; without a mask this is the plain convolution")
    return call(VARIANT, (x, weight, bias, mask), **options)
