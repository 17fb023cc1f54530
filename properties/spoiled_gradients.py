"""Callables whose values are right and whose derivatives are not."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.tensors import each
from harness.variant import Function

Change = Callable[[Tensor], Tensor]


class _Passed(torch.autograd.Function):
    """A copy whose derivatives are changed: `pull` acts in reverse mode, `push` in forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, pull: Change, push: Change) -> Tensor:  # noqa: ARG004
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        _, ctx.pull, ctx.push = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return ctx.pull(gradient), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return ctx.push(tangent).clone()


def same(value: Tensor) -> Tensor:
    """Return what is passed: right."""
    return value


def argument(
    name: str,
    pull: Change = same,
    push: Change = same,
    *,
    only: Callable[..., bool] | None = None,
) -> Callable[[Function], Function]:
    """Return the fault of a wrong gradient for one argument: everywhere, or where `only` says so.

    `only` is asked with the tensors and the keywords of the call.
    """
    place = {"x": 0, "weight": 1, "bias": 2}[name]

    def spoil(right: Function) -> Function:
        def wrong(*tensors: Any, **keywords: Any) -> Any:
            if only is None or only(*tensors, **keywords):
                passed = each(tensors[place], lambda v: _Passed.apply(v, pull, push))
                tensors = (*tensors[:place], passed, *tensors[place + 1 :])
            return right(*tensors, **keywords)

        return wrong

    return spoil


def output(pull: Change) -> Callable[[Function], Function]:
    """Return the fault of pulling back something else than what came in."""

    def spoil(right: Function) -> Function:
        def wrong(*tensors: Any, **keywords: Any) -> Any:
            result = right(*tensors, **keywords)
            if isinstance(result, Tensor):
                return _Passed.apply(result, pull, same)
            return type(result)(_Passed.apply(result.output, pull, same), result.mask)

        return wrong

    return spoil
