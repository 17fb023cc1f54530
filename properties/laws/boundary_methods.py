"""The methods that continue an image, each by what it is."""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.tensors import each
from harness.variant import Trait, Value
from properties.extension_cases import (
    compared_where,
    has_interior,
    inside,
    plain,
    sized,
    valid,
    with_kernel,
)

LIBRARY_MODES = ("zeros", "reflect", "replicate", "circular")


def _method(case: ConvCase) -> str:
    return case.option("method", "zeros")


def _roomy(case: ConvCase) -> ConvCase:
    """Return `case` with room for every method."""
    axes = zip(case.kernel_size, case.dilation, strict=True)
    return sized(case, [k * d for k, d in axes])


def _by(*methods: str) -> Callable[[ConvCase], ConvCase]:
    def within(case: ConvCase) -> ConvCase:
        kept = _method(case) in methods
        return _roomy(case if kept else case.with_options(method=methods[case.seed % len(methods)]))

    return within


def _is_library_mode(t: Trial) -> None:
    expected = plain(t, padding_mode=_method(t.case))
    t.agree(t(), {"output": expected}, t.bound())


LIBRARY_MODES_ARE_PLAIN = Law(
    id="B1",
    name="library_modes_are_plain",
    statement="f(x, w, b; method) = conv(x, w; padding_mode = method) + b",
    domain="zeros, reflect, replicate, circular",
    requires=frozenset({Trait.CHOOSES_BOUNDARY}),
    within=_by(*LIBRARY_MODES),
    check=_is_library_mode,
)


