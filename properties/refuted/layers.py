"""Faults that a layer can have around a right functional form: memories, copies, moves, keys."""

import copy
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import ConvCase
from harness.mutant import Mutant
from harness.variant import LayerForm, Value

Spoil = Callable[[nn.Module], None]


def _made_wrong(spoil: Spoil) -> Callable[[LayerForm], LayerForm]:
    """Return what makes the right layer and then spoils it."""

    def wrap(right: LayerForm) -> LayerForm:
        def wrong(
            case: ConvCase, tensors: Mapping[str, Value]
        ) -> tuple[nn.Module, tuple[Any, ...]]:
            module, inputs = right(case, tensors)
            spoil(module)
            return module, inputs

        return wrong

    return wrap


class _Forward:
    """What stands in for a module's `forward`; pickled and copied with the module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def right(self, *inputs: Any) -> Any:
        return type(self.module).forward(self.module, *inputs)

    @classmethod
    def into(cls, module: nn.Module) -> None:
        module.forward = cls(module)


def _scaled(result: Any, factor: Any) -> Any:
    if isinstance(result, Tensor):
        return result * factor
    return type(result)(result[0] * factor, *result[1:])


class _KeepsLastMask(_Forward):
    last: Tensor | None = None

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Any:
        known = self.last is not None and self.last.shape[2:] == x.shape[2:]
        mask = self.last if mask is None and known else mask
        self.last = mask
        return self.right(x, None if mask is None else mask.to(x.dtype))


class _KeepsMaskOfAShape(_Forward):
    """Computes the output's mask once per shape of the signal."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.known: dict[Any, Any] = {}

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Any:
        result = self.right(x, mask)
        kept = self.known.setdefault((x.shape, x.dtype), result.mask.clone())
        return type(result)(result.output, kept)


class _CountsCalls(_Forward):
    count = 0

    def __call__(self, *inputs: Any) -> Any:
        self.count += 1
        return _scaled(self.right(*inputs), 2 if self.count == 3 else 1)


class _KeepsWhatIsMadeFirst(_Forward):
    """Makes a tensor of ones at the first call: in inference mode it serves inference alone."""

    ones: Tensor | None = None

    def __call__(self, x: Tensor, *rest: Any) -> Any:
        if self.ones is None or self.ones.dtype != x.dtype or self.ones.device != x.device:
            self.ones = x.new_ones(1)
        return _scaled(self.right(x, *rest), self.ones)


class _HoldsAConstant(_Forward):
    """Keeps a constant of the first call's dtype and device, out of reach of `.to`."""

    ones: Tensor | None = None

    def __call__(self, x: Tensor, *rest: Any) -> Any:
        if self.ones is None:
            self.ones = x.detach().new_ones((1,)).clone()
        return _scaled(self.right(x, *rest), self.ones)


class _RemembersShapes(_Forward):
    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.seen: list[Any] = []

    def __call__(self, x: Tensor, *rest: Any) -> Any:
        self.seen.append(tuple(x.shape))
        return self.right(x, *rest)


class _SharesByThread(_Forward):
    """Leaves the signal on the module between two operations."""

    def __call__(self, x: Tensor, *rest: Any) -> Any:
        self.x = x
        torch.zeros(())
        return self.right(self.x, *rest)


class _IsReadyTooEarly(_Forward):
    """Makes its factor at the first call, in two steps: a second first call meets the first one."""

    factor: float | None = None

    def __call__(self, *inputs: Any) -> Any:
        if self.factor is None:
            self.factor = 2.0
            self.factor -= float(torch.ones(()))
        factor = self.factor
        return _scaled(self.right(*inputs), factor)


