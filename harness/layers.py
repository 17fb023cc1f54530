"""Strangers' layers as implementations: an `nn.Module` class with the functional form's signature."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import CaseError, ConvCase
from harness.variant import Implementation, Shape, Value

_GEOMETRY = ("stride", "padding", "dilation", "groups")


def from_layer(
    name: str, classes: Mapping[int, Callable[..., nn.Module]], *,
    takes: Sequence[str] = (), state: Sequence[str | Sequence[str]] = ("weight", "bias"),
    by_name: Sequence[str] = (), returns: Callable[[Any], Any] | None = None,
    unsupported: Callable[[ConvCase], str | None] = lambda _: None, **fixed: Any,
) -> Implementation:  # fmt: skip
    """Adapt `nn.Module` classes with a constructor like that of `torch.nn.ConvNd`.

    The functional form makes a module per call and hides what a module remembers; the laws of
    layers call one module again and again. Of stride, padding, dilation, groups and bias a
    constructor gets what its signature has; cases that need another are declined. Without
    `padding` it serves the variants that have no such argument.

    Args:
        name: Name of the implementation.
        classes: The class for every spatial rank that it has, or a function that makes the layer.
        takes: Options of the variant that the constructor takes, e.g. `("padding_mode",)`.
        state: Where the tensor arguments after the signal stand in the `state_dict`, in their
            order; those beyond are arguments of the call. Several keys for one tensor: the first
            that the layer has; for a sequence of tensors: one key each.
        by_name: Names of the call's arguments after the signal, where they go by name.
        returns: Turns the layer's result into the variant's, e.g. `Outputs._make` for a plain
            tuple; of module level, since layers are pickled.
        unsupported: Why a case is declined for further reasons.
        fixed: Further constructor arguments.

    >>> from_layer("torch", {2: nn.Conv2d}, takes=("padding_mode",)).name
    'torch'
    """

    def make(
        rank: int, c_in: Any, c_out: int, kernel_size: Shape, bias: bool, place: Tensor,
        options: Mapping[str, Any],
    ) -> nn.Module:  # fmt: skip
        accepted = _arguments_of(classes[rank])
        given = {"bias": bias, **options}
        if "padding" not in given:  # the variant has the input's size
            sides = zip(options["dilation"], kernel_size, strict=True)
            given["padding"] = tuple(d * (k - 1) // 2 for d, k in sides)
        chosen = {n: v for n, v in given.items() if n in takes or _has(accepted, n)}
        side = kernel_size[0] if len(set(kernel_size)) == 1 else kernel_size
        layer = classes[rank](c_in, c_out, side, **chosen, **fixed)
        if by_name:
            name_arguments(layer, len(c_in) if isinstance(c_in, tuple) else 1, by_name)
        if returns is not None:
            layer.register_forward_hook(_Returns(returns))
        return layer.to(device=place.device, dtype=place.dtype)

    def inputs(x: Any, extra: Sequence[Any]) -> tuple[Any, ...]:
        signals = x if isinstance(x, tuple) else (x,)
        return (*signals, *(value for value in extra if by_name or value is not None))

    def apply(x: Any, *arguments: Any, **keywords: Any) -> Any:
        held, extra = arguments[: len(state)], arguments[len(state) :]
        weight = next(w for w in _parts(held[0]) if w is not None)
        told = keywords.pop("kernel_size", None)
        keywords.pop("size", None)
        rank = len(told) if told else x.dim() - 2
        kernel_size = tuple(told or weight.shape[-rank:])
        c_out = weight.shape[0] if isinstance(x, tuple) else weight.shape[-rank - 2]
        c_in = (
            tuple(0 if source is None else source.shape[1] for source in x)
            if isinstance(x, tuple) else x.shape[1]
        )  # fmt: skip
        bias = len(held) > 1 and held[1] is not None
        layer = make(rank, c_in, c_out, kernel_size, bias, weight, keywords)
        return torch.func.functional_call(layer, _keyed(layer, state, held), inputs(x, extra))

    def as_layer(case: ConvCase, tensors: Mapping[str, Value]) -> tuple[nn.Module, tuple[Any, ...]]:
        x, *arguments = tensors.values()
        held, extra = arguments[: len(state)], arguments[len(state) :]
        place = next(value for value in _parts(x) if value is not None)
        options = {n: getattr(case, n) for n in _GEOMETRY}
        options |= {n: _value_of(word) for n, word in case.options if n in takes}
        layer = make(
            case.spatial_dims, case.sources or case.c_in, case.c_out, case.kernel_size, case.bias,
            place, options,
        )  # fmt: skip
        layer.load_state_dict(_keyed(layer, state, held), strict=False)
        return layer, inputs(x, extra)

    def declined(case: ConvCase) -> str | None:
        if case.spatial_dims not in classes:
            return f"has no class for {case.spatial_dims} spatial dimensions"
        accepted = _arguments_of(classes[case.spatial_dims])
        ones = (1,) * case.spatial_dims
        for word, usual in (("stride", ones), ("dilation", ones), ("groups", 1)):
            if getattr(case, word) != usual and not _has(accepted, word):
                return f"takes no argument {word!r}"
        return unsupported(case)

    padded = any(_has(_arguments_of(made), "padding") for made in classes.values())
    names = {*_GEOMETRY, "size", "kernel_size", *takes} - (set() if padded else {"padding"})
    apply.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("tensors", inspect.Parameter.VAR_POSITIONAL)]
        + [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in sorted(names)]
    )
    return Implementation(name=name, load=lambda: apply, unsupported=declined, layer=as_layer)


def name_arguments(layer: nn.Module, first: int, names: Sequence[str]) -> None:
    """Make calls of `layer` pass the arguments after the first `first` by name."""
    layer.register_forward_pre_hook(_ByName(first, tuple(names)), with_kwargs=True)


# Hooks are classes, not closures: they are pickled with the layer.


class _ByName:
    """Passes the arguments after the first few by name; those that are None are left out."""

    def __init__(self, first: int, names: tuple[str, ...]) -> None:
        self.first, self.names = first, names

    def __call__(self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        rest = zip(self.names, given[self.first :], strict=False)
        moved = {name: value for name, value in rest if value is not None}
        return given[: self.first], {**named, **moved}


class _Returns:
    """Turns the result of a layer into that of the functional form."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, _: nn.Module, __: tuple[Any, ...], result: Any) -> Any:
        return self.function(result)


def _arguments_of(made: Callable[..., nn.Module]) -> frozenset[str]:
    parameters = inspect.signature(made).parameters.values()
    return frozenset("**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters)


def _has(accepted: frozenset[str], name: str) -> bool:
    return name in accepted or ("**" in accepted and name in (*_GEOMETRY, "bias"))


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _value_of(word: str) -> Any:
    """Return what the word of an option stands for: a number, a truth value, None or itself."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def _keyed(
    layer: nn.Module, state: Sequence[str | Sequence[str]], values: Sequence[Any]
) -> dict[str, Tensor]:
    """Return the tensors that a layer holds by their keys; what is None keeps its own value."""
    found: dict[str, Tensor] = {}
    for words, value in zip(state, values, strict=False):
        keys = (words,) if isinstance(words, str) else tuple(words)
        if isinstance(value, tuple):
            pairs = zip(keys, value, strict=True)
            found |= {key: part for key, part in pairs if part is not None}
        elif value is not None:
            known = keys if len(keys) == 1 else [k for k in keys if k in layer.state_dict()]
            if not known:
                raise CaseError(f"{type(layer).__name__} holds none of {', '.join(keys)}")
            found[known[0]] = value
    return found
