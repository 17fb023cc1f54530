"""Forward and backward passes written as one, where nothing but eager autograd looks on."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

Gradients = Sequence[Tensor | None]
BARE = (Tensor, nn.Parameter)
_WATCHERS = (torch._C._TorchDispatchModeKey.PROXY, torch._C._TorchDispatchModeKey.FAKE)


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


def is_readable(x: Tensor) -> bool:
    """Return whether the values of `x` can be read, and its results written to in place.

    Not where a compiler, a transform or a subclass of tensors records what is computed, nor on
    other devices than the CPU, where reading a value waits.
    """
    return type(x) in BARE and x.is_cpu and _is_unseen()


def is_eager(*tensors: Tensor | None) -> bool:
    """Return whether `tensors` are float32 on a CPU with nothing between them and their values.

    As `is_readable`, and nothing traced, with a tangent or empty.
    """
    return is_unwatched(*tensors) and all(t is None or t.dtype is torch.float32 for t in tensors)


def is_unwatched(*tensors: Tensor | None) -> bool:
    """Return whether `tensors` are on a CPU with nothing between them and their values.

    Of none: whether no tracer, transform, tangent or mode looks on.
    """
    if torch.jit.is_tracing() or forward_ad._current_level >= 0 or not _is_unseen():
        return False
    for t in tensors:
        if t is not None and not (type(t) in BARE and t.is_cpu and t.numel() > 0):
            return False
    return True


def _is_unseen() -> bool:
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and all(torch._C._get_dispatch_mode(key) is None for key in _WATCHERS)
    )


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
