"""What every contender must leave as it found it: threads, flags, hooks, and everybody's functions.

A contender that changes them is timed under other conditions than the others are, or slows the
baseline down. What native code changes, or code that looks for these checks, is not found.
"""

from __future__ import annotations

import _thread
import builtins
import contextlib
import functools
import gc
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from harness import clock

WATCHED = (
    builtins, gc, math, sys.modules["time"], torch, torch.autograd, torch.autograd.graph, torch.nn.functional,
    torch.linalg, torch.fft,
)  # fmt: skip
CLASSES: tuple[type, ...] = (torch.Tensor, torch.autograd.Function)
OURS = ("harness.", "impls.")
LIBRARIES = ("OMP_", "MKL_", "KMP_", "GOMP_", "ATEN_", "DNNL_", "ONEDNN_", "TORCH_", "CUDA_")
# What serves calls, as `torch.library` writes it; others serve tracing.
KERNELS = ("CPU", "CUDA", "Autograd", "AutogradCPU", "AutogradCUDA", "CompositeImplicitAutograd")
REPLACED_BY_TORCH = ("manual_seed",)
"""What the import of torch's compiler wraps."""
COMPILED = ("Python threads", "child processes")
"""What compilers keep for themselves."""
SMALLEST = sys.float_info.min * sys.float_info.epsilon


class Surroundings:
    """The state of the process when this was made, and what has changed since."""

    def __init__(self) -> None:
        self._state = _state()
        self._bound = list(_bindings())
        self._grown = [(c.__name__, vars(c), frozenset(vars(c))) for c in CLASSES]

    def changes(self, expected: Mapping[str, Any] | None = None) -> str:
        """Return what differs from the start, or from `expected`; empty where nothing does."""
        wanted = {**self._state, **(expected or {})}
        for name, value in _state().items():
            if value != wanted[name]:
                return f"changes {name} from {wanted[name]} to {value}{_names(name)}"
        for label, space, names, values in self._bound:
            if [*map(space.get, names)] != values:  # identity decides where it can
                name = next(n for n, v in zip(names, values, strict=True) if space.get(n) is not v)
                return f"replaces {label}.{name}"
        for label, space, known in self._grown:  # a new name hides an inherited one
            if added := space.keys() - known:
                return f"replaces {label}.{min(added)}"
        return ""

    def accept(self, *names: str) -> None:
        """Take these parts of the state as they are now."""
        now = _state()
        self._state |= {name: now[name] for name in names}


def _state() -> dict[str, Any]:
    found = {name: _read(read) for name, read in _READERS.items()}
    found |= {f"torch.backends.{name}": _read(read) for name, read in _backends().items()}
    return found


def _read(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (RuntimeError, OSError, AttributeError) as error:  # mixed ways to set TF32, no such call
        return type(error).__name__


@functools.cache
def _backends() -> dict[str, Callable[[], Any]]:
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    chosen: list[tuple[str, Any, str]] = [
        *(("cudnn", cudnn, n) for n in ("enabled", "benchmark", "deterministic", "allow_tf32")),
        *(("mkldnn", mkldnn, n) for n in ("enabled", "deterministic", "fp32_precision")),
        ("cuda.matmul", torch.backends.cuda.matmul, "allow_tf32"),
    ]
    return {f"{label}.{name}": functools.partial(getattr, at, name) for label, at, name in chosen}


def _denormals() -> bool:
    return SMALLEST * 1.0 > 0


def _children() -> int:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return len(path.read_text(encoding="ascii").split())


def _libraries() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(LIBRARIES)}


def _kernels() -> int:
    """Return how many of torch's own operators Python has given another kernel."""
    return _kernels_among(len(_given()))


@functools.lru_cache(maxsize=1)
def _kernels_among(count: int) -> int:
    del count  # the set is only gone through when it has grown
    return sum(k.startswith("aten/") and k.rpartition("/")[2] in KERNELS for k in _given())


def _given() -> set[str]:
    return getattr(torch.library, "_impls", set())


def _tools() -> list[str | None]:
    monitoring = getattr(sys, "monitoring", None)
    return [monitoring.get_tool(number) for number in range(6)] if monitoring else []


_READERS: dict[str, Callable[[], Any]] = {
    "the timer": clock.is_tampered,
    "Python threads": _thread._count,
    "child processes": _children,
    "torch.get_num_threads()": torch.get_num_threads,
    "torch.get_default_dtype()": torch.get_default_dtype,
    "torch.is_grad_enabled()": torch.is_grad_enabled,
    "torch.is_inference_mode_enabled()": torch.is_inference_mode_enabled,
    "torch.is_anomaly_enabled()": torch.is_anomaly_enabled,
    "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision,
    "torch.get_deterministic_debug_mode()": torch.get_deterministic_debug_mode,
    "autocast on the CPU": functools.partial(torch.is_autocast_enabled, "cpu"),
    "autocast on CUDA": functools.partial(torch.is_autocast_enabled, "cuda"),
    "modes that intercept functions": torch._C._len_torch_function_stack,
    "modes that intercept operators": torch._C._len_torch_dispatch_stack,
    "kernels of torch's operators": _kernels,
    "denormal numbers": _denormals,
    "gc.isenabled()": gc.isenabled,
    "gc.get_threshold()": gc.get_threshold,
    "gc.callbacks": lambda: len(gc.callbacks),
    "sys.gettrace()": sys.gettrace,
    "sys.getprofile()": sys.getprofile,
    "sys.monitoring": _tools,
    "sys.getswitchinterval()": sys.getswitchinterval,
    "the interval timer": lambda: signal.getitimer(signal.ITIMER_REAL)[1],
    "the processor timer": lambda: signal.getitimer(signal.ITIMER_PROF)[1],
    "the processors it may use": lambda: os.sched_getaffinity(0),
    "the scheduler": lambda: os.sched_getscheduler(0),
    "the priority": lambda: os.getpriority(os.PRIO_PROCESS, 0),
    "the environment of libraries": _libraries,
}


def _names(name: str) -> str:
    """Return who the threads are."""
    if name != "Python threads":
        return ""
    alive = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    return f" ({', '.join(alive)})" if alive else ""


Binding = tuple[str, Mapping[str, Any], list[str], list[Any]]


def _bindings() -> Iterator[Binding]:
    """Yield the functions of modules and classes that everybody uses."""
    ours = [module for name, module in sys.modules.items() if name.startswith(OURS)]
    spaces: list[tuple[str, Mapping[str, Any]]] = []
    spaces += [(module.__name__, vars(module)) for module in (*WATCHED, *ours)]
    spaces += [(kind.__name__, vars(kind)) for kind in CLASSES]
    for label, space in spaces:
        found = {n: v for n, v in space.items() if callable(v) and n not in REPLACED_BY_TORCH}
        yield label, space, list(found), list(found.values())


def left_on(tensor: torch.Tensor) -> str:
    """Return what was left on an argument that others are called with too; empty for nothing."""
    with contextlib.suppress(RuntimeError):
        if tensor.is_leaf and tensor.grad is not None:
            return "a gradient"
    if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
        return "a hook"
    return "an attribute" if vars(tensor) else ""