class _RunsItsOwnWeight(_Forward):
    """Reads its weight past whatever stands in for it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.weight = module.weight

    def __call__(self, x: Tensor) -> Any:
        plain = importlib.import_module("impls.plain")  # laws and mutants know no variant by name
        return plain.functional(x, self.weight, self.module.bias, **self.module.geometry())


class _RefusesOneSample(_Forward):
    def __call__(self, x: Tensor, *rest: Any) -> Any:
        if x.dim() != self.module.weight.dim():
            raise ValueError(f"x.shape={tuple(x.shape)} must have an axis for the batch")
        return self.right(x, *rest)


class _CallsPastHooks(_Forward):
    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return type(self.module).forward(self.module, *inputs, **named)


class _SharedCopy:
    """A `__deepcopy__` that copies no parameter."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, _: Any) -> nn.Module:
        return copy.copy(self.module)


def _share_copies(module: nn.Module) -> None:
    module.__deepcopy__ = _SharedCopy(module)


def _pass_hooks(module: nn.Module) -> None:
    module._call_impl = _CallsPastHooks(module)


def _register_more(module: nn.Module) -> None:
    module.register_buffer("update_mask", torch.ones(1))


def _scale_weight(module: nn.Module) -> None:
    with torch.no_grad():
        module.weight.mul_(2)


def _starts_larger(right: LayerForm) -> LayerForm:
    def wrong(case: ConvCase, tensors: Mapping[str, Value]) -> tuple[nn.Module, tuple[Any, ...]]:
        module, inputs = right(case, tensors)
        if tensors["weight"] is None:
            _scale_weight(module)
        return module, inputs

    return wrong


def _draw(module: nn.Module) -> None:
    _DrawsInEvaluation.into(module)


class _DrawsInEvaluation(_Forward):
    def __call__(self, x: Tensor) -> Any:
        self.module.train()
        return self.right(x)


def _learn_mask(module: nn.Module) -> None:
    mask = module._buffers.pop("kernel_mask")
    module.kernel_mask = nn.Parameter(mask.to(module.weight.dtype))


class _MasksOnce(_Forward):
    """Masks the stored weight at the first call, and trusts the optimizer to keep it so."""

    masked = False

    def __call__(self, *inputs: Any) -> Any:
        mask, self.module.kernel_mask = self.module.kernel_mask, None
        try:
            if not self.masked and mask is not None:
                with torch.no_grad():
                    self.module.weight.mul_(mask)
            self.masked = True
            return self.right(*inputs)
        finally:
            self.module.kernel_mask = mask


_ANYWHERE: dict[str, Spoil] = {
    "calls_are_counted": _CountsCalls.into,
    "first_tensor_is_kept": _KeepsWhatIsMadeFirst.into,
    "constant_is_not_moved": _HoldsAConstant.into,
    "pickle_grows": _RemembersShapes.into,
    "signal_is_left_on_the_module": _SharesByThread.into,
    "first_call_races": _IsReadyTooEarly.into,
    "weight_is_read_past_parametrizations": _RunsItsOwnWeight.into,
    "one_sample_is_refused": _RefusesOneSample.into,
    "hooks_are_passed_by": _pass_hooks,
    "deepcopy_shares_weights": _share_copies,
    "state_has_more": _register_more,
    "weight_is_scaled": _scale_weight,
}
MUTANTS = [
    *(
        Mutant(name=name, variant="plain", spoil_layer=_made_wrong(spoil))
        for name, spoil in _ANYWHERE.items()
    ),
    Mutant(name="first_weights_are_larger", variant="plain", spoil_layer=_starts_larger),
    Mutant(name="last_mask_is_kept", variant="partial",
           spoil_layer=_made_wrong(_KeepsLastMask.into)),
    Mutant(name="mask_of_a_shape_is_kept", variant="partial",
           spoil_layer=_made_wrong(_KeepsMaskOfAShape.into)),
    Mutant(name="noise_is_drawn_in_evaluation", variant="boundary", spoil_layer=_made_wrong(_draw)),
    Mutant(name="mask_is_learnt", variant="kernel_masked", spoil_layer=_made_wrong(_learn_mask)),
    Mutant(name="weight_is_masked_once", variant="kernel_masked",
           spoil_layer=_made_wrong(_MasksOnce.into)),
]  # fmt: skip
