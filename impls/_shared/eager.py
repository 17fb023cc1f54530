"""Forward and backward passes written as one, where nothing but eager autograd looks on."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

Gradients = Sequence[Tensor | None]
_BARE = (Tensor, nn.Parameter)


class Rule(NamedTuple):
    """A function of tensors, with a gradient of its own.

    Args:
        plain: The same by differentiable operations: for derivatives of derivatives.
        forward: `forward(*tensors)`, seen by no autograd; its result shares no memory with them.
        backward: `backward(dy, needed, *tensors)` returns a gradient per tensor, None where
            `needed` says that none is asked for.
    """

    plain: Callable[..., Tensor]
    forward: Callable[..., Tensor]
    backward: Callable[..., Gradients]


def is_eager(*tensors: Tensor | None) -> bool:
    """Return whether `tensors` are float32 on a CPU with nothing between them and their values.

    No compiler, no transform of functions, no tangent, no subclass and nothing empty.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in _BARE or tensor.dtype is not torch.float32:
            return False
        if not (tensor.is_cpu and tensor.numel()):
            return False
    return True


def follow(rule: Rule, *tensors: Tensor | None) -> Tensor:
    """Return `rule.forward(*tensors)`, differentiable by `rule.backward`; for eager tensors."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        result: Tensor = _Followed.apply(rule, *tensors)
        return result
    return rule.forward(*tensors)


class _Followed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rule: Rule, *tensors: Tensor | None) -> Tensor:
        ctx.rule = rule
        ctx.save_for_backward(*tensors)
        return rule.forward(*tensors)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or not is_eager(dy):
            return None, *_plain_gradients(ctx.rule.plain, dy, needed, tensors)
        return None, *ctx.rule.backward(dy, needed, *tensors)


def _plain_gradients(
    plain: Callable[..., Tensor], dy: Tensor, needed: Sequence[bool], tensors: Gradients
) -> list[Tensor | None]:
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        y = plain(*tensors)
    asked = [t for t, is_needed in zip(tensors, needed, strict=True) if is_needed and t is not None]
    found = iter(torch.autograd.grad(y, asked, dy, create_graph=recorded, allow_unused=True))
    return [next(found) if is_needed else None for is_needed in needed]
