"""Faults of diff and boundary: what is invented beyond the border, and where it acts."""

from typing import Any

import torch

from harness.mutant import Mutant


def _lower_degree(keywords: Any, kernel_size: Any) -> Any:
    largest = min((k - 1 for k in kernel_size if k > 1), default=1)
    degree = keywords.get("degree")
    return {**keywords, "degree": max((largest if degree is None else degree) - 1, 0)}


def _degree_is_one_too_low(right: Any) -> Any:
    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x, weight, *rest, **_lower_degree(keywords, weight.shape[2:]))

    return wrong


def _speed_is_one_degree_lower(right: Any) -> Any:
    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        if keywords.get("optimized_for") == "speed":
            keywords = _lower_degree(keywords, weight.shape[2:])
        return right(x, weight, *rest, **keywords)

    return wrong


def _pads_with_zeros(_: Any) -> Any:
    def wrong(
        x: Any, weight: Any, bias: Any, *_: Any, stride: Any, dilation: Any, groups: Any, **__: Any
    ) -> Any:
        padding = [d * (k - 1) // 2 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        none = [0] * len(padding)
        return torch.convolution(x, weight, bias, stride, padding, dilation, False, none, groups)

    return wrong


def _edge_kernel_is_ignored(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, *_: Any, **keywords: Any) -> Any:
        return right(x, weight, bias, None, None, **keywords)

    return wrong


def _displacement(size: int, taps: int, stride: int, dilation: int) -> torch.Tensor:
    position = torch.arange(0, size, stride)
    before = (taps // 2 - position // dilation).clamp(min=0)
    behind = (taps // 2 - (size - 1 - position) // dilation).clamp(min=0)
    return behind - before


def _diagonal_is_interior(right: Any) -> Any:
    """Take equal displacements along two axes for none, as published code does."""

    def wrong(x: Any, weight: Any, bias: Any, *rest: Any, **keywords: Any) -> Any:
        y = right(x, weight, bias, *rest, **keywords)
        if x.dim() < 4:
            return y
        axes = zip(x.shape[2:], weight.shape[2:], keywords["stride"], keywords["dilation"],
                   strict=True)  # fmt: skip
        rows, columns, *_ = (_displacement(*axis) for axis in axes)
        diagonal = (rows[:, None] == columns).view(
            len(rows), len(columns), *(1 for _ in y.shape[4:])
        )
        return torch.where(diagonal, right(x, weight, bias, None, None, **keywords), y)

    return wrong


def _border_keeps_its_gradient(right: Any) -> Any:
    def wrong(*tensors: Any, **keywords: Any) -> Any:
        return right(*tensors, **{**keywords, "keep_img_grad_at_invalid": True})

    return wrong


def _edge_bias_is_doubled(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, edge: Any, edge_bias: Any, **keywords: Any) -> Any:
        doubled = None if edge_bias is None else 2 * edge_bias
        return right(x, weight, bias, edge, doubled, **keywords)

    return wrong


def _half_is_learned(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right((x + x.detach()) / 2, *rest, **keywords)

    return wrong


def _image_is_rolled(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x.roll(1, -1), *rest, **keywords)

    return wrong


def _signal_loses_digits(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x.to(torch.float16).to(x.dtype), *rest, **keywords)

    return wrong


def _bias_is_added_twice(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x, weight, None if bias is None else 2 * bias, *rest, **keywords)

    return wrong


def _stride_starts_late(right: Any) -> Any:
    """Count the stride from the last sample instead of the first."""

    def wrong(x: Any, *rest: Any, stride: Any, **keywords: Any) -> Any:
        y = right(x, *rest, stride=[1] * len(stride), **keywords)
        picked = (
            slice((size - 1) % s, None, s) for size, s in zip(x.shape[2:], stride, strict=True)
        )
        return y[(..., *picked)]

    return wrong


def _signal_is_clamped(right: Any) -> Any:
    def wrong(x: Any, *rest: Any, **keywords: Any) -> Any:
        return right(x.clamp(-5, 5), *rest, **keywords)

    return wrong


def _takes_method_for(method: str, other: str) -> Any:
    def spoil(right: Any) -> Any:
        def wrong(*tensors: Any, **keywords: Any) -> Any:
            if keywords.get("method") == method:
                keywords = {**keywords, "method": other}
            return right(*tensors, **keywords)

        return wrong

    return spoil


def _kernels_are_mirrored(right: Any) -> Any:
    def wrong(x: Any, weight: Any, *rest: Any, **keywords: Any) -> Any:
        if keywords.get("method") == "explicit":
            weight = weight.flip(*range(x.dim() - 2))
        return right(x, weight, *rest, **keywords)

    return wrong


def _noise_is_ignored(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, _: Any, **keywords: Any) -> Any:
        return right(x, weight, bias, None, **keywords)

    return wrong


def _noise_is_drawn_inside(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, noise: Any, **keywords: Any) -> Any:
        drawn = None if noise is None else torch.randint_like(noise, -1, 2)
        return right(x, weight, bias, drawn, **keywords)

    return wrong


def _no_noise_is_noise(right: Any) -> Any:
    def wrong(x: Any, weight: Any, bias: Any, noise: Any, **keywords: Any) -> Any:
        if keywords.get("method") == "random" and noise is None:
            taps = zip(x.shape[2:], weight.shape[2:], keywords["dilation"], strict=True)
            size = [n + d * (k - 1) for n, k, d in taps]
            noise = x.new_ones((*x.shape[:2], *size))
        return right(x, weight, bias, noise, **keywords)

    return wrong


def _diff(name: str, spoil: Any, *, in_oracle: bool = True) -> Mutant:
    return Mutant(name=name, variant="diff", spoil=spoil, in_oracle=in_oracle)


def _boundary(name: str, spoil: Any, *, in_oracle: bool = True) -> Mutant:
    return Mutant(name=name, variant="boundary", spoil=spoil, in_oracle=in_oracle)


MUTANTS = [
    _diff("degree_is_one_too_low", _degree_is_one_too_low),
    _diff("degree_is_one_too_low_in_the_reference", _degree_is_one_too_low, in_oracle=False),
    _diff("speed_target_is_one_degree_lower", _speed_is_one_degree_lower),
    _diff("pads_with_zeros", _pads_with_zeros),
    _diff("edge_kernel_is_ignored", _edge_kernel_is_ignored),
    _diff("diagonal_of_the_border_is_interior", _diagonal_is_interior),
    _diff("border_keeps_its_gradient", _border_keeps_its_gradient),
    _diff("edge_bias_is_doubled", _edge_bias_is_doubled),
    _diff("image_is_rolled", _image_is_rolled),
    _diff("half_is_learned", _half_is_learned, in_oracle=False),
    _diff("signal_loses_digits", _signal_loses_digits, in_oracle=False),
    _diff("bias_is_added_twice", _bias_is_added_twice),
    _diff("stride_starts_late", _stride_starts_late),
    _diff("signal_is_clamped", _signal_is_clamped),
    _boundary("reflects_by_replicating", _takes_method_for("reflect", "replicate")),
    _boundary("partial_is_not_reweighted", _takes_method_for("partial", "zeros")),
    _boundary("extrapolates_by_replicating", _takes_method_for("extrapolate", "replicate")),
    _boundary("diff_of_half_the_degree", _takes_method_for("diff", "extrapolate")),
    _boundary("explicit_kernels_are_mirrored", _kernels_are_mirrored),
    _boundary("noise_is_ignored", _noise_is_ignored),
    _boundary("noise_is_drawn_inside", _noise_is_drawn_inside),
    _boundary("no_noise_is_noise", _no_noise_is_noise),
    _boundary("image_is_rolled", _image_is_rolled),
    _boundary("half_is_learned", _half_is_learned, in_oracle=False),
    _boundary("signal_loses_digits", _signal_loses_digits, in_oracle=False),
]
