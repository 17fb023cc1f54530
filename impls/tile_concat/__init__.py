"""Tile every source over the image, concatenate, convolve: what a user's network has."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from harness.api import (
    Ability,
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
from impls._shared.costs import of_copied_signal
from impls._shared.layer import layer_form
from impls._shared.native import native_form
from impls._shared.shapes import BIAS, PADDING_MODE, WEIGHT
from impls._shared.sources import SOURCES, call_with_sources, roundings_of_sums, source_cases
from impls._shared.traits import CONVOLUTION
from impls._shared.triton_form import triton_form
from impls.tile_concat.layer import (
    LazyTileConcatConv1d,
    LazyTileConcatConv2d,
    LazyTileConcatConv3d,
    TileConcatConv1d,
    TileConcatConv2d,
    TileConcatConv3d,
)
from impls.tile_concat.native import classes_in_one_pass, of_native
from impls.tile_concat.oracle import tile_concat
from impls.tile_concat.reference import concatenated
from impls.tile_concat.short_tiles import saves_enough, short_tiles

__all__ = [
    "VARIANT", "LazyTileConcatConv1d", "LazyTileConcatConv2d", "LazyTileConcatConv3d",
    "TileConcatConv1d", "TileConcatConv2d", "TileConcatConv3d", "functional",
]  # fmt: skip


def _stored(case: ConvCase, direction: Role | None) -> int:
    del case
    return int(direction is Role.SIGNAL)  # the gradient of a tile, before its sum


def _stored_by_tiles(case: ConvCase, direction: Role | None) -> int:
    # a sum per source; backwards one per axis that is repeated, and one that is tiled
    sources = roundings_of_sums(case) - 2
    return sources if direction is None else sources + 2 * case.spatial_dims + 1


def _load_triton() -> Callable[..., Tensor]:
    from impls.tile_concat.triton_kernel import fused_sum

    return fused_sum


VARIANT = Variant(
    name="tile_concat",
    equation="y = conv(concat_i tile(x_i), w) + b",
    source="miaotianyi/multi-source-convolution, README, Tile, Concatenate, and Convolve",
    args=(SOURCES, WEIGHT, BIAS),
    oracle=tile_concat,
    implementations=(
        Implementation(
            name="concatenated",
            kind=Kind.REFERENCE,
            load=lambda: concatenated,
            lacks={Ability.CHANNELS_LAST: "every source has a layout of its own"},
            stored=_stored,
            cost=of_copied_signal,
        ),
        native_form(
            lambda: classes_in_one_pass,
            lacks={Ability.CHANNELS_LAST: "every source has a layout of its own"},
            stored=_stored_by_tiles,
            cost=of_native,
        ),
        Implementation(
            name="short_tiles",
            load=lambda: short_tiles,
            lacks={Ability.CHANNELS_LAST: "every source has a layout of its own"},
            pays=saves_enough,
            stored=_stored_by_tiles,
        ),
        triton_form(
            _load_triton,
            lacks={Ability.CHANNELS_LAST: "every source has a layout of its own"},
            stored=_stored_by_tiles,
        ),
        compiled(lambda: short_tiles),
    ),
    traits=frozenset(
        {
            *CONVOLUTION,
            Trait.TILES_SOURCES,
            Trait.TAKES_SOURCES,
            Trait.AFFINE_IN_SIGNAL,
            Trait.LINEAR_IN_WEIGHT,
            Trait.BATCH_INDEPENDENT,
            Trait.SUBSAMPLES,
            Trait.DILATION_IS_STUFFING,
            Trait.PADS_SIGNAL,
        }
    ),
    domain=Domain(sources=True),
    options=PADDING_MODE,
    keywords={"padding_mode": str},
    extra_roundings=roundings_of_sums,
    layer=layer_form(TileConcatConv1d, TileConcatConv2d, TileConcatConv3d),
    cases=source_cases(),
    quick=QUICK,
)


def functional(
    x: Sequence[Tensor | None],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    size: Sequence[int] | None = None,
    kernel_size: Sequence[int] | None = None,
    **options: Any,
) -> Tensor:
    """Return `y = conv(concat_i tile(x_i), w) + b`.

    Args:
        x: Sources, one per subset of the spatial axes, most axes first: in 2 dimensions image
            `(N, C1, H, W)`, row `(N, C2, H)`, column `(N, C3, W)`, scalar `(N, C4)`; None = absent.
            All without their first axis are a batch of one.
        weight: Taps, shape `(C_out, sum C_i / groups, *kernel_size)`; a group holds its share of
            every source, in their order.
        bias: Shape `(C_out,)`.
        size: Spatial size of the image, required where no source tells it.
        kernel_size: That of `weight`, may be left out.
        options: `stride`, `padding`, `dilation`, `groups`, `padding_mode`, `implementation`.

    Raises:
        CaseError: sources that disagree in batch or size, a size that nothing tells, or a
            geometry that cannot be.
    """
    told = tuple(weight.shape[2:]) if kernel_size is None else tuple(kernel_size)
    return call_with_sources(VARIANT, x, weight, bias, size=size, kernel_size=told, **options)
