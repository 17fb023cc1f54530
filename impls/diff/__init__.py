"""Convolution without padding: the image is continued by polynomials (differential convolution)."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor

from harness.api import (
    Ability,
    Arg,
    CaseError,
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
from impls._shared.extension import degrees_of, least_size
from impls._shared.layer import layer_form
from impls._shared.native import native_form
from impls._shared.shapes import BIAS, SIGNAL, WEIGHT
from impls._shared.traits import CONVOLUTION
from impls._shared.triton_form import triton_form
from impls.diff.costs import of_extended_once, of_native
from impls.diff.extended_once import extended_once
from impls.diff.layer import (
    DiffConv1d,
    DiffConv2d,
    DiffConv3d,
    LazyDiffConv1d,
    LazyDiffConv2d,
    LazyDiffConv3d,
)
from impls.diff.native import continued_in_one_pass
from impls.diff.oracle import diff, magnitude
from impls.diff.reference import transformed_kernels_memory
from impls.diff.transformed_kernels_speed import transformed_kernels_speed

__all__ = [
    "VARIANT", "DiffConv1d", "DiffConv2d", "DiffConv3d", "LazyDiffConv1d", "LazyDiffConv2d",
    "LazyDiffConv3d", "conv2d", "functional",
]  # fmt: skip


def _degree(word: str) -> int | None:
    return None if word == "None" else int(word)


def _degree_of(case: ConvCase) -> int | None:
    return _degree(case.option("degree", "None"))


def _largest_degree(case: ConvCase) -> int | None:
    """Return the largest degree that every axis allows; None where any is allowed."""
    return min((k - 1 for k in case.kernel_size if k > 1), default=None)


def _check_degree(case: ConvCase) -> None:
    degree, largest = _degree_of(case), _largest_degree(case)
    if degree is not None and largest is not None and degree > largest:
        raise CaseError(
            f"degree={degree} must be at most {largest} for kernel_size={case.kernel_size}"
        )


def _settle_degree(case: ConvCase) -> ConvCase:
    degree, largest = _degree_of(case), _largest_degree(case)
    if degree is None or largest is None or degree <= largest:
        return case
    return case.with_options(degree=None)


def _least_size(case: ConvCase) -> Shape:
    return least_size(
        case.kernel_size, case.dilation, degrees_of(case.kernel_size, _degree_of(case))
    )


def _edge_kernel_shape(case: ConvCase) -> Shape | None:
    return case.weight_shape if case.option("edge_kernel", "no") == "yes" else None


def _edge_bias_shape(case: ConvCase) -> Shape | None:
    return (case.c_out,) if case.bias and _edge_kernel_shape(case) else None


def _extra_roundings(case: ConvCase) -> int:
    """Return `sum K` over the axes that are extended, plus the regions.

    Per axis a continued sample, a transformed tap and the gradient of either sum at most `K`
    products; where the gradients of regions are joined, there is one addition for each.
    """
    return sum(k for k in case.kernel_size if k > 1) + _regions(case)


def _regions(case: ConvCase) -> int:
    """Return how many regions of outputs have a kernel of their own, at most."""
    axes = zip(case.in_size, case.kernel_size, case.dilation, case.out_size, strict=True)
    return prod(max(k, out) if size < k * d else k for size, k, d, out in axes if k > 1)


def _stored_by_kernels(case: ConvCase, direction: Role | None) -> int:
    # a transformed kernel and its gradient, the sum that the bias joins; backwards every region
    if direction is None:
        return 1 + case.bias
    own: Mapping[Role, int] = {Role.SIGNAL: 1, Role.WEIGHT: 2}
    return own.get(direction, 0) + _regions(case)


def _stored_by_extension(case: ConvCase, direction: Role | None) -> int:
    # the image continued along every axis, folded back on both sides; the boxes of the border
    axes = sum(k > 1 for k in case.kernel_size)
    if direction is None:
        return axes
    options = dict(case.options)
    apart = "edge_kernel" in options or "keep_img_grad_at_invalid" in options
    own: Mapping[Role, int] = {Role.SIGNAL: 3 * axes + 1, Role.WEIGHT: axes}
    return own.get(direction, 0) + (2 * axes + 1 if apart else 0)


def _layer_arguments(case: ConvCase, tensors: Mapping[str, Value]) -> dict[str, Any]:
    words = {name: word for name, word in case.options if name in VARIANT.keywords}
    chosen = {name: VARIANT.keywords[name](word) for name, word in words.items()}
    return chosen | {"train_edge_kernel": tensors["edge_kernel"] is not None}


def _load_triton() -> Callable[..., Tensor]:
    from impls.diff.triton_kernel import extended_by_kernels

    return extended_by_kernels


VARIANT = Variant(
    name="diff",
    equation="y = conv_valid(P x, w) + b, P: Lagrange extrapolation along every axis",
    source="Leng and Thiyagalingam 2023, arXiv 2309.06370; stfc-sciml/DifferentialConv2d",
    args=(
        SIGNAL,
        WEIGHT,
        BIAS,
        Arg(
            name="edge_kernel", role=Role.WEIGHT, shape=_edge_kernel_shape,
            choices=("edge_kernel",),
        ),
        Arg(name="edge_bias", role=Role.BIAS, shape=_edge_bias_shape),
    ),
    oracle=diff,
    implementations=(
        Implementation(
            name="transformed_kernels_memory", kind=Kind.REFERENCE,
            load=lambda: transformed_kernels_memory, stored=_stored_by_kernels,
            lacks={Ability.CHANNELS_LAST: "regions are joined, and small ones tell no layout"},
        ),
        native_form(
            lambda: continued_in_one_pass, cost=of_native, stored=_stored_by_extension,
            lacks={Ability.CHANNELS_LAST: "bands of the border are joined to the interior"},
        ),
        Implementation(
            name="extended_once", load=lambda: extended_once, cost=of_extended_once,
            stored=_stored_by_extension,
            lacks={Ability.CHANNELS_LAST: "bands of the border are joined to the interior"},
        ),
        Implementation(
            name="transformed_kernels_speed", load=lambda: transformed_kernels_speed,
            stored=_stored_by_kernels,
            lacks={Ability.CHANNELS_LAST: "channels are turned into rows of the border"},
        ),
        triton_form(
            _load_triton, stored=_stored_by_extension,
            lacks={Ability.CHANNELS_LAST: "bands of the border are joined to the interior"},
        ),
        compiled(lambda: extended_once),
    ),
    traits=frozenset(
        {
            *CONVOLUTION,
            Trait.AFFINE_IN_SIGNAL,
            Trait.LINEAR_IN_WEIGHT,
            Trait.BATCH_INDEPENDENT,
            Trait.SUBSAMPLES,
            Trait.EXTENDS_POLYNOMIALLY,
        }
    ),
    domain=Domain(
        odd_kernels=True, same_size=True, least_size=_least_size, settle=_settle_degree
    ),
    options={
        "degree": ("None", "0", "1", "2", "3", "4", "5", "6"),
        "edge_kernel": ("no", "yes"),
        "keep_img_grad_at_invalid": ("True", "False"),
        "optimized_for": ("memory", "speed"),
    },
    keywords={
        "degree": _degree,
        "keep_img_grad_at_invalid": lambda word: word == "True",
        "optimized_for": str,
    },
    check=_check_degree,
    magnitude=magnitude,
    extra_roundings=_extra_roundings,
    layer=layer_form(
        DiffConv1d, DiffConv2d, DiffConv3d, arguments=_layer_arguments,
        state=("weight", "bias", "edge_kernel", "edge_bias"),
    ),
    cases=network_cases(same_size=True),
    quick=QUICK,
)  # fmt: skip


def functional(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    edge_kernel: Tensor | None = None,
    edge_bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    degree: int | None = None,
    keep_img_grad_at_invalid: bool = True,
    optimized_for: str = "memory",
    implementation: str | None = None,
) -> Tensor:
    """Return `y = conv_valid(P x, w) + b`, of the size of `x` divided by the stride.

    Args:
        x: Signal, shape `(N, C_in, *S)`; one sample, `(C_in, *S)`, is a batch of one.
        weight: Taps, shape `(C_out, C_in/groups, *kernel_size)`, odd sides.
        bias: Shape `(C_out,)`.
        edge_kernel: Taps of the outputs whose window leaves the image, shape of `weight`; none =
            `weight`.
        edge_bias: Bias of those outputs; none = `bias`.
        stride, dilation: Per axis, or one number for all.
        groups: Channel groups.
        degree: Of the polynomials, at most `kernel_size - 1`, which None stands for.
        keep_img_grad_at_invalid: Whether outputs whose window leaves the image pass gradients to
            `x`.
        optimized_for: `memory` or `speed`: a hint; the value never changes.
        implementation: Pins one by name.

    Raises:
        CaseError: a geometry that cannot be, e.g. an axis with fewer than
            `(degree + 1) * dilation` samples.
    """
    return call(
        VARIANT, (x, weight, bias, edge_kernel, edge_bias), stride=stride, dilation=dilation,
        groups=groups, degree=degree, keep_img_grad_at_invalid=keep_img_grad_at_invalid,
        optimized_for=optimized_for, implementation=implementation,
    )  # fmt: skip


def conv2d(
    input: Tensor,  # noqa: A002 - the name that callers of torch.nn.functional.conv2d use
    weight: Tensor,
    groups: int = 1,
    keep_img_grad_at_invalid: bool = True,
    edge_kernel: Tensor | None = None,
    optimized_for: str = "memory",
) -> Tensor:
    """Return what `DiffConv2d(kernel_size).conv2d` of stfc-sciml/DifferentialConv2d returns.

    Args:
        input: Shape `(N, C_in, H, W)`.
        weight: Shape `(C_out, C_in/groups, K, K)`, K odd.
        groups, keep_img_grad_at_invalid, edge_kernel, optimized_for: As in `functional`.
    """
    return functional(
        input, weight, edge_kernel=edge_kernel, groups=groups, optimized_for=optimized_for,
        keep_img_grad_at_invalid=keep_img_grad_at_invalid,
    )  # fmt: skip
