"""Convolution with masked taps: a constant mask over the kernel."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from harness.api import (
    Ability,
    Arg,
    ConvCase,
    Implementation,
    Kind,
    Role,
    Shape,
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
from impls._shared.window_blocks import count_blocks
from impls.kernel_masked.costs import of_disjoint_lattices, of_kept_taps, of_multiplied_weight
from impls.kernel_masked.covers import cheapest_cover, disjoint_lattices
from impls.kernel_masked.kept_taps import kept_taps
from impls.kernel_masked.layer import (
    KernelMaskedConv1d,
    KernelMaskedConv2d,
    KernelMaskedConv3d,
    LazyKernelMaskedConv1d,
    LazyKernelMaskedConv2d,
    LazyKernelMaskedConv3d,
)
from impls.kernel_masked.named_masks import FAMILIES, make_kernel_mask
from impls.kernel_masked.native import gathered_taps
from impls.kernel_masked.native import may_pay as native_may_pay
from impls.kernel_masked.oracle import kernel_masked
from impls.kernel_masked.reference import multiplied_weight
from impls.kernel_masked.tap_plan import most_blocks
from impls.kernel_masked.tap_products import may_pay, tap_products

__all__ = [
    "VARIANT", "KernelMaskedConv1d", "KernelMaskedConv2d", "KernelMaskedConv3d",
    "LazyKernelMaskedConv1d", "LazyKernelMaskedConv2d", "LazyKernelMaskedConv3d", "functional",
]  # fmt: skip


def _kernel_mask_shape(case: ConvCase) -> Shape:
    """Return `(*K)` for `taps`, else `(C_out|1, C_in/groups|1, *K)`."""
    word = case.option("kernel_mask_shape", "taps")
    filters = case.c_out if word in ("filters", "all") else 1
    channels = case.c_in // case.groups if word in ("channels", "all") else 1
    return case.kernel_size if word == "taps" else (filters, channels, *case.kernel_size)


KERNEL_MASK = Arg(
    name="kernel_mask",
    role=Role.MASK,
    shape=_kernel_mask_shape,
    covers="weight",
    choices=("kernel_mask_shape",),
    make=make_kernel_mask,
)


def _masked_twice(case: ConvCase) -> int:
    """One rounding for each mask that holds fractions."""
    return (case.option("kernel_mask", "ones") == "real") + (case.option("mask", "ones") == "real")


def _stored(case: ConvCase, direction: Role | None) -> int:
    # x * m and w * k, the sum that a bias with support joins
    if direction is Role.BIAS:
        return 0
    joined = case.bias and case.option("bias_where", "all") == "support"
    return _masked_twice(case) + (direction is None and joined)


def _stored_by_covers(case: ConvCase, direction: Role | None) -> int:
    # of a mask that all samples share, the bias' gradient is summed over the samples first
    if direction is Role.BIAS:
        support = case.option("bias_where", "all") == "support"
        return int(support and case.option("mask_batch", "each") == "one")
    return _stored(case, direction)


def _stored_by_lattices(case: ConvCase, direction: Role | None) -> int:
    # one convolution per lattice, at most one lattice per tap
    apart = direction in (None, Role.SIGNAL)
    return _stored_by_covers(case, direction) + (case.taps if apart else 0)


def _stored_by_blocks(case: ConvCase, direction: Role | None) -> int:
    # each block of outputs adds to the filters' gradient
    added = most_blocks(case) if direction is Role.WEIGHT else 0
    return _stored_by_lattices(case, direction) + added


def _stored_by_gathering(case: ConvCase, direction: Role | None) -> int:
    # the sum that the bias joins; each block of outputs adds to the filters' gradient
    if direction is None:
        return _stored_by_covers(case, direction) + case.bias
    added = count_blocks(case, case.taps) if direction is Role.WEIGHT else case.taps
    return _stored_by_covers(case, direction) + (direction is not Role.BIAS and added)


def _stored_by_taps(case: ConvCase, direction: Role | None) -> int:
    # one product per tap, and the sum that the bias joins; the filters' gradients per sample
    further = {None: case.taps, Role.SIGNAL: case.taps, Role.WEIGHT: 1}
    return _stored(case, direction) + further.get(direction, 0)


def _stored_by_products(case: ConvCase, direction: Role | None) -> int:
    # the sum that the bias joins
    return _stored_by_covers(case, direction) + (direction is None and case.bias)


_CASES = {
    **network_cases(kernel_mask="cross", mask="none"),
    **{
        name: network_cases(kernel_mask=family, mask="none")[name]
        for name, family in (
            ("pixelcnn_first", "pixelcnn_a"),
            ("pixelcnn_layer", "pixelcnn_b"),
            ("wavenet_layer", "causal"),
            ("text_cnn", "causal"),
        )
    },
}


def _layer_arguments(case: ConvCase, tensors: Mapping[str, Value]) -> dict[str, Any]:
    bias_where = case.option("bias_where", "all")
    held = {"kernel_mask": tensors["kernel_mask"], "bias_where": bias_where}
    return padding_of(case, tensors) | held


def _load_triton() -> Callable[..., Tensor]:
    from impls.kernel_masked.triton_kernel import skipped_taps

    return skipped_taps


VARIANT = Variant(
    name="kernel_masked",
    equation="y = conv(x*m, w*k) + b",
    source="PyTorch forum, 'Masking out locations in convolutional kernels'; "
    "van den Oord et al. 2016, arXiv 1601.06759",
    args=(SIGNAL, WEIGHT, BIAS, KERNEL_MASK, INPUT_MASK),
    oracle=kernel_masked,
    implementations=(
        Implementation(
            name="multiplied_weight",
            kind=Kind.REFERENCE,
            load=lambda: multiplied_weight,
            stored=_stored,
            cost=of_multiplied_weight,
            lacks={Ability.SKIP_TAPS: "the whole kernel is convolved, 0 where it is masked"},
        ),
        native_form(lambda: gathered_taps, pays=native_may_pay, stored=_stored_by_gathering),
        Implementation(
            name="tap_products",
            load=lambda: tap_products,
            pays=may_pay,
            stored=_stored_by_blocks,
        ),
        Implementation(
            name="cheapest_cover", load=lambda: cheapest_cover, stored=_stored_by_covers
        ),
        Implementation(
            name="disjoint_lattices",
            load=lambda: disjoint_lattices,
            stored=_stored_by_lattices,
            cost=of_disjoint_lattices,
        ),
        Implementation(
            name="kept_taps",
            load=lambda: kept_taps,
            stored=_stored_by_taps,
            cost=of_kept_taps,
            lacks={Ability.CHANNELS_LAST: "matrix products put the channels first"},
        ),
        triton_form(_load_triton, stored=_stored_by_products, share=0.03),
        compiled(lambda: multiplied_weight),
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
            Trait.BROADCASTS_MASK,
            Trait.SERVES_DIVERSE_SIZES,
            Trait.MASKS_TAPS,
            Trait.FREE_WITHOUT_MASK,
            Trait.ABSENCE_IS_PADDING,
            Trait.DILATION_IS_STUFFING,
            Trait.PADS_SIGNAL,
        }
    ),
    options={
        "kernel_mask": FAMILIES,
        "kernel_mask_shape": ("taps", "one", "filters", "channels", "all"),
        "mask": (*INPUT_MASK_FAMILIES, "none"),
        **INPUT_MASK_SHAPES,
        **PADDING_MODE,
        "bias_where": ("all", "support"),
    },
    keywords={"padding_mode": str, "bias_where": str},
    extra_roundings=_masked_twice,
    layer=layer_form(
        KernelMaskedConv1d,
        KernelMaskedConv2d,
        KernelMaskedConv3d,
        takes=("mask",),
        arguments=_layer_arguments,
    ),
    cases=_CASES,
    quick=("pixelcnn_layer", *QUICK[1:]),
)


def functional(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_mask: Tensor | None = None,
    mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Return `y = conv(x*m, w*k)` + bias term.

    Args:
        x: Signal, shape `(N, C_in, *S)`; one sample, `(C_in, *S)`, is a batch of one, its mask too.
        weight: Taps, shape `(C_out, C_in/groups, *kernel_size)`.
        bias: Shape `(C_out,)`.
        kernel_mask: 1 = kept, shape `(*kernel_size)` for all filters, or
            `(C_out|1, C_in/groups|1, *kernel_size)`; bool or real in [0, 1]; none keeps all taps.
        mask: 1 = present, shape `(1|N, 1|C_in, *S)`, bool or real in [0, 1]; none = all present.
        options: `stride`, `padding`, `dilation`, `groups`, `padding_mode`, `implementation`, and
            `bias_where`: `all`, or `support` for a bias only where a kept tap of the window lands
            on a present value (in bounds and `mask > 0`; without a mask, in bounds and `x != 0`).

    Raises:
        CaseError: a geometry that cannot be, or a mask of another shape or range.
    """
    return call(VARIANT, (x, weight, bias, kernel_mask, mask), **options)
