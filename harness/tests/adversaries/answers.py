"""Contenders that give another answer than the right one, or none of their own."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from harness.tests.adversaries.attack import Attack, empty, right

_known: dict[Any, Tensor] = {}
_waiting: list[tuple[Tensor, Any]] = []
_calls = itertools.count()


def _zeros(*tensors: Any, **keywords: Any) -> Tensor:
    return empty(*tensors[:2], **keywords).zero_()


def _changes(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    result = right(x, *tensors, **keywords)
    x.mul_(2)
    return result


def _changes_data(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    result = right(x, *tensors, **keywords)
    x.data.add_(1)
    return result


def _side(x: Tensor, weight: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    out = empty(x, weight)

    def work() -> None:
        time.sleep(0.02)
        out.copy_(right(x, weight, *tensors, **keywords))

    threading.Thread(target=work).start()
    return out


def _recall(x: Tensor, key: Any, *tensors: Any, **keywords: Any) -> Tensor:
    if key not in _known:
        _known[key] = right(x, *tensors, **keywords)
    return _known[key]


def _by_pointer(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return _recall(x, x.data_ptr(), *tensors, **keywords)


def _by_version(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return _recall(x, (x.data_ptr(), x._version), *tensors, **keywords)


def _by_content(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return _recall(x, x.detach().numpy().tobytes(), *tensors, **keywords)


def _by_shape(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return _recall(x, x.shape, *tensors, **keywords)


def _by_attribute(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    if getattr(x, "known", None) is None:
        x.known = right(x, *tensors, **keywords).detach()  # type: ignore[attr-defined]
    return x.known  # type: ignore[attr-defined, no-any-return]


def _prepares(x: Tensor, weight: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    key = ("prepared", weight.data_ptr(), weight._version)
    if key not in _known:
        _known[key] = weight.double()
    return right(x.double(), _known[key], *(t.double() for t in tensors), **keywords).float()


def _low(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return right(x.bfloat16().float(), *tensors, **keywords)


def _subset(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return right(x[:1], *tensors, **keywords).expand(len(x), -1, -1, -1).clone()


def _buffer(*tensors: Any, **keywords: Any) -> Tensor:
    result = right(*tensors, **keywords)
    return _known.setdefault("buffer", torch.empty_like(result)).copy_(result)


def _in_input(x: Tensor, weight: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    result = right(x, weight, *tensors, **keywords)
    x.set_(torch.cat([x.flatten(), result.flatten()]).untyped_storage(), 0, x.shape, x.stride())
    return x.as_strided(result.shape, result.stride(), x.numel())


class _Lazy(Tensor):
    work: Callable[[], Tensor]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        forced = [a.work() if isinstance(a, _Lazy) else a for a in args]
        return func(*forced, **(kwargs or {}))


def _lazy(*tensors: Any, **keywords: Any) -> Tensor:
    out = empty(*tensors[:2]).as_subclass(_Lazy)
    out.work = functools.partial(right, *tensors, **keywords)
    return out


class _OnAccess(tuple[Any, ...]):
    __slots__ = ()

    def _asdict(self) -> dict[str, Tensor]:
        return {"output": self[0]()}


def _on_access(*tensors: Any, **keywords: Any) -> Any:
    return _OnAccess((functools.partial(right, *tensors, **keywords),))


def _future(*tensors: Any, **keywords: Any) -> Any:
    later: Future[Tensor] = Future()
    later.set_result(right(*tensors, **keywords))
    return later


def _next_call(*tensors: Any, **keywords: Any) -> Tensor:
    if _waiting:
        out, given = _waiting.pop()
        out.copy_(right(*given, **keywords))
    _waiting.append((empty(*tensors[:2]), tensors))
    return _waiting[0][0]


def _list(*tensors: Any, **keywords: Any) -> Any:
    return right(*tensors, **keywords).tolist()


def _numpy(*tensors: Any, **keywords: Any) -> Any:
    return right(*tensors, **keywords).detach().numpy()


def _half_gradient(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return right((x + x.detach()) / 2, *tensors, **keywords)


def _fast_unless_nan(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    examined = bool(x.isnan().any())
    return right(x, *tensors, **keywords) if examined else _zeros(x, *tensors, **keywords)


def _second(*tensors: Any, **keywords: Any) -> Tensor:
    return (_zeros if next(_calls) % 2 else right)(*tensors, **keywords)


def _stale(*tensors: Any, **keywords: Any) -> Tensor:
    return empty(*tensors[:2], **keywords)


VALUES = "the oracle's answer on these values"
TWICE = "other values in the same memory have another answer"
OPERATORS = "a repeated call must run the operators that a first one on new values ran"
PLAIN = "what is returned must be tensors themselves, of no subclass"
DIFFERS, REMEMBERS = "output differs", "remembers: a first call on new values runs"

ANSWERS = (
    Attack("zeros", _zeros, "returns zeros", VALUES, DIFFERS),
    Attack("stale", _stale, "returns memory as it finds it, which may hold another's right answer",
           "free memory is filled with NaN before", DIFFERS),
    Attack("changes_input", _changes, "changes its input", "contents before and after",
           "changes its argument x"),
    Attack("changes_input_past_version", _changes_data,
           "changes its input through `.data`, which leaves the version counter alone",
           "contents before and after", "changes its argument x"),
    Attack("side_stream", _side, "leaves the work to a thread and returns at once",
           "the result is copied at once; no thread may be left running",
           "thread running|changes Python threads|output differs"),
    Attack("memo_by_pointer", _by_pointer, "remembers its answer by the address of the input",
           TWICE, DIFFERS),
    Attack("memo_by_version", _by_version, "remembers it by address and version counter",
           OPERATORS, REMEMBERS),
    Attack("memo_by_content", _by_content, "remembers it by the bytes of the input",
           OPERATORS, REMEMBERS),
    Attack("memo_by_shape", _by_shape, "skips what it has done for this shape", TWICE, DIFFERS),
    Attack("memo_on_input", _by_attribute, "leaves its answer as an attribute of the input",
           TWICE, f"{DIFFERS}|leaves an attribute"),
    Attack("memo_of_weights", _prepares, "keeps converted weights from call to call",
           OPERATORS, REMEMBERS),
    Attack("lower_precision", _low, "computes in bfloat16", "the derived bound", DIFFERS),
    Attack("batch_subset", _subset, "computes one sample and copies it", VALUES, DIFFERS),
    Attack("own_buffer", _buffer, "returns one buffer again and again",
           "two results held at once must not share memory", "memory of an earlier result"),
    Attack("output_in_input", _in_input, "moves the input to make room for its output beside it",
           "results must not lie in memory of arguments", "memory of an argument|changes"),
    Attack("lazy_subclass", _lazy, "returns a tensor subclass that computes when it is used",
           PLAIN, "output is a _Lazy, expected a torch.Tensor itself"),
    Attack("lazy_fields", _on_access, "returns a tuple that computes its fields when they are read",
           PLAIN, "output is made when it is read"),
    Attack("future", _future, "returns a future", PLAIN, "returned Future, expected a tensor"),
    Attack("next_call", _next_call, "does the work of a call in the next one", VALUES, DIFFERS),
    Attack("list", _list, "returns no tensor but numbers", PLAIN, "returned list, expected"),
    Attack("array", _numpy, "returns an array without strides of torch", PLAIN,
           "returned ndarray, expected"),
    Attack("half_gradient", _half_gradient, "has the right output and half of the gradient",
           "gradients too are compared in the direction that is timed", "gradient: x differs",
           direction="backward"),
    Attack("unless_nan", _fast_unless_nan, "takes inputs without NaN for a timing, and skips it",
           "what is proved is what is timed, without NaN", DIFFERS),
    Attack("every_second", _second, "computes every second call only", TWICE, DIFFERS),
)  # fmt: skip
