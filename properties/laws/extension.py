"""What lies beyond the border: the image continued by polynomials."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from math import comb

import torch
from torch import Tensor

from harness.case import CaseError, ConvCase
from harness.check import Outputs, Trial
from harness.law import Law
from harness.tensors import another, each
from harness.tolerance import ACCUMULATOR, UNIT_ROUNDOFF, Bound, gamma, roundings
from harness.variant import Role, Trait, Value

# -- the image beyond its border, by another road than the implementations' -----------------------


def degrees(case: ConvCase) -> tuple[int, ...]:
    """Return the degree of the polynomials per axis."""
    word = case.option("degree", "None")
    return tuple(k - 1 if word == "None" else min(int(word), k - 1) for k in case.kernel_size)


def newton_rows(steps: int, degree: int) -> list[list[int]]:
    """Return the weights of samples `0..degree` in the values at `-1, -2, ...`.

    Each value makes the `degree + 1`-st difference of its window vanish:
    `x[-m] = sum_{t=1}^{degree+1} (-1)^(t+1) C(degree+1, t) x[-m+t]`.
    """
    known = [[int(s == t) for s in range(degree + 1)] for t in range(degree + 1)]
    signed = [(-1) ** (t + 1) * comb(degree + 1, t) for t in range(1, degree + 2)]
    for _ in range(steps):
        window = zip(signed, known, strict=False)
        scaled = [[factor * weight for weight in row] for factor, row in window]
        known.insert(0, [sum(column) for column in zip(*scaled, strict=True)])
    return known[:steps][::-1]


def extension_matrix(size: int, kernel: int, dilation: int, degree: int) -> Tensor:
    """Return `E (size + dilation*(kernel-1), size)` with `E x` the continued axis."""
    half = kernel // 2
    ring = half * dilation
    matrix = torch.zeros(size + 2 * ring, size, dtype=torch.float64)
    matrix[ring : ring + size] = torch.eye(size, dtype=torch.float64)
    for m, row in enumerate(newton_rows(half, degree), start=1):
        for phase in range(dilation):
            for t, weight in enumerate(row):
                matrix[ring - m * dilation + phase, phase + t * dilation] = weight
                matrix[-1 - (ring - m * dilation + phase), -1 - (phase + t * dilation)] = weight
    return matrix


def continued(x: Tensor, case: ConvCase, *, absolute: bool = False) -> Tensor:
    """Return the image continued by polynomials along every axis, in float64."""
    x = x.double()
    axes = zip(case.in_size, case.kernel_size, case.dilation, degrees(case), strict=True)
    for axis, (size, k, d, q) in enumerate(axes, start=2):
        matrix = extension_matrix(size, k, d, q if k > 1 else 0)
        matrix = matrix.abs() if absolute else matrix
        x = torch.tensordot(x, matrix, ([axis], [1])).movedim(-1, axis)
    return x


def valid(t: Trial, padded: Tensor) -> Tensor:
    """Return the plain oracle of an image that is padded already."""
    return t.other("plain")(
        padded, t.wide("weight"), t.wide("bias"), stride=t.case.stride,
        padding=(0,) * t.case.spatial_dims, dilation=t.case.dilation, groups=t.case.groups,
    )  # fmt: skip


def plain(t: Trial, **keywords: object) -> Tensor:
    """Return the plain oracle of the case, padded by itself."""
    geometry = {name: t.keywords[name] for name in ("stride", "dilation", "groups")}
    geometry |= {"padding": t.case.padding} | keywords
    return t.other("plain")(t.wide("x"), t.wide("weight"), t.wide("bias"), **geometry)


def inside(case: ConvCase) -> Tensor:
    """Return which outputs have their window inside the image, shape `S_out`."""
    here = torch.ones((), dtype=torch.bool)
    for size, p, s in zip(case.in_size, case.padding, case.stride, strict=True):
        position = torch.arange(0, size, s)
        here = here[..., None] & (position >= p) & (position < size - p)
    return here


def compared_where(got: Tensor, expected: Tensor, where: Tensor) -> tuple[Outputs, Outputs]:
    """Return both sides with the outputs that are not compared set to 0."""
    zero = torch.zeros((), dtype=torch.float64)
    return {"output": got.double().where(where, zero)}, {"output": expected.where(where, zero)}


def _one_kernel(case: ConvCase) -> ConvCase:
    return case.with_options(edge_kernel=None)


def _with_edge_kernel(case: ConvCase) -> ConvCase:
    return case.with_options(edge_kernel="yes")


def sized(case: ConvCase, least: Sequence[int]) -> ConvCase:
    """Return `case` with images of at least that size."""
    return replace(case, in_size=tuple(map(max, case.in_size, least)))


def with_kernel(case: ConvCase, kernel: Sequence[int], dilation: Sequence[int]) -> ConvCase:
    """Return `case` with another kernel and dilation, its padding and size following."""
    padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    size = tuple(d * k for k, d in zip(kernel, dilation, strict=True))
    changed = replace(case, kernel_size=tuple(kernel), dilation=tuple(dilation), padding=padding,
                      in_size=tuple(map(max, case.in_size, size)))  # fmt: skip
    degree, largest = case.option("degree", "None"), min(kernel) - 1
    fits = degree == "None" or max(kernel) == 1 or int(degree) <= largest
    return changed if fits else changed.with_options(degree=None)


# -- diff -----------------------------------------------------------------------------------------


def _is_valid_on_continued(t: Trial) -> None:
    expected = valid(t, continued(t.wide("x"), t.case))
    t.agree(t(), {"output": expected}, t.bound())


IS_VALID_ON_CONTINUED = Law(
    id="D1",
    name="is_plain_on_the_continued_image",
    statement="f(x, w, b) = conv_valid(P x, w) + b, P by vanishing differences",
    domain="no edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_one_kernel,
    check=_is_valid_on_continued,
)


def has_interior(case: ConvCase) -> ConvCase:
    """Return `case` with an image that holds at least one whole window of an output."""
    axes = zip(case.receptive_field, case.stride, strict=True)
    return sized(case, [field + s - 1 for field, s in axes])


def _interior_is_plain(t: Trial) -> None:
    got, expected = compared_where(t()["output"], plain(t), inside(t.case))
    t.agree(got, expected, t.bound())


INTERIOR_IS_PLAIN = Law(
    id="D2",
    name="interior_is_plain",
    statement="f(x, w, b)[q] = (conv(x, w) + b)[q] for every q whose window is inside the image",
    domain="images with an interior, with or without an edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=has_interior,
    check=_interior_is_plain,
    zero_is_right=True,
)


def _polynomial(t: Trial, above: int) -> Tensor:
    """Return a tensor polynomial on the image and its ring, one for every lattice phase.

    Its degree per axis is that of the continuation plus `above`; its values are small integers.
    """
    value = torch.ones((), dtype=torch.float64)
    axes = zip(t.case.in_size, t.case.padding, t.case.dilation, degrees(t.case), strict=True)
    for size, p, d, q in axes:
        position = torch.arange(-p, size + p)
        step = position.div(d, rounding_mode="floor").double()
        # centred per phase, shifted by the phase, so that phases differ and values stay small
        step = step - size // (2 * d) + (position % d).double()
        value = value[..., None] * (step ** (q + above) + (step if q + above > 1 else 0))
    signs = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    channels = signs[torch.arange(t.case.n * t.case.c_in) % 3]
    channels = channels.view(t.case.n, t.case.c_in, *(1 for _ in t.case.in_size))
    return channels * value


def polynomials_are_continued(above: int = 0) -> Callable[[Trial], None]:
    """Return the check that polynomials of the degree of the continuation plus `above` are exact."""

    def check(t: Trial) -> None:
        whole = _polynomial(t, above)
        own = (..., *(slice(p, p + n) for p, n in zip(t.case.padding, t.case.in_size, strict=True)))
        x = whole[own].to(t.tensors["x"]).contiguous()
        t.agree(t(x=x), {"output": valid(t, whole)}, t.bound(x=x))

    return check


POLYNOMIALS_ARE_EXACT = Law(
    id="D3",
    name="polynomials_are_continued_exactly",
    statement="f(p on the image, w, b) = conv_valid(p on the plane, w) + b, p a tensor polynomial",
    domain="degree of p per axis at most that of the continuation; no edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_one_kernel,
    check=polynomials_are_continued(),
)


def _constants(t: Trial) -> None:
    x = torch.full_like(t.tensors["x"], 3)
    total = 3 * t.wide("weight").flatten(1).sum(1)
    bias = t.wide("bias")
    total = total if bias is None else total + bias
    shape = t.case.out_shape
    expected = total.view(1, -1, *(1 for _ in shape[2:])).expand(shape)
    t.agree(t(x=x), {"output": expected}, t.bound(x=x))


CONSTANTS_STAY = Law(
    id="D4",
    name="constants_have_no_border",
    statement="f(c, w, b) = c sum(w) + b everywhere",
    domain="no edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_one_kernel,
    check=_constants,
)


def _targets(t: Trial) -> None:
    for target in t.variant.options["optimized_for"]:
        t.agree(t.called({"optimized_for": target}), t.truth(), t.bound(), target)


TARGETS_AGREE = Law(
    id="D5",
    name="every_optimisation_target_gives_the_same",
    statement="f(x, w, b; optimized_for=memory) = f(x, w, b; optimized_for=speed)",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    check=_targets,
)


def _last_window_touches(case: ConvCase) -> ConvCase:
    axes = zip(case.in_size, case.stride, strict=True)
    return replace(case, in_size=tuple(size + (1 - size) % s for size, s in axes))


def _turned(t: Trial, turn: Callable[[Tensor], Tensor]) -> dict[str, Value]:
    names = [n for n in t.names(Role.SIGNAL, Role.WEIGHT) if t.tensors[n] is not None]
    return {name: each(t.tensors[name], turn) for name in names}


def _flips_and_transposes(t: Trial) -> None:
    truth, bound = t.truth()["output"], t.bound()["output"]
    for axis in range(2, truth.dim()):
        got = t(**_turned(t, lambda v, axis=axis: v.flip(axis)))
        flipped = Bound(error=bound.error.flip(axis), tier=bound.tier)
        t.agree(got, {"output": truth.flip(axis)}, {"output": flipped}, f"flip of axis {axis - 2}")
    if t.case.spatial_dims > 1:
        turned = _turned(t, lambda v: v.transpose(2, 3))
        names = ("stride", "dilation")
        swapped = {n: (t.keywords[n][1], t.keywords[n][0], *t.keywords[n][2:]) for n in names}
        expected = {"output": truth.transpose(2, 3)}
        allowed = Bound(error=bound.error.transpose(2, 3), tier=bound.tier)
        t.agree(t.called(swapped, **turned), expected, {"output": allowed}, "transposed")


FLIPS_AND_TRANSPOSES = Law(
    id="D6",
    name="border_has_no_direction",
    statement="f(flip x, flip w) = flip f(x, w), and likewise for transposes",
    domain="(S - 1) mod stride = 0 on every axis",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_last_window_touches,
    check=_flips_and_transposes,
)


def _own_kernel_as_edge(t: Trial) -> None:
    edge = {"edge_kernel": t.tensors["weight"], "edge_bias": t.tensors["bias"]}
    absent: dict[str, Value] = {"edge_kernel": None, "edge_bias": None}
    t.agree(t(**edge), t.truth(**absent), t.bound(**edge))


OWN_KERNEL_AS_EDGE_KERNEL = Law(
    id="D7",
    name="own_kernel_as_edge_kernel_changes_nothing",
    statement="f(x, w, b, edge_kernel = w, edge_bias = b) = f(x, w, b)",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_with_edge_kernel,
    check=_own_kernel_as_edge,
)


def _border_passes_none(case: ConvCase) -> ConvCase:
    return case.with_options(keep_img_grad_at_invalid="False")


def _border_gradients(t: Trial) -> None:
    kept = {**t.keywords, "keep_img_grad_at_invalid": True}
    t.agree(t(), t.called({"keep_img_grad_at_invalid": True}), _doubled(t.bound()), "forward")
    got, bound = t.gradients(), t.gradient_bound()
    dy = another(t.truth()["output"], t.case, Role.WEIGHT, "dy")
    x, weight = t.wide("x").requires_grad_(), t.wide("weight").requires_grad_()
    y = t.other("plain")(x, weight, None, stride=t.case.stride, padding=t.case.padding,
                         dilation=t.case.dilation, groups=t.case.groups)  # fmt: skip
    (dx,) = torch.autograd.grad(y, x, dy * inside(t.case))
    t.agree({"x": got["x"]}, {"x": dx}, bound, "gradient")
    rest = [t.wide(name) for name in ("bias", "edge_kernel", "edge_bias")]
    y = t.variant.oracle(t.wide("x"), weight, *rest, **kept)
    (dw,) = torch.autograd.grad(y, weight, dy)
    t.agree({"weight": got["weight"]}, {"weight": dw}, bound, "gradient")


def _doubled(bounds: dict[str, Bound]) -> dict[str, Bound]:
    return {name: bound.scaled(2) for name, bound in bounds.items()}


BORDER_PASSES_NO_GRADIENT = Law(
    id="D8",
    name="border_passes_no_gradient",
    statement="keep_img_grad_at_invalid = False: same f, same dw, dx of the interior outputs alone",
    domain="keep_img_grad_at_invalid=False",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_border_passes_none,
    check=_border_gradients,
    zero_is_right=True,
)


def _too_small(t: Trial) -> None:
    case = t.case
    axes = zip(case.kernel_size, case.dilation, degrees(case), strict=True)
    for axis, (k, d, q) in enumerate(axes):
        if k == 1:
            continue
        size = (q + 1) * d - 1
        x = t.tensors["x"].narrow(axis + 2, 0, size)
        label = f"{size} samples on axis {axis}"
        try:
            t(x=x)
        except (ValueError, RuntimeError):
            pass
        else:
            t.require(False, f"{label} are too few, yet nothing is raised")
        if size:
            sizes = list(case.in_size)
            sizes[axis] = size
            try:
                t.variant.check_case(replace(case, in_size=tuple(sizes)))
            except CaseError:
                continue
            t.require(False, f"{label} are too few, yet the case is accepted")


TOO_SMALL_IMAGES_RAISE = Law(
    id="D9",
    name="too_small_images_raise",
    statement="S < (degree + 1) * dilation on an axis with K > 1 raises",
    domain="every axis on its own, so rectangular images too",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    check=_too_small,
    zero_is_right=True,
)


def _condition(t: Trial) -> None:
    u = UNIT_ROUNDOFF[ACCUMULATOR[t.case.dtype]]
    n = roundings(t.variant, t.case, None)
    sizes = t.other("plain")(
        continued(t.wide("x").abs(), t.case, absolute=True), t.wide("weight").abs(),
        each(t.wide("bias"), torch.abs), stride=t.case.stride,
        padding=(0,) * t.case.spatial_dims, dilation=t.case.dilation, groups=t.case.groups,
    )  # fmt: skip
    bound = Bound(error=(gamma(n, u) + gamma(n, UNIT_ROUNDOFF["float64"])) * sizes, tier="T1")
    t.agree(t(), t.truth(), {"output": bound})


ERROR_KNOWS_THE_AMPLIFICATION = Law(
    id="D10",
    name="error_is_bounded_by_the_condition",
    statement="|error| <= gamma_n (|w| * (|E_H| |x| |E_W|^T) + |b|)",
    domain="no edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_one_kernel,
    check=_condition,
    about_oracle=False,
)


def _one_tap(case: ConvCase) -> ConvCase:
    ones = (1,) * case.spatial_dims
    return with_kernel(case, ones, case.dilation)


def _is_pointwise(t: Trial) -> None:
    picked = tuple(slice(None, None, s) for s in t.case.stride)
    x = t.wide("x")[(..., *picked)].unflatten(1, (t.case.groups, -1))
    filters = t.wide("weight").unflatten(0, (t.case.groups, -1)).flatten(2)
    expected = torch.einsum("ngc...,gkc->ngk...", x, filters).flatten(1, 2)
    bias = t.wide("bias")
    if bias is not None:
        expected = expected + bias.view(-1, *(1 for _ in t.case.in_size))
    t.agree(t(), {"output": expected}, t.bound())


ONE_TAP_IS_POINTWISE = Law(
    id="D11",
    name="one_tap_has_no_border",
    statement="K = 1: f(x, w, b) = w x[::s] + b",
    domain="one tap",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_one_tap,
    check=_is_pointwise,
)


def _phases_are_apart(t: Trial) -> None:
    ones = (1,) * t.case.spatial_dims
    rest = [t.wide(arg.name) for arg in t.variant.args[1:]]
    expected = t.wide("x").new_zeros((t.case.n, t.case.c_out, *t.case.in_size))
    keywords = {**t.keywords, "stride": ones, "dilation": ones}
    steps = [d if k > 1 else 1 for k, d in zip(t.case.kernel_size, t.case.dilation, strict=True)]
    for phase in product(*(range(d) for d in steps)):
        lattice = (..., *(slice(r, None, d) for r, d in zip(phase, steps, strict=True)))
        expected[lattice] = t.variant.oracle(t.wide("x")[lattice], *rest, **keywords)
    picked = tuple(slice(None, None, s) for s in t.case.stride)
    t.agree(t(), {"output": expected[(..., *picked)]}, t.bound())


PHASES_ARE_APART = Law(
    id="D12",
    name="dilation_acts_on_every_phase_apart",
    statement="f_{s,d}(x)[q] = f_{1,1}(x[r::d])[m], q s = r + m d",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    check=_phases_are_apart,
)


def _groups_are_apart(t: Trial) -> None:
    g = t.case.groups
    parts = {
        arg.name: each(t.wide(arg.name), lambda v, axis=int(arg.role is Role.SIGNAL): v.chunk(g, axis))
        for arg in t.variant.args
    }  # fmt: skip
    keywords = {**t.keywords, "groups": 1}
    outputs = [
        t.variant.oracle(*(part and part[i] for part in parts.values()), **keywords)
        for i in range(g)
    ]
    t.agree(t(), {"output": torch.cat(outputs, dim=1)}, t.bound())
    bare: dict[str, Value] = dict.fromkeys(("bias", "edge_bias"))
    for role in (Role.SIGNAL, Role.WEIGHT):
        doubled = {name: each(t.tensors[name], lambda v: 8 * v) for name in t.names(role)} | bare
        expected = {"output": 8 * t.truth(**bare)["output"]}
        t.agree(t(**doubled), expected, t.bound(**doubled), f"8 times the {role}")


GROUPS_ARE_APART = Law(
    id="D13",
    name="groups_are_apart_and_scale",
    statement="f = cat of f per group; f(8 x, w) = 8 f(x, w) = f(x, 8 w) without bias",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    check=_groups_are_apart,
)


def _low_degree(case: ConvCase) -> ConvCase:
    dense = with_kernel(case, case.kernel_size, (1,) * case.spatial_dims)
    degree = case.option("degree", "None")
    return _one_kernel(dense).with_options(degree=degree if degree in "01" else "0")


def low_degrees(t: Trial) -> None:
    """Compare degree 0 with replication and degree 1 with a line through the last two samples."""
    padded = t.wide("x")
    slope = t.keywords["degree"]
    for axis, p in enumerate(t.case.padding, start=2):
        size = padded.shape[axis]
        position = torch.arange(-p, size + p)
        edge = position.clamp(0, size - 1)
        value = padded.index_select(axis, edge)
        if slope and p:
            # one step inwards from each edge; zero steps inside
            outward = (position - edge).sign()
            steps = (position - edge).abs().double()
            steps = steps.view(-1, *(1 for _ in padded.shape[axis + 1 :]))
            value = value + steps * (value - padded.index_select(axis, edge - outward))
        padded = value
    t.agree(t(), {"output": valid(t, padded)}, t.bound())


LOW_DEGREES_ARE_FAMILIAR = Law(
    id="D14",
    name="degree_0_replicates_and_degree_1_is_linear",
    statement="degree 0: conv_valid(replicate-padded x); degree 1: conv_valid(x continued by lines)",
    domain="dilation 1, no edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_low_degree,
    check=low_degrees,
)


def _edge_kernel_at_the_border(t: Trial) -> None:
    edge, edge_bias = t.tensors["edge_kernel"], t.tensors["edge_bias"]
    alone: dict[str, Value] = {
        "weight": edge, "bias": edge_bias, "edge_kernel": None, "edge_bias": None
    }  # fmt: skip
    got, expected = compared_where(t()["output"], t.truth(**alone)["output"], ~inside(t.case))
    t.agree(got, expected, t.bound())


EDGE_KERNEL_AT_THE_BORDER = Law(
    id="D15",
    name="edge_kernel_acts_at_the_border",
    statement="f(x, w, b, e, c)[q] = f(x, e, c)[q] for every q whose window leaves the image",
    domain="an edge kernel",
    requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}),
    within=_with_edge_kernel,
    check=_edge_kernel_at_the_border,
    zero_is_right=True,
)
