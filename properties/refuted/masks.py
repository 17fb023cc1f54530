"""Faults that masked convolutions can have."""

from collections.abc import Callable
from typing import Any

import torch

from harness.mutant import Mutant
from harness.taps import correlate, pad

Function = Callable[..., Any]


def _spoils_mask(change: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Return the fault of using `change(mask)` for the mask."""

    def spoil(right: Function) -> Function:
        def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
            changed = None if mask is None else change(mask)
            return right(x, weight, bias, changed, **keywords)

        return wrong

    return spoil


def _spoils_outputs(change: Callable[..., tuple[Any, Any]]) -> Callable[[Function], Function]:
    """Return the fault of giving back `change(output, mask', x, weight, bias, mask)`."""

    def spoil(right: Function) -> Function:
        def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
            result = right(x, weight, bias, mask, **keywords)
            if isinstance(result, torch.Tensor):
                return change(result, None, x, weight, bias, mask)[0]
            return type(result)(*change(*result, x, weight, bias, mask))

        return wrong

    return spoil


def _opposite(mask: Any) -> Any:
    return ~mask if mask.dtype == torch.bool else 1 - mask


def _squared(mask: Any) -> Any:
    return mask if mask.dtype == torch.bool else mask * mask


def _ignored_for_copies(axis: int) -> Callable[[Function], Function]:
    """The fault of reading a mask that is shared along `axis` for the first entry alone."""

    def spoil(right: Function) -> Function:
        def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
            if mask is not None and mask.shape[axis] == 1 < x.shape[axis]:
                sizes = [x.shape[a] if a == axis else size for a, size in enumerate(mask.shape)]
                first = mask
                mask = torch.ones_like(mask).expand(sizes).clone()
                mask.narrow(axis, 0, 1).copy_(first)
            return right(x, weight, bias, mask, **keywords)

        return wrong

    return spoil


def _multiplied(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        return right(x * mask.to(x.dtype), weight, bias, torch.ones_like(mask), **keywords)

    return wrong


def _leaks_gradients(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        full = right(x, weight, bias, torch.ones_like(mask), **keywords)
        return right(x, weight, bias, mask, **keywords) + (full - full.detach())

    return wrong


def _drops_lone_pixels(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        lone = int((mask != 0).sum()) == 1
        return right(x, weight, bias, torch.zeros_like(mask) if lone else mask, **keywords)

    return wrong


def _premasks_only_without_option(right: Function) -> Function:
    def wrong(*args: Any, apply_mask: bool = False, **keywords: Any) -> Any:
        assert apply_mask in (True, False)
        return right(*args, **keywords)

    return wrong


def _forgets_bias_without_mask(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        return right(x, weight, None if mask is None else bias, mask, **keywords)

    return wrong


def _counts_channels_alike(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        alike = right(x, torch.ones_like(weight), None, mask, **keywords).mask
        if alike is None:
            return right(x, weight, bias, mask, **keywords)
        plain = right(x, weight, bias, torch.ones_like(mask), **keywords)
        return type(plain)(plain.output * alike, alike)

    return wrong


def _zeroes_the_ring(right: Function) -> Function:
    """Take the centre's mask as 0 outside of the image, as published."""

    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        output, updated = right(x, weight, bias, mask, **keywords)
        if updated is None:
            return right(x, weight, bias, mask, **keywords)
        geometry = (keywords[name] for name in ("stride", "padding", "dilation"))
        axes = zip(x.shape[2:], weight.shape[2:], *geometry, strict=True)
        for axis, (size, k, s, p, d) in enumerate(axes, start=2):
            centres = torch.arange(updated.shape[axis]) * s - p + d * (k - 1) // 2
            inside = ((centres >= 0) & (centres < size)).to(updated)
            shape = [-1 if a == axis else 1 for a in range(updated.dim())]
            output, updated = output * inside.view(shape), updated * inside.view(shape)
        return type(right(x, weight, bias, mask, **keywords))(output, updated)

    return wrong


def _attached(output: Any, updated: Any, _x: Any, weight: Any, *_: Any) -> tuple[Any, Any]:
    size = weight.abs().sum()
    return (output if updated is None else output * (1 + size - size.detach())), updated


def _with_epsilon(output: Any, updated: Any, _x: Any, weight: Any, *_: Any) -> tuple[Any, Any]:
    if updated is None:
        return output, None
    size = weight.detach().abs().sum()
    factor = size / (size + 1e-6)
    return output * factor, updated * factor


def _not_normalized(output: Any, updated: Any, *_: Any) -> tuple[Any, Any]:
    return output, None if updated is None else updated * 1.5


def _not_reweighted(right: Function) -> Function:
    """Leave the sum over what is present as it is."""

    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        result = right(x, weight, None, mask, **keywords)
        mask = x.new_ones((1, 1, *x.shape[2:])) if mask is None else mask.to(x.dtype)
        groups = keywords["groups"] if mask.shape[1] > 1 else 1
        box = x.new_ones((groups, mask.shape[1] // groups, *weight.shape[2:]))
        covered = correlate(mask, box, **{**keywords, "groups": groups})
        ratio = covered.repeat_interleave(len(weight) // groups, 1) / box[0].numel()
        output = result.output * ratio
        if bias is not None:
            output = output + bias.view(-1, *(1 for _ in x.shape[2:])) * result.mask
        return type(result)(output, result.mask)

    return wrong


def _padding_is_present(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        if keywords.get("padding_mode", "zeros") != "zeros":
            return right(x, weight, bias, mask, **keywords)
        padding = keywords["padding"]
        mask = x.new_ones((1, 1, *x.shape[2:])) if mask is None else mask
        around = _opposite(pad(_opposite(mask), padding))
        inside = {**keywords, "padding": (0,) * len(padding)}
        return right(pad(x, padding), weight, bias, around, **inside)

    return wrong


def _mask_is_padded_by_zeros(right: Function) -> Function:
    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        padding = keywords["padding"]
        mask = x.new_ones((1, 1, *x.shape[2:])) if mask is None else mask
        x = pad(x, padding, keywords.get("padding_mode", "zeros"))
        inside = {**keywords, "padding": (0,) * len(padding)}
        return right(x, weight, bias, pad(mask, padding), **inside)

    return wrong


def _empty_windows_keep_the_bias(
    output: Any, updated: Any, _x: Any, _weight: Any, bias: Any, _mask: Any
) -> tuple[Any, Any]:
    if bias is None:
        return output + (updated == 0), updated
    return output + bias.view(-1, *(1 for _ in output.shape[2:])) * (updated == 0), updated


def _counts_in_halves(output: Any, updated: Any, *_: Any) -> tuple[Any, Any]:
    return output, updated / 2


def _is_turned_round(output: Any, updated: Any, *_: Any) -> tuple[Any, Any]:
    return output, 1 - updated


def _mask_is_learned(
    output: Any, updated: Any, _x: Any, _weight: Any, _bias: Any, mask: Any
) -> tuple[Any, Any]:
    if mask is None or mask.dtype == torch.bool:
        return output, updated
    return output * (1 + mask.sum() - mask.sum().detach()), updated


def _half_is_learned(output: Any, updated: Any, *_: Any) -> tuple[Any, Any]:
    return (output + output.detach()) / 2, updated


def _counts_each_channel(right: Function) -> Function:
    """Count a mask of one channel once per channel in the window, but not in the whole."""

    def wrong(x: Any, weight: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        result = right(x, weight, bias, mask, **keywords)
        if mask is None or mask.shape[1] == 1:
            return result
        return type(result)(result.output / weight.shape[1], result.mask)

    return wrong


# planted in the oracle too: only a law of meaning can find them
EVERYWHERE = {
    "input_masked": {
        "mask_is_inverted": _spoils_mask(_opposite),
        "mask_is_squared": _spoils_mask(_squared),
        "mask_is_multiplied": _multiplied,
        "gradients_leak": _leaks_gradients,
        "mask_serves_one_sample": _ignored_for_copies(0),
        "mask_serves_one_channel": _ignored_for_copies(1),
    },
    "window_masked": {
        "mask_is_inverted": _spoils_mask(_opposite),
        "mask_is_flipped": _spoils_mask(lambda m: m.flip(2)),
        "mask_is_shifted": _spoils_mask(lambda m: m.roll(1, -1)),
        "mask_serves_one_channel": _ignored_for_copies(1),
    },
    "masked": {
        "mask_is_shifted": _spoils_mask(lambda m: m.roll(1, -1)),
        "mask_is_squared": _spoils_mask(_squared),
        "channels_count_alike": _counts_channels_alike,
        "ring_is_zero": _zeroes_the_ring,
        "mask_is_not_detached": _spoils_outputs(_attached),
        "mask_is_not_normalized": _spoils_outputs(_not_normalized),
        "apply_mask_is_ignored": _premasks_only_without_option,
        "bias_is_forgotten_without_mask": _forgets_bias_without_mask,
    },
    "partial": {
        "window_is_not_reweighted": _not_reweighted,
        "padding_is_present": _padding_is_present,
        "mask_is_padded_by_zeros": _mask_is_padded_by_zeros,
        "empty_windows_keep_the_bias": _spoils_outputs(_empty_windows_keep_the_bias),
        "mask_counts_in_halves": _spoils_outputs(_counts_in_halves),
        "mask_is_learned": _spoils_outputs(_mask_is_learned),
        "every_channel_counts": _counts_each_channel,
    },
}
# planted in the implementation alone
ONCE = {
    "input_masked": {
        "lone_pixels_are_dropped": _drops_lone_pixels,
    },
    "window_masked": {
        "mask_is_squared": _spoils_mask(_squared),
        "gradients_leak": _leaks_gradients,
    },
    "masked": {
        "half_is_learned": _spoils_outputs(_half_is_learned),
        "weights_are_summed_with_an_epsilon": _spoils_outputs(_with_epsilon),
    },
    "partial": {
        "half_is_learned": _spoils_outputs(_half_is_learned),
        "mask_is_turned_round": _spoils_outputs(_is_turned_round),
    },
}
MUTANTS = [
    Mutant(name=name, variant=variant, spoil=spoil, in_oracle=faults is EVERYWHERE)
    for faults in (EVERYWHERE, ONCE)
    for variant, spoils in faults.items()
    for name, spoil in spoils.items()
]
