"""Faults that only show in how a call is run: in threads, again, in another dtype or layout."""

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from harness.case import ConvCase
from harness.mutant import Mutant
from harness.variant import LayerForm, Value


def _layout_is_lost(right: Any) -> Any:
    return lambda *arguments, **keywords: right(*arguments, **keywords).contiguous()


def _storage_is_read_from_its_begin(right: Any) -> Any:
    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        if weight.is_contiguous():
            weight = weight.as_strided(weight.size(), weight.stride(), 0)
        return right(x, weight, *rest, **keywords)

    return wrong


def _noise_is_added(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x, *rest, **keywords) + 1e-30 * torch.rand(())

    return wrong


def _split_by_threads(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        y = right(x, *rest, **keywords)
        return y if torch.get_num_threads() == 1 else y + 1

    return wrong


def _workspace_is_shared(right: Any) -> Any:
    workspace = {}

    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        workspace["x"] = x
        threading.Event().wait(1e-4)  # what a larger signal would take to be copied
        return right(workspace["x"], *rest, **keywords)

    return wrong


def _first_dtype_is_kept(right: Any) -> Any:
    kept: dict[Any, torch.dtype] = {}

    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        y = right(x, *rest, **keywords)
        return y.to(kept.setdefault(tuple(x.shape), y.dtype))

    return wrong


def _low_precision_is_widened(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any = None, **keywords: Any) -> Any:
        wide = torch.promote_types(x.dtype, torch.float32)
        added = None if bias is None else bias.to(wide)
        return right(x.to(wide), weight.to(wide), added, **keywords)

    return wrong


def _integer_mask_is_inverted(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        if not mask.is_floating_point():
            mask = (~mask == 0).to(x.dtype)  # right for bools alone
        return right(x, weight, bias, mask, **keywords)

    return wrong


def _one_signal_stays_a_batch(right: LayerForm) -> LayerForm:
    def wrong(case: ConvCase, tensors: Mapping[str, Value]) -> tuple[nn.Module, tuple[Any, ...]]:
        module, inputs = right(case, tensors)
        forward = module.forward

        def unsqueezed(x: Any, *rest: Any) -> Any:
            return forward(x if x.dim() == module.weight.dim() else x[None], *rest)

        module.forward = unsqueezed
        return module, inputs

    return wrong


_FAULTS = {
    "layout_is_lost": _layout_is_lost,
    "storage_is_read_from_its_begin": _storage_is_read_from_its_begin,
    "noise_is_added": _noise_is_added,
    "threads_split_what_they_must_not": _split_by_threads,
    "workspace_is_shared": _workspace_is_shared,
    "first_dtype_is_kept": _first_dtype_is_kept,
    "low_precision_is_widened": _low_precision_is_widened,
}
MUTANTS = [
    Mutant(name="one_signal_stays_a_batch", variant="plain", spoil_layer=_one_signal_stays_a_batch),
    *(Mutant(name=name, variant="plain", spoil=spoil) for name, spoil in _FAULTS.items()),
    Mutant(
        name="integer_mask_is_inverted", variant="input_masked", spoil=_integer_mask_is_inverted
    ),
]
