"""Where NaN and infinity go: to the outputs whose windows hold them, and nowhere else."""

from itertools import combinations
from math import inf, nan

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.taps import pad, taps
from harness.variant import Trait
from properties.extension_cases import extension_matrix
from properties.masked_cases import geometry, twice

Reads = tuple[Tensor, Tensor]
"""Which outputs must not be finite, and which may be so: `(N, C_out, *S_out)`."""


def _seen(windows: list[Tensor], case: ConvCase) -> Tensor:
    """Return which outputs read anything of `windows (N, C_in, *S_out)`, one per tap."""
    held = torch.stack(windows).sum(0).unflatten(1, (case.groups, -1)).sum(2) > 0
    return held.repeat_interleave(case.c_out // case.groups, 1)


def _windows(t: Trial, touched: Tensor) -> list[tuple[tuple[int, ...], Tensor]]:
    mode = t.case.option("padding_mode", "zeros")
    return list(taps(touched, t.case.kernel_size, padding_mode=mode, **geometry(t.case)))


def _through_masks(t: Trial, touched: Tensor) -> Reads:
    """Windows over the signal: what an input mask hides is not read, masked taps may read."""
    case, traits = t.case, t.variant.traits
    mask = t.tensors.get("mask")
    per_window = Trait.MASKS_WINDOWS in traits
    applied = Trait.SCALES_BY_MASK not in traits or case.option("apply_mask", "False") == "True"
    if isinstance(mask, Tensor) and applied and not per_window:
        touched = touched * (mask > 0)
    windows = _windows(t, touched)
    may = _seen([window for _, window in windows], case)
    if per_window:
        assert isinstance(mask, Tensor)
        return _seen([w * (mask[:, :, *u] > 0) for u, w in windows], case), may
    kept = t.tensors.get("kernel_mask")
    if not isinstance(kept, Tensor):
        return may, may
    filters = (kept > 0).double().expand(case.weight_shape).unflatten(0, (case.groups, -1))
    seen = [
        torch.einsum("ngc...,gkc->ngk...", w.unflatten(1, (case.groups, -1)), filters[(..., *u)])
        for u, w in windows
    ]
    return torch.stack(seen).sum(0).flatten(1, 2) > 0, may


def _continued(t: Trial, touched: Tensor) -> Reads:
    """Windows over the image continued beyond its border."""
    case, method = t.case, t.case.option("method", "diff")
    if Trait.CHOOSES_BOUNDARY in t.variant.traits:
        method = t.case.option("method", "zeros")
    if method in ("diff", "extrapolate"):
        for axis, (size, k, d) in enumerate(
            zip(case.in_size, case.kernel_size, case.dilation, strict=True)
        ):
            matrix = extension_matrix(size, k, d, k - 1 if method == "diff" else k // 2).abs()
            touched = torch.tensordot(touched, matrix, ([2 + axis], [1])).movedim(-1, 2 + axis)
    else:
        mode = method if method in ("reflect", "replicate", "circular") else "zeros"
        touched = pad(touched, case.padding, mode)
    unpadded = geometry(case) | {"padding": (0,) * case.spatial_dims}
    held = _seen([window for _, window in taps(touched, case.kernel_size, **unpadded)], case)
    return held, held


def _of_source(t: Trial, touched: Tensor, axes: tuple[int, ...]) -> Reads:
    """Windows over a source: along its own axes, or over the image that it is tiled to."""
    case, rank = t.case, t.case.spatial_dims
    mode = case.option("padding_mode", "zeros")
    whole = tuple(range(rank))
    if Trait.TILES_SOURCES in t.variant.traits:
        touched = _spread(touched, axes, rank).expand(*touched.shape[:2], *case.in_size)
        axes = whole
    own = {name: [sizes[axis] for axis in axes] for name, sizes in geometry(case).items()}
    kernel = [case.kernel_size[axis] for axis in axes]
    windows = [window for _, window in taps(touched, kernel, padding_mode=mode, **own)]
    held = _spread(_seen(windows, case), axes, rank).expand(case.out_shape)
    return held, held


def _spread(value: Tensor, axes: tuple[int, ...], rank: int) -> Tensor:
    for axis in range(rank):
        value = value if axis in axes else value.unsqueeze(2 + axis)
    return value


def _reads(t: Trial, touched: Tensor, source: int) -> Reads:
    traits = t.variant.traits
    if Trait.TAKES_SOURCES in traits:
        axes = range(t.case.spatial_dims)
        spans = [own for n in range(len(axes), -1, -1) for own in combinations(axes, n)]
        return _of_source(t, touched, spans[source])
    beyond = {Trait.EXTENDS_POLYNOMIALLY, Trait.CHOOSES_BOUNDARY}
    return _continued(t, touched) if beyond & traits else _through_masks(t, touched)


# -- the law -------------------------------------------------------------------------------------


def _read_alone(case: ConvCase) -> ConvCase | None:
    """Leave out what reads more than its windows: statistics of a side, lower degrees."""
    wide = case.option("method", "") == "random" or case.option("degree", "None") != "None"
    return None if wide else case


def _stays(t: Trial) -> None:
    x = t.tensors["x"]
    parts = x if isinstance(x, tuple) else (x,)
    generator = torch.Generator().manual_seed(t.case.seed)
    present = [i for i, part in enumerate(parts) if part is not None]
    source = present[int(torch.randint(len(present), (), generator=generator))]
    part = parts[source]
    assert part is not None
    place = tuple(int(torch.randint(size, (), generator=generator)) for size in part.shape)
    touched = torch.zeros(part.shape, dtype=torch.float64)
    touched[place] = 1
    must, may = _reads(t, touched, source)
    clean = t()
    for word in (nan, inf):
        spoiled = part.clone()
        spoiled[place] = word
        given = (
            (*parts[:source], spoiled, *parts[source + 1 :]) if isinstance(x, tuple) else spoiled
        )
        got = t(x=given)
        finite = got["output"].isfinite().cpu()
        t.require(not bool((must & finite).any()), f"{word} in x{list(place)} is lost on its way")
        # where nothing overflows without it
        far = bool((~may & ~finite & clean["output"].isfinite().cpu()).any())
        t.require(not far, f"{word} in x{list(place)} reaches outputs that do not read it")
        apart = {**got, "output": got["output"].masked_fill(may.to(t.device), 0)}
        expected = {**clean, "output": clean["output"].masked_fill(may.to(t.device), 0)}
        t.agree(apart, expected, twice(t.bound()), f"apart from {word} in x{list(place)}")


NON_FINITE_STAYS = Law(
    id="G36",
    name="non_finite_stays_in_its_windows",
    statement="NaN or Inf in one pixel: not finite is what reads it as present, and nothing else",
    domain="under a masked tap either; not boundary 'random', nor a degree below kernel_size - 1; not "
    "bfloat16, whose products the library's convolution fills up with 0 * NaN",
    dtypes=("float32", "float64", "float16"),
    within=_read_alone,
    check=_stays,
    share=0.6,
    zero_is_right=True,
)
