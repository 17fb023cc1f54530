"""The plain convolution: the control group, in time and in meaning."""

from typing import Any

from torch import Tensor

from harness.api import Implementation, Kind, Trait, Variant, call, compiled
from impls._shared.cases import QUICK, network_cases
from impls._shared.convolution import convolve
from impls._shared.costs import of_library
from impls._shared.layer import layer_form
from impls._shared.onednn import pays
from impls._shared.shapes import BIAS, PADDING_MODE, SIGNAL, WEIGHT
from impls._shared.traits import CONVOLUTION
from impls.plain.layer import (
    LazyPlainConv1d,
    LazyPlainConv2d,
    LazyPlainConv3d,
    PlainConv1d,
    PlainConv2d,
    PlainConv3d,
)
from impls.plain.onednn import onednn, unsupported
from impls.plain.oracle import plain

__all__ = [
    "VARIANT", "LazyPlainConv1d", "LazyPlainConv2d", "LazyPlainConv3d", "PlainConv1d",
    "PlainConv2d", "PlainConv3d", "functional",
]  # fmt: skip

VARIANT = Variant(
    name="plain",
    equation="y = conv(x, w) + b",
    source="torch.nn.functional.conv{1,2,3}d",
    args=(SIGNAL, WEIGHT, BIAS),
    oracle=plain,
    implementations=(
        Implementation(
            name="library",
            kind=Kind.REFERENCE,
            load=lambda: convolve,
            stored=lambda *_: 0,
            cost=of_library,
        ),
        Implementation(
            name="onednn",
            load=lambda: onednn,
            unsupported=unsupported,
            pays=pays,
            cost=of_library,
        ),
        compiled(lambda: convolve),
    ),
    traits=frozenset(
        {
            *CONVOLUTION,
            Trait.IS_PLAIN,
            Trait.AFFINE_IN_SIGNAL,
            Trait.LINEAR_IN_WEIGHT,
            Trait.BATCH_INDEPENDENT,
            Trait.SUBSAMPLES,
            Trait.ABSENCE_IS_PADDING,
            Trait.DILATION_IS_STUFFING,
            Trait.PADS_SIGNAL,
        }
    ),
    options=PADDING_MODE,
    keywords={"padding_mode": str},
    layer=layer_form(PlainConv1d, PlainConv2d, PlainConv3d),
    cases=network_cases(),
    quick=QUICK,
)


def functional(x: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:
    """Return `y = conv(x, w) + b`.

    Args:
        x: Signal, shape `(N, C_in, *S)`; one sample, `(C_in, *S)`, is a batch of one.
        weight: Taps, shape `(C_out, C_in/groups, *kernel_size)`.
        bias: Shape `(C_out,)`.
        options: `stride`, `padding`, `dilation`, `groups`, `padding_mode`, `implementation`.

    Raises:
        CaseError: a geometry that cannot be.
    """
    return call(VARIANT, (x, weight, bias), **options)
