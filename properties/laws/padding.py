"""Dilation and padding are ways to write a larger kernel and a larger image."""

import torch
from torch import Tensor

from harness.case import PADDING_MODES, ConvCase
from harness.check import Trial
from harness.law import Law
from harness.taps import pad
from harness.variant import Role, Trait, Value
from properties import moves
from properties.masked_cases import given, twice
from properties.moves import Along, Axes

# -- dilation ----------------------------------------------------------------------------------


def _dilated(case: ConvCase) -> ConvCase | None:
    """Take cases that dilate two taps or more, and where padding is by a mode the whole of it."""
    if all(d == 1 or k == 1 for d, k in zip(case.dilation, case.kernel_size, strict=True)):
        return None
    if case.option("method", "zeros") not in PADDING_MODES:
        return case.with_options(method=None)
    return case


def _stuffed(v: Tensor, axes: Axes, dilation: tuple[int, ...]) -> Tensor:
    for dim, axis in enumerate(axes):
        if axis.along is Along.TAP:
            d, k = dilation[axis.number], v.shape[dim]
            sizes = [d * (k - 1) + 1 if i == dim else size for i, size in enumerate(v.shape)]
            index = torch.arange(k, device=v.device) * d
            v = v.new_zeros(sizes).index_copy(dim, index, v)
    return v


def _stuffs(t: Trial) -> None:
    stuffed = moves.moved(t, lambda v, axes: _stuffed(v, axes, t.case.dilation))
    changed = {"dilation": (1,) * t.case.spatial_dims, "kernel_size": t.case.receptive_field}
    keywords = {name: value for name, value in changed.items() if name in t.keywords}
    t.agree(t.called(keywords, **stuffed), t(), twice(t.bound()), "zeros between the taps")


DILATION_STUFFS = Law(
    id="G14",
    name="dilation_is_a_kernel_with_gaps",
    statement="f(x, w; d) = f(x, w with d - 1 zeros between its taps; 1), masks of taps likewise",
    domain="a kernel that dilation changes; where the border is a method, one that is a padding mode",
    requires=frozenset({Trait.DILATION_IS_STUFFING}),
    within=_dilated,
    check=_stuffs,
)


# -- padding -----------------------------------------------------------------------------------


def _padded_case(case: ConvCase) -> ConvCase | None:
    """Pad at all, and mask the signal before only where the padded mask can do it again."""
    if not any(case.padding):
        return None
    if case.option("padding_mode", "zeros") in ("reflect", "circular"):
        case = case.with_options(apply_mask=None)
    return given(case)


def _by(t: Trial, mode: str) -> moves.Move:
    """Return the move that pads the spatial axes of the image by `mode`."""

    def move(v: Tensor, axes: Axes) -> Tensor:
        own = [axis.number for axis in axes if axis.along is Along.PIXEL]
        return pad(v, [t.case.padding[number] for number in own], mode) if own else v

    return move


def _tiled(t: Trial) -> dict[str, Value]:
    """Return all sources tiled over the image, in one that spans every axis."""
    case = t.case
    x = t.tensors["x"]
    assert isinstance(x, tuple)
    parts = []
    for own, source in zip(moves.spans(case.spatial_dims), x, strict=True):
        if source is not None:
            shape = [size if a in own else 1 for a, size in enumerate(case.in_size)]
            spread = source.reshape(*source.shape[:2], *shape).expand(-1, -1, *case.in_size)
            parts.append(spread.unflatten(1, (case.groups, -1)))
    whole = torch.cat(parts, dim=2).flatten(1, 2)
    padded = pad(whole, case.padding, case.option("padding_mode", "zeros"))
    return {"x": (padded, *(None for _ in x[1:]))}


def _mask_mode(t: Trial, mode: str) -> str:
    """Return how the mask is padded: where centres are clamped into the image, by its edge."""
    axes = zip(t.case.padding, t.case.receptive_field, strict=True)
    beyond = any(2 * p >= field for p, field in axes)
    return "replicate" if beyond and Trait.SCALES_BY_MASK in t.variant.traits else mode


def _pads(t: Trial) -> None:
    case = t.case
    mode = case.option("padding_mode", "zeros")
    signals, masks = t.names(Role.SIGNAL), t.names(Role.MASK)
    if Trait.TILES_SOURCES in t.variant.traits:
        padded = _tiled(t)
    else:
        by_mode, by_edge = (moves.moved(t, _by(t, m)) for m in (mode, _mask_mode(t, mode)))
        padded = {name: by_mode[name] for name in signals} | {name: by_edge[name] for name in masks}
    size = tuple(s + 2 * p for s, p in zip(case.in_size, case.padding, strict=True))
    keywords = {"padding": (0,) * case.spatial_dims}
    keywords |= {"size": size} if "size" in t.keywords else {}
    t.agree(t.called(keywords, **padded), t(), twice(t.bound()), "padded before")


PADDING_IS_FIRST = Law(
    id="G15",
    name="padding_is_a_larger_image",
    statement="f(x, m; p) = f(pad x, pad m; 0), both padded by the mode, a mask by zeros as absent",
    domain="p > 0; tiled sources after tiling; masks by their edge where centres are outside, and there "
    "not applied first to a signal that reflects or wraps",
    requires=frozenset({Trait.PADS_SIGNAL}),
    within=_padded_case,
    check=_pads,
)
