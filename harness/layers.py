"""Strangers' layers as implementations: an `nn.Module` class with the functional form's signature."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.case import CaseError, ConvCase
from harness.variant import Ability, Implementation, Shape, Value

_GEOMETRY = ("stride", "padding", "dilation", "groups")
_DRAWS = (
    "bernoulli_", "cauchy_", "exponential_", "geometric_", "kaiming_uniform_", "log_normal_",
    "normal_", "random_", "uniform_",
)  # fmt: skip

MAKES_LAYERS = dict.fromkeys(
    (Ability.COMPILE, Ability.EXPORT, Ability.ONNX, Ability.VMAP),
    "a function that makes a layer in every call, which none of these can trace",
)
"""What a function around a published layer lacks for the adapter's sake alone."""


def from_layer(
    name: str, classes: Mapping[int, Callable[..., nn.Module]], *,
    takes: Sequence[str] = (), state: Sequence[str | Sequence[str]] = ("weight", "bias"),
    by_name: Sequence[str] = (), returns: Callable[[Any], Any] | None = None,
    unsupported: Callable[[ConvCase], str | None] = lambda _: None,
    within: Callable[[ConvCase], ConvCase | None] = lambda case: case, sides: Sequence[int] = (),
    **fixed: Any,
) -> Implementation:  # fmt: skip
    """Adapt `nn.Module` classes with a constructor like that of `torch.nn.ConvNd`.

    The functional form makes a module per call and hides what a module remembers; the laws of
    layers call one module again and again. Of stride, padding, dilation, groups and bias a
    constructor gets what its signature has; a case that needs another is declined, and a drawn one
    is moved to where it does not. Without `padding` it serves the variants that have no such
    argument.

    Args:
        name: Name of the implementation.
        classes: The class for every spatial rank that it has, or a function that makes the layer.
        takes: Options of the variant that the constructor takes, e.g. `("padding_mode",)`, or that
            choosing this layer settles.
        state: Where the tensor arguments after the signal stand in the `state_dict`, in their
            order; those beyond are arguments of the call. Several keys for one tensor: the first
            that the layer has; for a sequence of tensors: one key each.
        by_name: Names of the call's arguments after the signal, where they go by name.
        returns: Turns the layer's result into the variant's, e.g. `Outputs._make` for a plain
            tuple; of module level, since layers are pickled.
        unsupported: Why a case is declined for further reasons.
        within: Moves a case to where the layer computes it, as `Implementation.within` does; what
            it does not return unchanged is declined.
        sides: What the kernel measures along every axis, ascending; none = anything.
        fixed: Further constructor arguments.

    >>> from_layer("torch", {2: nn.Conv2d}, takes=("padding_mode",)).name
    'torch'
    """

    def make(
        rank: int, c_in: Any, c_out: int, kernel_size: Shape, bias: bool, options: Mapping[str, Any],
    ) -> nn.Module:  # fmt: skip
        accepted = _arguments_of(classes[rank])
        given = {"bias": bias, **options}
        if "padding" not in given:  # the variant has the input's size
            sides = zip(options["dilation"], kernel_size, strict=True)
            given["padding"] = tuple(d * (k - 1) // 2 for d, k in sides)
        told = {n for n in takes if n in accepted or "**" in accepted}
        chosen = {n: v for n, v in given.items() if n in told or _has(accepted, n)}
        side = kernel_size[0] if len(set(kernel_size)) == 1 else kernel_size
        layer = classes[rank](c_in, c_out, side, **chosen, **fixed)
        if by_name:
            name_arguments(layer, len(c_in) if isinstance(c_in, tuple) else 1, by_name)
        if returns is not None:
            layer.register_forward_hook(_Returns(returns))
        return layer

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
        with _NothingDrawn():
            layer = make(rank, c_in, c_out, kernel_size, bias, keywords)
        given = _keyed(layer, state, held)
        return torch.func.functional_call(
            layer, {**_moved(layer, given, weight), **given}, inputs(x, extra)
        )

    def as_layer(case: ConvCase, tensors: Mapping[str, Value]) -> tuple[nn.Module, tuple[Any, ...]]:
        x, *arguments = tensors.values()
        held, extra = arguments[: len(state)], arguments[len(state) :]
        place = next(value for value in _parts(x) if value is not None)
        options = {n: getattr(case, n) for n in _GEOMETRY}
        options |= {n: _value_of(word) for n, word in case.options if n in takes}
        layer = make(
            case.spatial_dims, case.sources or case.c_in, case.c_out, case.kernel_size, case.bias,
            options,
        ).to(device=place.device, dtype=place.dtype)  # fmt: skip
        layer.load_state_dict(_keyed(layer, state, held), strict=False)
        return layer, inputs(x, extra)

    def unfit(case: ConvCase) -> dict[str, Any]:
        """Return what no constructor can be told, and what it must be instead."""
        accepted = _arguments_of(classes[case.spatial_dims])
        ones = (1,) * case.spatial_dims
        usual = {"stride": ones, "dilation": ones, "groups": 1}
        return {
            word: value for word, value in usual.items()
            if getattr(case, word) != value and not _has(accepted, word)
        }  # fmt: skip

    def declined(case: ConvCase) -> str | None:
        if case.spatial_dims not in classes:
            return f"has no class for {case.spatial_dims} spatial dimensions"
        if lacking := next(iter(unfit(case)), None):
            return f"takes no argument {lacking!r}"
        return unsupported(case)

    def inside(drawn: ConvCase) -> ConvCase | None:
        case = within(drawn) if drawn.spatial_dims in classes else None
        if case is None:
            return None
        changes = unfit(case)
        kernel_size = case.kernel_size
        if sides and (len(set(kernel_size)) > 1 or kernel_size[0] not in sides):
            side = next((s for s in sides if s >= max(kernel_size)), sides[-1])
            kernel_size = (side,) * case.spatial_dims
        if not changes and kernel_size == drawn.kernel_size and case.options == drawn.options:
            return case
        dilation = changes.get("dilation", case.dilation)
        fields = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True))
        if not padded:
            changes["padding"] = tuple(field // 2 for field in fields)
        # whatever an option or a kernel asks of the image's size, no method asks for more
        size = tuple(map(max, case.in_size, fields))
        return replace(case, kernel_size=kernel_size, in_size=size, **changes)

    padded = any(_has(_arguments_of(made), "padding") for made in classes.values())
    names = {*_GEOMETRY, "size", "kernel_size", *takes} - (set() if padded else {"padding"})
    apply.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("tensors", inspect.Parameter.VAR_POSITIONAL)]
        + [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in sorted(names)]
    )
    return Implementation(
        name=name, load=lambda: apply, unsupported=declined, within=inside, layer=as_layer
    )


def name_arguments(layer: nn.Module, first: int, names: Sequence[str]) -> None:
    """Make calls of `layer` pass the arguments after the first `first` by name."""
    layer.register_forward_pre_hook(_ByName(first, tuple(names)), with_kwargs=True)


class _NothingDrawn(TorchFunctionMode):
    """Fills with zeros what is drawn otherwise: the weights are replaced, and vmap draws nothing."""

    def __torch_function__(
        self, function: Any, _: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__name__", "") in _DRAWS:
            filled: Tensor = args[0] if args else kwargs["tensor"]
            filled.detach().zero_()
            return filled
        return function(*args, **(kwargs or {}))


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


def _moved(layer: nn.Module, given: Mapping[str, Tensor], place: Tensor) -> dict[str, Tensor]:
    """Return what a layer holds beyond what is given, as `.to` moves it; `.to` moves no fakes."""
    held = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    known = {id(value) for name, value in layer.state_dict(keep_vars=True).items() if name in given}
    return {
        name: value.detach().to(place.device, place.dtype if value.is_floating_point() else None)
        for name, value in held.items() if id(value) not in known
    }  # fmt: skip


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
