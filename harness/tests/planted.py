"""A plug-in of contenders for `plain` that must not get a number, and one that must."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.api import Implementation

CALLS_OF_A_PROBE = 40
_calls = {"dies_later": 0, "hangs_later": 0, "wrong_later": 0}
_known: dict[Any, Tensor] = {}


def _right(x: Tensor, weight: Tensor, bias: Tensor | None = None, **keywords: Any) -> Tensor:
    stride, padding, dilation = (keywords[name] for name in ("stride", "padding", "dilation"))
    zeros = [0] * (x.dim() - 2)
    return torch.convolution(
        x, weight, bias, stride, padding, dilation, False, zeros, keywords["groups"]
    )


def _wrong(*tensors: Any, **keywords: Any) -> Tensor:
    return _right(*tensors, **keywords) + 1e-3


def _rounds(x: Tensor, weight: Tensor, bias: Tensor | None = None, **keywords: Any) -> Tensor:
    return _right(x.bfloat16().float(), weight, bias, **keywords)


def _other_dtype(*tensors: Any, **keywords: Any) -> Tensor:
    return _right(*tensors, **keywords).double()


def _raises(*tensors: Any, **keywords: Any) -> Tensor:
    raise ArithmeticError("out of order")


def _dies(*tensors: Any, **keywords: Any) -> Tensor:
    os.kill(os.getpid(), signal.SIGSEGV)
    return _right(*tensors, **keywords)


def _hangs(*tensors: Any, **keywords: Any) -> Tensor:
    time.sleep(1000)
    return _right(*tensors, **keywords)


def _allocates(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return _right(x.new_empty(2**48), *tensors, **keywords)


def _changes_input(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    result = _right(x, *tensors, **keywords)
    x.mul_(2)
    return result


def _remembers(x: Tensor, key: Any, *tensors: Any, **keywords: Any) -> Tensor:
    if key not in _known:
        _known[key] = _right(x, *tensors, **keywords)
    return _known[key]


def _remembers_shape(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return _remembers(x, ("shape", x.shape), *tensors, **keywords)


def _remembers_address(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return _remembers(x, ("address", x.data_ptr()), *tensors, **keywords)


def _remembers_version(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return _remembers(x, ("version", x.data_ptr(), x._version), *tensors, **keywords)


def _remembers_content(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return _remembers(x, ("content", x.detach().numpy().tobytes()), *tensors, **keywords)


def _later(name: str) -> bool:
    _calls[name] += 1
    return _calls[name] > CALLS_OF_A_PROBE


def _dies_later(*tensors: Any, **keywords: Any) -> Tensor:
    return (_dies if _later("dies_later") else _right)(*tensors, **keywords)


def _hangs_later(*tensors: Any, **keywords: Any) -> Tensor:
    return (_hangs if _later("hangs_later") else _right)(*tensors, **keywords)


def _wrong_later(*tensors: Any, **keywords: Any) -> Tensor:
    return (_wrong if _later("wrong_later") else _right)(*tensors, **keywords)


def _replaces_timer(*tensors: Any, **keywords: Any) -> Tensor:
    time.perf_counter_ns = lambda: 0
    return _right(*tensors, **keywords)


def _loaded(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return function


FUNCTIONS = {
    "right": _right, "wrong": _wrong, "rounds": _rounds, "other_dtype": _other_dtype,
    "raises": _raises, "dies": _dies, "hangs": _hangs, "changes_input": _changes_input,
    "remembers_shape": _remembers_shape, "remembers_address": _remembers_address,
    "remembers_version": _remembers_version, "remembers_content": _remembers_content,
    "dies_later": _dies_later, "hangs_later": _hangs_later, "wrong_later": _wrong_later,
    "replaces_timer": _replaces_timer, "allocates": _allocates,
}  # fmt: skip

IMPLEMENTATIONS = {
    "plain": [
        Implementation(name=name, load=partial(_loaded, function))
        for name, function in FUNCTIONS.items()
    ]
}