def _explicit(t: Trial) -> None:
    kernel_size, rank = t.case.kernel_size, t.case.spatial_dims
    one = t.wide("weight")[(0,) * rank]
    weight = t.tensors["weight"][(0,) * rank].expand_as(t.tensors["weight"])
    geometry = {name: t.keywords[name] for name in ("stride", "dilation", "groups")}
    zeros = t.other("plain")(
        t.wide("x"), one, t.wide("bias"), padding=t.case.padding, **geometry
    )  # fmt: skip
    t.agree(t(weight=weight), {"output": zeros}, t.bound(weight=weight), "equal kernels")
    # every kernel sees only the centre of its window and answers with its own number
    numbers = torch.arange(prod(kernel_size)).view(kernel_size)
    centre = (..., *(k // 2 for k in kernel_size))
    numbered = torch.zeros_like(t.tensors["weight"])
    numbered[centre] = numbers.view(*kernel_size, 1, 1).to(numbered)
    expected = torch.zeros((), dtype=torch.long)
    axes = zip(t.case.in_size, kernel_size, t.case.stride, t.case.dilation, strict=True)
    for size, k, s, d in axes:
        window = torch.arange(0, size, s)[:, None] + d * (torch.arange(k) - k // 2)
        index = k // 2 - (window < 0).sum(1) + (window >= size).sum(1)
        expected = expected[..., None] * k + index
    channels = t.case.c_in // t.case.groups
    got = t(x=torch.ones_like(t.tensors["x"]), weight=numbered, bias=None)
    whole = (expected * channels).double().expand(t.case.out_shape)
    t.agree(got, {"output": whole})


EXPLICIT_HAS_A_KERNEL_PER_DISPLACEMENT = Law(
    id="B2",
    name="explicit_has_a_kernel_per_displacement",
    statement="equal kernels: zero padding; else the kernel counts the taps missing on each side",
    domain="explicit",
    requires=frozenset({Trait.CHOOSES_BOUNDARY}),
    within=_by("explicit"),
    check=_explicit,
    zero_is_right=True,
)


def _is_partial(t: Trial) -> None:
    geometry = {name: t.keywords[name] for name in ("stride", "dilation", "groups")}
    expected = t.other("partial")(
        t.wide("x"), t.wide("weight"), t.wide("bias"), None, padding=t.case.padding, **geometry
    )
    t.agree(t(), {"output": expected.output}, t.bound())


PARTIAL_IS_PARTIAL = Law(
    id="B3",
    name="partial_is_the_partial_variant",
    statement="f(x, w, b; partial) = partial(x, w, b, m = 1)",
    domain="partial, every image size",
    requires=frozenset({Trait.CHOOSES_BOUNDARY}),
    within=lambda case: case.with_options(method="partial"),
    check=_is_partial,
)


def _random_ring(t: Trial) -> None:
    """Compare with a ring built position by position."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(t.case.seed)
        first = t()
        torch.manual_seed(t.case.seed + 1)
        t.agree(t(), first, None, "another state of the random numbers")
    x, noise = t.wide("x"), t.wide("noise")
    whole = torch.nn.functional.pad(x, [p for q in reversed(t.case.padding) for p in (q, q)])
    for place in product(*(range(size) for size in whole.shape[2:])):
        sides = list(_sides_near(t.case, x, place))
        if sides:
            mean = torch.stack([rows.mean(2) for rows in sides]).mean(0)
            deviation = torch.stack([rows.std(2, correction=0) for rows in sides]).mean(0)
            whole[(..., *place)] = mean + deviation * noise[(..., *place)]
    t.agree(first, {"output": valid(t, whole)}, t.bound())


def _sides_near(case: ConvCase, x: Tensor, place: Sequence[int]) -> list[Tensor]:
    """Return the nearest rows of every side that the ring's position lies beyond."""
    position = [q - p for q, p in zip(place, case.padding, strict=True)]
    steps = [d if k > 1 else 1 for k, d in zip(case.kernel_size, case.dilation, strict=True)]
    phase = x[(..., *(slice(q % d, None, d) for q, d in zip(position, steps, strict=True)))]
    found = []
    axes = zip(position, case.in_size, case.kernel_size, strict=True)
    for axis, (q, size, k) in enumerate(axes, start=2):
        rows = (k + 1) // 2
        if q < 0:
            found.append(phase.narrow(axis, 0, rows).flatten(2))
        elif q >= size:
            found.append(phase.narrow(axis, phase.shape[axis] - rows, rows).flatten(2))
    return found


RANDOM_IS_A_FUNCTION_OF_ITS_NOISE = Law(
    id="B4",
    name="random_is_a_function_of_its_noise",
    statement="ring = local mean + local deviation * noise, whatever the global random state",
    domain="random",
    requires=frozenset({Trait.CHOOSES_BOUNDARY}),
    within=_by("random"),
    check=_random_ring,
    share=0.5,
)


def _cubic_kernel(case: ConvCase) -> ConvCase:
    cubic = with_kernel(case, (case.kernel_size[0],) * case.spatial_dims, case.dilation)
    method = _method(case) if _method(case) == "diff" else "extrapolate"
    return cubic.with_options(method=method)


def _is_diff(t: Trial) -> None:
    degree = t.case.kernel_size[0] // 2 if _method(t.case) == "extrapolate" else None
    geometry = {name: t.keywords[name] for name in ("stride", "dilation", "groups")}
    expected = t.other("diff")(
        t.wide("x"), t.wide("weight"), t.wide("bias"), degree=degree, **geometry
    )
    t.agree(t(), {"output": expected}, t.bound())


EXTRAPOLATE_IS_DIFF = Law(
    id="B5",
    name="extrapolate_is_diff_of_half_the_degree",
    statement="f(extrapolate) = diff(degree = (K-1)/2), f(diff) = diff(degree = K-1)",
    domain="extrapolate, diff; one kernel side for all axes",
    requires=frozenset({Trait.CHOOSES_BOUNDARY}),
    within=_cubic_kernel,
    check=_is_diff,
)


def _no_noise(t: Trial) -> None:
    silent: dict[str, Value] = {"noise": each(t.tensors["noise"], torch.zeros_like)}
    t.agree(t(noise=None), t(**silent), None, "no noise")


NO_NOISE_IS_ZERO_NOISE = Law(
    id="B6",
    name="no_noise_is_zero_noise",
    statement="f(x, w, b, noise = None) = f(x, w, b, noise = 0): what evaluation computes",
    domain="random",
    requires=frozenset({Trait.CHOOSES_BOUNDARY}),
    within=_by("random"),
    check=_no_noise,
)


def _methods_meet_inside(t: Trial) -> None:
    weight = t.wide("weight")
    if _method(t.case) == "explicit":
        weight = weight[tuple(k // 2 for k in t.case.kernel_size)]
    geometry = {name: t.keywords[name] for name in ("stride", "dilation", "groups")}
    whole = t.other("plain")(
        t.wide("x"), weight, t.wide("bias"), padding=t.case.padding, **geometry
    )
    got, expected = compared_where(t()["output"], whole, inside(t.case))
    t.agree(got, expected, t.bound())


METHODS_MEET_INSIDE = Law(
    id="B7",
    name="methods_differ_at_the_border_alone",
    statement="f(x, w, b; method)[q] = (conv(x, w) + b)[q] for every q whose window is inside",
    domain="images with an interior, every method",
    requires=frozenset({Trait.CHOOSES_BOUNDARY}),
    within=has_interior,
    check=_methods_meet_inside,
    zero_is_right=True,
)
