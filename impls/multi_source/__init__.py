"""Multi-source convolution: an image, rows, columns and scalars, each convolved as it is."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from harness.api import (
    Ability,
    Arg,
    ConvCase,
    Domain,
    Implementation,
    Kind,
    Role,
    Trait,
    Variant,
    compiled,
)
from impls._shared.cases import QUICK
from impls._shared.costs import of_sources
from impls._shared.layer import layer_form
from impls._shared.native import native_form
from impls._shared.shapes import BIAS, PADDING_MODE
from impls._shared.sources import (
    SOURCES,
    call_with_sources,
    resolve_kernel_size,
    roundings_of_sums,
    source_cases,
    weight_shapes,
)
from impls._shared.traits import CONVOLUTION
from impls._shared.triton_form import triton_form
from impls.multi_source.conversion import from_tile_concat, to_tile_concat
from impls.multi_source.layer import (
    LazyMultiSourceConv1d,
    LazyMultiSourceConv2d,
    LazyMultiSourceConv3d,
    MultiSourceConv1d,
    MultiSourceConv2d,
    MultiSourceConv3d,
)
from impls.multi_source.native import joined_in_one_pass, of_native
from impls.multi_source.oracle import multi_source
from impls.multi_source.reference import one_per_source
from impls.multi_source.small_first import small_first

__all__ = [
    "VARIANT", "LazyMultiSourceConv1d", "LazyMultiSourceConv2d", "LazyMultiSourceConv3d",
    "MultiSourceConv1d", "MultiSourceConv2d", "MultiSourceConv3d", "from_tile_concat",
    "functional", "to_tile_concat",
]  # fmt: skip


def _stored(case: ConvCase, direction: Role | None) -> int:
    # a sum per source and the bias of groups; backwards a sum over every axis that is not spanned
    return roundings_of_sums(case) if direction is None else case.spatial_dims + 1


def _load_triton() -> Callable[..., Tensor]:
    from impls.multi_source.triton_kernel import fused_sum

    return fused_sum


VARIANT = Variant(
    name="multi_source",
    equation="y = sum_i conv(x_i, w_i) over the axes of x_i + b",
    source="miaotianyi/multi-source-convolution, README, Multi-source Convolution",
    args=(SOURCES, Arg(name="weight", role=Role.WEIGHT, shape=weight_shapes), BIAS),
    oracle=multi_source,
    implementations=(
        Implementation(
            name="one_per_source",
            kind=Kind.REFERENCE,
            load=lambda: one_per_source,
            lacks={Ability.CHANNELS_LAST: "every source has a layout of its own"},
            stored=_stored,
            cost=of_sources,
        ),
        native_form(
            lambda: joined_in_one_pass,
            lacks={Ability.CHANNELS_LAST: "every source has a layout of its own"},
            stored=_stored,
            cost=of_native,
        ),
        Implementation(
            name="small_first",
            load=lambda: small_first,
            lacks={Ability.CHANNELS_LAST: "every source has a layout of its own"},
            stored=_stored,
            cost=of_sources,
        ),
        triton_form(
            _load_triton,
            lacks={Ability.CHANNELS_LAST: "every source has a layout of its own"},
            stored=_stored,
        ),
        compiled(lambda: small_first),
    ),
    traits=frozenset(
        {
            *CONVOLUTION,
            Trait.SUMS_SOURCES,
            Trait.TAKES_SOURCES,
            Trait.AFFINE_IN_SIGNAL,
            Trait.LINEAR_IN_WEIGHT,
            Trait.BATCH_INDEPENDENT,
            Trait.SUBSAMPLES,
            Trait.ABSENCE_IS_PADDING,
            Trait.DILATION_IS_STUFFING,
            Trait.PADS_SIGNAL,
        }
    ),
    domain=Domain(sources=True),
    options=PADDING_MODE,
    keywords={"padding_mode": str},
    extra_roundings=roundings_of_sums,
    layer=layer_form(MultiSourceConv1d, MultiSourceConv2d, MultiSourceConv3d),
    cases=source_cases(),
    quick=QUICK,
)


def functional(
    x: Sequence[Tensor | None],
    weight: Sequence[Tensor | None],
    bias: Tensor | None = None,
    *,
    size: Sequence[int] | None = None,
    kernel_size: Sequence[int] | None = None,
    **options: Any,
) -> Tensor:
    """Return `y = sum_i conv(x_i, w_i) + b`, each convolution over the axes that source i spans.

    Args:
        x: Sources, one per subset of the spatial axes, most axes first: in 2 dimensions image
            `(N, C1, H, W)`, row `(N, C2, H)`, column `(N, C3, W)`, scalar `(N, C4)`; None = absent.
            All without their first axis are a batch of one.
        weight: Taps of every source, `(C_out, C_i/groups, *kernel sizes of its axes)`; None where
            it is absent.
        bias: Shape `(C_out,)`.
        size: Spatial size of the image, required where no source tells it.
        kernel_size: Required where no weight tells it.
        options: `stride`, `padding`, `dilation`, `groups`, `padding_mode`, `implementation`.

    Raises:
        CaseError: sources that disagree in batch or size, a source without a weight or the other
            way round, a size that nothing tells, or a geometry that cannot be.
    """
    told = resolve_kernel_size(x, weight, kernel_size)
    return call_with_sources(
        VARIANT, x, tuple(weight), bias, size=size, kernel_size=told, **options
    )
