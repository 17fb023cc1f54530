"""Faults of a convolution's geometry, planted into the oracle too: agreement is blind to them."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from harness.mutant import Function, Mutant
from harness.taps import pad


def on_output(change: Callable[..., Tensor]) -> Callable[[Function], Function]:
    """Return the fault of giving back `change(output, x, **keywords)`."""

    def spoil(right: Function) -> Function:
        def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
            result = right(x, *rest, **keywords)
            if isinstance(result, Tensor):
                return change(result, x, weight=rest[0], **keywords)
            return result._replace(output=change(result.output, x, weight=rest[0], **keywords))

        return wrong

    return spoil


def on_all_outputs(change: Callable[..., Tensor]) -> Callable[[Function], Function]:
    """Return the fault of giving back `change(value, **keywords)` for every output."""

    def spoil(right: Function) -> Function:
        def wrong(*arguments: Any, **keywords: Any) -> Any:
            result = right(*arguments, **keywords)
            if isinstance(result, Tensor):
                return change(result, **keywords)
            return type(result)(*(v if v is None else change(v, **keywords) for v in result))

        return wrong

    return spoil


def _kernel_size(weight: Any, keywords: dict[str, Any]) -> tuple[int, ...]:
    rank = len(keywords["stride"])
    return tuple(keywords.get("kernel_size") or weight.shape[-rank:])


def _last_window_is_dropped(y: Tensor, *, stride: Any, **_: Any) -> Tensor:
    """The window that ends exactly with the image, mistaken for one that leaves it."""
    return y[..., :-1] if stride[-1] > 1 and y.shape[-1] > 2 else y


def _position_is_read(y: Tensor, _: Any, **__: Any) -> Tensor:
    return y + torch.arange(y.shape[-1], device=y.device).to(y.dtype)


def _corner_leaks(y: Tensor, _: Any, **__: Any) -> Tensor:
    corner = torch.zeros_like(y)
    corner[(..., *(0 for _ in y.shape[2:]))] = 1
    return y + corner


def _tall_kernels_count_twice(y: Tensor, _: Any, *, weight: Any, **keywords: Any) -> Tensor:
    sides = _kernel_size(weight, keywords)
    return 2 * y if sides[0] > sides[-1] else y


def _wide_strides_count_twice(y: Tensor, _: Any, *, stride: Any, **__: Any) -> Tensor:
    return 2 * y if stride[-1] > stride[0] else y


def _dilated_kernels_count_twice(
    y: Tensor, _: Any, *, weight: Any, dilation: Any, **keywords: Any
) -> Tensor:
    sides = _kernel_size(weight, keywords)
    return 2 * y if any(d > 1 < k for d, k in zip(dilation, sides, strict=True)) else y


def _planes_count_twice(y: Tensor, _: Any, **__: Any) -> Tensor:
    return 2 * y if y.dim() == 4 else y


def _padded_images_count_twice(y: Tensor, _: Any, *, padding: Any, **__: Any) -> Tensor:
    return 2 * y if any(padding) else y


def _pads_in_front_alone(right: Function) -> Function:
    """All padding before the image: the output's size is right."""

    def wrong(x: Any, *rest: Any, padding: Any, **keywords: Any) -> Any:
        shifted = pad(x, [(2 * p, 0) for p in padding])
        return right(shifted, *rest, padding=(0,) * len(padding), **keywords)

    return wrong


def _even_kernels_are_shifted(right: Function) -> Function:
    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        even = weight.shape[-1] % 2 == 0
        return right(x.roll(-1, -1) if even else x, weight, *rest, **keywords)

    return wrong


def _reflection_repeats_the_edge(right: Function) -> Function:
    def wrong(
        x: Any, *rest: Any, padding: Any, padding_mode: str = "zeros", **keywords: Any
    ) -> Any:
        if padding_mode != "reflect":
            return right(x, *rest, padding=padding, padding_mode=padding_mode, **keywords)
        for axis, p in enumerate(padding, 2):
            size = x.shape[axis]
            index = torch.arange(-p, size + p, device=x.device)
            index = torch.where(index < 0, -1 - index, index)
            x = x.index_select(axis, torch.where(index >= size, 2 * size - 1 - index, index))
        return right(x, *rest, padding=(0,) * len(padding), **keywords)

    return wrong


def _far_border_is_zeros(right: Function) -> Function:
    def wrong(x: Any, *rest: Any, method: str = "zeros", **keywords: Any) -> Any:
        y = right(x, *rest, method=method, **keywords)
        if method not in ("reflect", "replicate", "circular"):
            return y
        zeros, half = right(x, *rest, **keywords), (y.shape[-1] + 1) // 2
        return torch.cat([y[..., :half], zeros[..., half:]], dim=-1)

    return wrong


def _centre_is_off(right: Function) -> Function:
    """The updated mask is moved by one output."""

    def wrong(*arguments: Any, **keywords: Any) -> Any:
        result = right(*arguments, **keywords)
        return result if result.mask is None else result._replace(mask=result.mask.roll(1, -1))

    return wrong


def _mean_is_taken_away(y: Tensor, x: Any, **_: Any) -> Tensor:
    """A sum over the whole image reaches every output: what is far away too."""
    signals = [v for v in (x if isinstance(x, tuple) else (x,)) if v is not None]
    return y + sum(v.sum() / prod(v.shape) for v in signals)


def everywhere(name: str, spoil: Callable[[Function], Function], variants: str) -> list[Mutant]:
    """Return the fault in the reference and the oracle of each of `variants`."""
    return [
        Mutant(name=name, variant=variant, spoil=spoil, in_oracle=True)
        for variant in variants.split()
    ]


MUTANTS = [
    *everywhere("last_window_is_dropped", on_all_outputs(_last_window_is_dropped), "plain partial"),
    *everywhere("position_is_read", on_output(_position_is_read), "plain tile_concat"),
    *everywhere("corner_leaks", on_output(_corner_leaks), "window_masked diff"),
    *everywhere("tall_kernels_count_twice", on_output(_tall_kernels_count_twice),
                 "plain multi_source boundary"),
    *everywhere("wide_strides_count_twice", on_output(_wide_strides_count_twice), "diff"),
    *everywhere("dilated_kernels_count_twice", on_output(_dilated_kernels_count_twice),
                 "plain tile_concat"),
    *everywhere("planes_count_twice", on_output(_planes_count_twice), "plain window_masked"),
    *everywhere("padded_images_count_twice", on_output(_padded_images_count_twice),
                 "plain multi_source"),
    *everywhere("pads_in_front_alone", _pads_in_front_alone, "plain window_masked"),
    *everywhere("even_kernels_are_shifted", _even_kernels_are_shifted, "plain kernel_masked"),
    *everywhere("reflection_repeats_the_edge", _reflection_repeats_the_edge, "plain"),
    *everywhere("far_border_is_zeros", _far_border_is_zeros, "boundary"),
    *everywhere("centre_is_off", _centre_is_off, "masked"),
    *everywhere("mean_is_taken_away", on_output(_mean_is_taken_away), "input_masked"),
]  # fmt: skip
