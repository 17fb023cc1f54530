"""The convolution whose kernel is masked anew at every output position."""

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
from impls._shared.cases import QUICK, network_cases
from impls._shared.shapes import BIAS, INPUT_MASK_FAMILIES, INPUT_MASK_SHAPES, SIGNAL, WEIGHT
from impls.window_masked.layer import (
    LazyWindowMaskedConv1d,
    LazyWindowMaskedConv2d,
    LazyWindowMaskedConv3d,
    WindowMaskedConv1d,
    WindowMaskedConv2d,
    WindowMaskedConv3d,
)
from impls.window_masked.oracle import window_masked
from impls.window_masked.reference import unfolded
from impls.window_masked.tap_chunks import by_tap_chunks

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
        Implementation(name="unfolded", kind=Kind.REFERENCE, load=lambda: unfolded),
        Implementation(name="tap_chunks", load=lambda: by_tap_chunks),
        compiled(lambda: unfolded),
    ),
    traits=frozenset(
        {
            Trait.AFFINE_IN_SIGNAL,
            Trait.LINEAR_IN_WEIGHT,
            Trait.BATCH_INDEPENDENT,
            Trait.ONES_ARE_PLAIN,
            Trait.BROADCASTS_MASK,
            Trait.ADDITIVE_IN_MASK,
            Trait.MASKS_WINDOWS,
        }
    ),
    options={"mask": INPUT_MASK_FAMILIES, **INPUT_MASK_SHAPES},
    extra_roundings=lambda case: case.option("mask", "ones") == "real",  # x * m
    cases=_cases(),
    quick=QUICK,
)


def functional(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, **options: Any
) -> Tensor:
    """Return `y[n,o,q] = b_o + sum_{c,u} w[o,c,u] m[n,c,u,q] x[n,c,q*s - p + u*d]`.

    Args:
        x: Signal, shape `(N, C_in, *S)`.
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
