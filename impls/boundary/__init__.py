"""Convolution of the input's size with a choice of how the image is continued beyond its border."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from torch import Tensor

from harness.api import (
    Ability,
    Arg,
    ConvCase,
    Domain,
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
from impls._shared.extension import least_size
from impls._shared.layer import layer_form
from impls._shared.native import native_form
from impls._shared.shapes import BIAS, SIGNAL
from impls._shared.traits import CONVOLUTION
from impls.boundary.border_apart import border_apart
from impls.boundary.costs import of_padded_then_convolved
from impls.boundary.gathered_border import explicit_alone, gathered_border, may_pay
from impls.boundary.layer import (
    BoundaryConv1d,
    BoundaryConv2d,
    BoundaryConv3d,
    LazyBoundaryConv1d,
    LazyBoundaryConv2d,
    LazyBoundaryConv3d,
)
from impls.boundary.native import border_in_boxes
from impls.boundary.native import may_pay as may_be_native
from impls.boundary.oracle import boundary, magnitude, polynomial_degrees
from impls.boundary.reference import padded_then_convolved

__all__ = [
    "METHODS", "VARIANT", "BoundaryConv1d", "BoundaryConv2d", "BoundaryConv3d",
    "LazyBoundaryConv1d", "LazyBoundaryConv2d", "LazyBoundaryConv3d", "functional",
]  # fmt: skip

METHODS = (
    "zeros", "reflect", "replicate", "circular", "extrapolate", "random", "partial", "explicit",
    "diff",
)  # fmt: skip


def _method(case: ConvCase) -> str:
    return case.option("method", METHODS[0])


def _weight_shape(case: ConvCase) -> Shape:
    stacked = case.kernel_size if _method(case) == "explicit" else ()
    return (*stacked, *case.weight_shape)


def _noise_shape(case: ConvCase) -> Shape | None:
    if _method(case) != "random":
        return None
    axes = zip(case.in_size, case.padding, strict=True)
    return (case.n, case.c_in, *(size + 2 * p for size, p in axes))


def _least_size(case: ConvCase) -> Shape:
    method = _method(case)
    if method in ("extrapolate", "diff", "random"):
        # random: the statistics of a side need as many rows as `extrapolate` needs samples
        degrees = polynomial_degrees(case.kernel_size, method)
        return least_size(case.kernel_size, case.dilation, degrees)
    least = {
        "reflect": [p + (p > 0) for p in case.padding],
        "circular": case.padding,
        "explicit": [2 * p for p in case.padding],
    }
    return tuple(max(1, size) for size in least.get(method, [1] * case.spatial_dims))


def _extra_roundings(case: ConvCase) -> int:
    """Return what a method rounds beyond the sum, plus one: a sum stored before the bias joins."""
    method, sides = _method(case), [k for k in case.kernel_size if k > 1]
    if method in ("extrapolate", "diff"):
        return 1 + sum(sides)  # products in a continued sample and in its gradient
    if method == "explicit":
        return prod(sides)  # gradients of so many regions are joined
    if method == "partial":
        return 1 + 3  # K^D / coverage, its product with y, and the storage of the ratio
    if method == "random":
        rows = [
            (k // 2 + 1) * prod(case.in_size) // size
            for k, size in zip(case.kernel_size, case.in_size, strict=True)
        ]
        # Two passes over the rows of a side, two roundings per offset, square and root, division;
        # the average over sides, the product with the noise and the sum.
        return 1 + 2 * max(rows) + 6 + case.spatial_dims + 3
    return 1


def _stored(case: ConvCase, direction: Role | None) -> int:
    """Return the continued image (per axis), the ratio and its product, the sum of every kernel."""
    method, sides = _method(case), [k for k in case.kernel_size if k > 1]
    if method == "explicit":
        backward = prod(sides) if direction in (Role.SIGNAL, Role.BIAS) else 0
        return int(case.bias) if direction is None else backward
    if direction is Role.BIAS:
        return 0
    before = {"extrapolate": len(sides), "diff": len(sides), "random": 1, "partial": 2}
    if direction is Role.SIGNAL and method in ("extrapolate", "diff"):
        # what is folded back, and its sums with the image on both sides of every axis
        return 3 * len(sides) + 1
    joined = direction is None and case.bias
    return before.get(method, 0) + joined


def _is_exact(case: ConvCase, tensors: Mapping[str, Value]) -> bool:
    """Whether nothing is divided: counts and statistics have no exact inverse."""
    del tensors
    return _method(case) not in ("partial", "random")


def _compiler_declines(case: ConvCase) -> str | None:
    return (
        "its generator cannot order the sizes of the regions"
        if _method(case) == "explicit"
        else None
    )


_CASES = network_cases(same_size=True, method="replicate")
_METHOD_CASES = {
    f"unet_bottleneck_8x8_{method}": network_cases(method=method)["unet_bottleneck_8x8"]
    for method in METHODS[1:]
    if method != "replicate"
} | {
    f"inpainting_encoder_{method}": network_cases(method=method)["inpainting_encoder"]
    for method in ("random", "explicit", "diff")
}

VARIANT = Variant(
    name="boundary",
    equation="y = conv(x continued by a method, w) + b, of the size of x",
    source="the methods compared in arXiv 2309.06370: Gupta and Ramani 1978, Innamorati 2018, "
    "Liu 2018 (arXiv 1811.11718), Nguyen 2019, torch.nn.functional.pad",
    args=(
        SIGNAL,
        Arg(name="weight", role=Role.WEIGHT, shape=_weight_shape),
        BIAS,
        Arg(name="noise", role=Role.NOISE, shape=_noise_shape),
    ),
    oracle=boundary,
    implementations=(
        Implementation(
            name="padded_then_convolved",
            kind=Kind.REFERENCE,
            load=lambda: padded_then_convolved,
            cost=of_padded_then_convolved,
            stored=_stored,
            lacks={Ability.CHANNELS_LAST: "the ring is joined to the image by copies"},
        ),
        native_form(lambda: border_in_boxes, pays=may_be_native, stored=_stored),
        Implementation(
            name="gathered_border",
            load=lambda: gathered_border,
            within=explicit_alone,
            pays=may_pay,
            stored=_stored,
        ),
        Implementation(name="border_apart", load=lambda: border_apart, stored=_stored),
        replace(compiled(lambda: border_apart), unsupported=_compiler_declines),
    ),
    traits=frozenset(
        {
            *CONVOLUTION,
            Trait.AFFINE_IN_SIGNAL,
            Trait.LINEAR_IN_WEIGHT,
            Trait.BATCH_INDEPENDENT,
            Trait.SUBSAMPLES,
            Trait.CHOOSES_BOUNDARY,
            Trait.ABSENCE_IS_PADDING,
            Trait.DILATION_IS_STUFFING,
        }
    ),
    domain=Domain(odd_kernels=True, same_size=True, least_size=_least_size),
    options={"method": METHODS},
    keywords={"method": str},
    magnitude=magnitude,
    extra_roundings=_extra_roundings,
    exact=_is_exact,
    layer=layer_form(
        BoundaryConv1d,
        BoundaryConv2d,
        BoundaryConv3d,
        arguments=lambda case, _: {"method": _method(case)},
    ),
    cases=_CASES | _METHOD_CASES,
    quick=(*QUICK, "unet_bottleneck_8x8_explicit", "unet_bottleneck_8x8_diff"),
)


def functional(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    noise: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    method: str = METHODS[0],
    implementation: str | None = None,
) -> Tensor:
    """Return the convolution of `x` continued by `method`, of the size of `x` over the stride.

    Args:
        x: Signal, shape `(N, C_in, *S)`; one sample, `(C_in, *S)`, is a batch of one.
        weight: Taps, shape `(C_out, C_in/groups, *K)`, odd sides; for `explicit`
            `(*K, C_out, C_in/groups, *K)`: one kernel per displacement of the window, the middle
            one for windows inside the image.
        bias: Shape `(C_out,)`.
        noise: For `random`, shape `(N, C_in, *(S + dilation*(K-1)))`; none = the local mean alone.
        stride, dilation: Per axis, or one number for all.
        groups: Channel groups.
        method: `zeros`, `reflect`, `replicate`, `circular`, `extrapolate`, `random`, `partial`,
            `explicit` or `diff`.
        implementation: Pins one by name.

    Raises:
        CaseError: a geometry that cannot be, or an image too small for the method.
    """
    # the weight tells the rank, so that a signal without a batch is named as what is wrong
    stacked = weight.dim() > 5 or (method == "explicit" and weight.dim() != x.dim())
    rank = (weight.dim() - 2) // 2 if stacked else weight.dim() - 2
    return call(
        VARIANT, (x, weight, bias, noise), stride=stride, dilation=dilation, groups=groups,
        kernel_size=weight.shape[weight.dim() - rank :], method=method, implementation=implementation,
    )  # fmt: skip
