"""Faults in how channels, groups and the bias are told apart, planted into the oracle too."""

from typing import Any

import torch
from torch import Tensor

from harness.mutant import Function
from properties.refuted.geometry import everywhere, on_output


def _filters_fade(y: Tensor, _: Any, **__: Any) -> Tensor:
    scale = torch.arange(y.shape[1], 0, -1, device=y.device).to(y.dtype)
    return y * scale.view(-1, *(1 for _ in y.shape[2:]))


def _groups_answer_for_each_other(y: Tensor, _: Any, *, groups: int, **__: Any) -> Tensor:
    return y.unflatten(1, (groups, -1)).roll(1, 1).flatten(1, 2)


def _groups_count(y: Tensor, _: Any, *, groups: int, **__: Any) -> Tensor:
    return y * groups


def _first_channel_weighs_more(right: Function) -> Function:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(torch.cat([2 * x[:, :1], x[:, 1:]], dim=1), *rest, **keywords)

    return wrong


def _first_channel_masks_all(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        shared = None if mask is None else mask[:, :1].expand_as(mask)
        return right(x, weight, bias, shared, **keywords)

    return wrong


def _first_output_has_no_bias(right: Function) -> Function:
    """The first output along the last axis has no bias."""

    def wrong(x: Any, weight: Any, bias: Any = None, *rest: Any, **keywords: Any) -> Any:
        y = right(x, weight, bias, *rest, **keywords)
        without = right(x, weight, None, *rest, **keywords)
        return torch.cat([without[..., :1], y[..., 1:]], dim=-1)

    return wrong


def _bias_is_not_masked(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, *rest: Any, **keywords: Any) -> Any:
        result = right(x, weight, None, *rest, **keywords)
        if bias is None:
            return result
        term = bias.view(-1, *(1 for _ in result.output.shape[2:]))
        return result._replace(output=result.output + term)

    return wrong


def _negative_bias_is_cut(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any = None, *rest: Any, **keywords: Any) -> Any:
        return right(x, weight, None if bias is None else bias.relu(), *rest, **keywords)

    return wrong


MUTANTS = [
    *everywhere("filters_fade", on_output(_filters_fade), "plain multi_source boundary"),
    *everywhere("groups_answer_for_each_other", on_output(_groups_answer_for_each_other),
                "plain kernel_masked tile_concat"),
    *everywhere("groups_count", on_output(_groups_count), "window_masked diff"),
    *everywhere("first_channel_weighs_more", _first_channel_weighs_more, "plain input_masked"),
    *everywhere("first_channel_masks_all", _first_channel_masks_all, "partial masked"),
    *everywhere("first_output_has_no_bias", _first_output_has_no_bias, "plain tile_concat diff"),
    *everywhere("bias_is_not_masked", _bias_is_not_masked, "partial masked"),
    *everywhere("negative_bias_is_cut", _negative_bias_is_cut, "plain boundary"),
]  # fmt: skip
