"""Trained models whose convolutions become the layers of a variant, in place."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from harness.api import CaseError, Variant

PLAIN = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
OTHER = {"multi_source": "tile_concat", "tile_concat": "multi_source"}
"""Variants over several sources, and whose layers are converted into them."""
IN_EVERY_MODULE = vars(nn.Module()).keys()
Where = Callable[[str, nn.Module], bool]


def convert(
    model: nn.Module,
    variant: str,
    *,
    where: Where | None = None,
    replaced: list[str] | None = None,
    **options: Any,
) -> nn.Module:
    """Make the convolutions of a trained model layers of `variant`, in place.

    Every `torch.nn.Conv1d`, `Conv2d` and `Conv3d` becomes the variant's layer of that rank. It is
    the same module with the same `Parameter` objects, hooks, mode, device and dtype, so optimizers,
    `state_dict` and references to it stay good. Left alone: transposed convolutions, lazy ones that
    have not met a signal, and classes derived from these three, this package's layers among them;
    parametrized ones (`torch.nn.utils.parametrize`) are converted.

    `partial` and `masked` layers compute an output and a mask. Converted, they return the output
    alone where they are called with a signal alone, as the model's own code calls them, and the
    pair where they are given a mask (`return_mask=None`; another choice is an option).

    `multi_source` takes the place of `TileConcatConv` layers and the other way round, where that
    computes the same; these get parameters of their own.

    Args:
        model: Changed in place. May be a convolution itself.
        variant: Name of the variant.
        where: `where(name, module)` tells of a convolution whether it is converted; all by default.
        replaced: Gets the names of the modules that are converted.
        options: Further arguments of the layer's constructor, e.g. `method="reflect"`.

    Returns:
        `model`; where it is itself replaced by another module, that one.

    Raises:
        CaseError: an unknown variant, an option that its layer does not have, or a convolution that
            the variant does not compute. No module is changed then.

    >>> convert(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "partial")[0].multi_channel
    True
    """
    package, other = _package(variant), OTHER.get(variant)
    made: dict[nn.Module, nn.Module] = {}
    names = []
    for name, module in model.named_modules():
        rank = _rank_of_sources(module, other) if other else _rank_of(module)
        if rank is None or (where is not None and not where(name, module)):
            continue
        cls = getattr(package, _class_name(variant, rank))
        try:
            _check_kernel(package.VARIANT, module)
            made[module] = (_between_sources if other else _layer_like)(cls, module, options)
        except (CaseError, TypeError, ValueError) as error:
            raise CaseError(
                f"{name or 'model'}={module} cannot become {cls.__name__}: {error} "
                "(where=lambda name, module: ... leaves modules out)"
            ) from error
        names.append(name)
    if other and not made and any(map(_rank_of, model.modules())):
        raise CaseError(
            f"variant={variant!r} takes the place of {other} layers, and the model has none: load a "
            f"convolution of concatenated sources into one first, by its state_dict"
        )
    if replaced is not None:
        replaced.extend(names)
    if not other:
        for module, layer in made.items():
            _become(module, layer)
        return model
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            parent._modules[name] = made.get(child, child)
    return made.get(model, model)


def _package(variant: str) -> Any:
    impls = importlib.import_module("impls")
    names = [m.name for m in pkgutil.iter_modules(impls.__path__) if not m.name.startswith("_")]
    if variant not in names:
        near = difflib.get_close_matches(variant, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CaseError(f"variant={variant!r} must be one of {', '.join(names)}{hint}")
    return importlib.import_module(f"impls.{variant}")


def _class_name(variant: str, rank: int) -> str:
    return f"{variant.title().replace('_', '')}Conv{rank}d"


def _check_kernel(variant: Variant, module: Any) -> None:
    if variant.domain.odd_kernels and any(k % 2 == 0 for k in module.kernel_size):
        raise CaseError(f"kernel_size={module.kernel_size} must be odd on every axis")


def _drawing_nothing(device: torch.device) -> AbstractContextManager[None]:
    """Leave the random numbers where they are: what a new layer draws is not used."""
    if device.type in ("cpu", "meta"):
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


# -- plain convolutions ---------------------------------------------------------------------------


def _rank_of(module: nn.Module) -> int | None:
    """Return the number of spatial axes of what is converted, else None."""
    kind = type(module)
    if parametrize.is_parametrized(module):
        kind = kind.__bases__[0]
    return PLAIN.get(kind)


def _layer_like(cls: Any, module: Any, options: dict[str, Any]) -> nn.Module:
    """Return a new layer with the geometry of `module`."""
    weight = module.weight
    with _drawing_nothing(weight.device):
        return cls(
            module.in_channels, module.out_channels, module.kernel_size,
            bias=module.bias is not None, device=weight.device, dtype=weight.dtype,
            **cls.arguments_like(module), **cls.when_converted | options,
        )  # fmt: skip


def _become(module: nn.Module, layer: nn.Module) -> None:
    """Give `module` the class of `layer`, and what layers of that class have beyond a convolution.

    As a lazy module becomes the eager one: whoever holds the module, holds the layer.
    """
    own, new = vars(module), vars(layer)
    own.update((name, value) for name, value in new.items() if name not in IN_EVERY_MODULE)
    for kind in ("_parameters", "_buffers"):
        taken = ("weight", "bias", *own[kind])
        own[kind].update((name, value) for name, value in new[kind].items() if name not in taken)
    own["_non_persistent_buffers_set"] |= new["_non_persistent_buffers_set"]
    if parametrize.is_parametrized(module):
        shell = {
            n: v for n, v in vars(type(module)).items() if n not in ("__dict__", "__weakref__")
        }
        module.__class__ = type(f"Parametrized{type(layer).__name__}", (type(layer),), shell)
    else:
        module.__class__ = type(layer)
    module.finish_conversion()


# -- layers over several sources ------------------------------------------------------------------


def _rank_of_sources(module: nn.Module, variant: str) -> int | None:
    """Return the number of spatial axes of a layer of `variant`, else None."""
    package = importlib.import_module(f"impls.{variant}")
    ranks = {getattr(package, _class_name(variant, rank)): rank for rank in (1, 2, 3)}
    return ranks.get(type(module))


def _between_sources(cls: Any, module: Any, options: dict[str, Any]) -> nn.Module:
    """Return a layer of `cls` that computes what `module` does, with its mode and hooks."""
    with _drawing_nothing(next(module.parameters()).device):
        layer = cls.from_other(module, **options)
    layer.requires_grad_(any(parameter.requires_grad for parameter in module.parameters()))
    apart = {"_parameters", "_buffers", "_non_persistent_buffers_set", "_modules"}
    vars(layer).update((name, vars(module)[name]) for name in IN_EVERY_MODULE - apart)
    return layer
