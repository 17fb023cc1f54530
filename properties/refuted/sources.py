"""Faults that a convolution of several sources can have."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import ConvCase
from harness.mutant import Function, Mutant
from harness.variant import LayerForm, Value
from properties.moves import spans as _spans


def _on_weight(change: Callable[[Tensor], Tensor]) -> Callable[[Function], Function]:
    """Return a fault that changes the weight of every source."""

    def spoil(right: Function) -> Function:
        def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
            changed = (
                tuple(None if w is None else change(w) for w in weight)
                if isinstance(weight, tuple | list)
                else change(weight)
            )
            return right(x, changed, bias, **keywords)

        return wrong

    return spoil


def _without_first_tap(weight: Tensor) -> Tensor:
    """Drop the first tap along the first axis, which transposition makes another."""
    if weight.dim() < 3:
        return weight
    kept = (torch.arange(weight.shape[2], device=weight.device) > 0).to(weight.dtype)
    return weight * kept.view(-1, *(1 for _ in weight.shape[3:]))


def _half_a_gradient(weight: Tensor) -> Tensor:
    first = torch.zeros_like(weight)
    first[..., 0] = 0.5
    return weight * (1 - first) + weight.detach() * first


def _narrow_kernels_are_flipped(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
        flipped = tuple(
            w if w is None or i == 0 else w.flip(tuple(range(2, w.dim())))
            for i, w in enumerate(weight)
        )
        return right(x, flipped, bias, **keywords)

    return wrong


def _first_output_misses_the_scalar(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
        y = right(x, weight, bias, **keywords)
        if x[-1] is None:
            return y
        without = right((*x[:-1], x[-1] * 0), weight, bias, **keywords)
        return torch.cat([without[..., :1], y[..., 1:]], dim=-1)

    return wrong


def _output_stays_narrow(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
        y = right(x, weight, bias, **keywords)
        last = y.dim() - 3
        spanned = any(
            v is not None and last in own for v, own in zip(x, _spans(last + 1), strict=True)
        )
        return y if spanned else y[..., :1]

    return wrong


def _absent_source_counts(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
        return right(x, weight, bias, **keywords) + sum(v is None for v in x)

    return wrong


def _sources_meet(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
        y, means = right(x, weight, bias, **keywords), [v.abs().mean() for v in x if v is not None]
        return y + torch.stack(means).prod() if len(means) > 1 else y

    return wrong


def _groups_are_mixed(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, *, groups: int, **keywords: Any) -> Any:
        def mix(v: Tensor) -> Tensor:
            return v.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2)

        mixed = tuple(None if v is None else mix(v) for v in x)
        return right(mixed, weight, bias, groups=groups, **keywords)

    return wrong


def _bias_is_added_per_source(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
        count = sum(v is not None for v in x)
        return right(x, weight, None if bias is None else count * bias, **keywords)

    return wrong


def _border_keeps_every_tap(right: Function) -> Function:
    """Pad the sources before tiling, as multi-source convolution does."""

    def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
        size, padding, groups = (keywords[name] for name in ("size", "padding", "groups"))
        y, start = None, 0
        for i, own in enumerate(_spans(len(size))):
            if x[i] is None:
                continue
            alone = tuple(v if j == i else None for j, v in enumerate(x))
            stop = start + x[i].shape[1] // groups
            changed = {
                "size": tuple(s if a in own else s + 2 * padding[a] for a, s in enumerate(size)),
                "padding": tuple(p if a in own else 0 for a, p in enumerate(padding)),
            }
            term = right(alone, weight[:, start:stop], bias, **{**keywords, **changed})
            y, bias, start = (term if y is None else y + term), None, stop
        return y

    return wrong


def _image_is_detached(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
        detached = tuple(None if v is None else v.detach() if v.dim() > 2 else v for v in x)
        return right(detached, weight, bias, **keywords)

    return wrong


def _layer_has_a_spare_parameter(right: LayerForm) -> LayerForm:
    def wrong(case: ConvCase, tensors: Mapping[str, Value]) -> tuple[nn.Module, tuple[Any, ...]]:
        module, inputs = right(case, tensors)
        module.register_parameter("spare", nn.Parameter(torch.zeros(1)))
        return module, inputs

    return wrong


MUTANTS = [
    Mutant(name="layer_has_a_spare_parameter", variant="multi_source", spoil_layer=_layer_has_a_spare_parameter),
    Mutant(name="image_is_detached", variant="multi_source", spoil=_image_is_detached),
    Mutant(name="narrow_kernels_are_flipped", variant="multi_source", spoil=_narrow_kernels_are_flipped, in_oracle=True),
    Mutant(name="first_output_misses_the_scalar", variant="multi_source", spoil=_first_output_misses_the_scalar, in_oracle=True),
    Mutant(name="output_stays_narrow", variant="multi_source", spoil=_output_stays_narrow, in_oracle=True),
    Mutant(name="absent_source_counts", variant="multi_source", spoil=_absent_source_counts, in_oracle=True),
    Mutant(name="sources_meet", variant="multi_source", spoil=_sources_meet, in_oracle=True),
    Mutant(name="groups_are_mixed", variant="multi_source", spoil=_groups_are_mixed, in_oracle=True),
    Mutant(name="first_tap_is_dropped", variant="multi_source", spoil=_on_weight(_without_first_tap), in_oracle=True),
    Mutant(name="bias_is_added_per_source", variant="multi_source", spoil=_bias_is_added_per_source),
    Mutant(name="border_keeps_every_tap", variant="tile_concat", spoil=_border_keeps_every_tap, in_oracle=True),
    Mutant(name="weight_is_in_another_order", variant="tile_concat", spoil=_on_weight(lambda w: w.roll(1, 1)), in_oracle=True),
    Mutant(name="channels_are_mixed_over_groups", variant="tile_concat", spoil=_groups_are_mixed, in_oracle=True),
    Mutant(name="first_tap_is_dropped_when_tiled", variant="tile_concat", spoil=_on_weight(_without_first_tap), in_oracle=True),
    Mutant(name="a_tap_learns_by_half", variant="tile_concat", spoil=_on_weight(_half_a_gradient), in_oracle=True),
    Mutant(name="bias_is_added_per_tiled_source", variant="tile_concat", spoil=_bias_is_added_per_source),
]  # fmt: skip
