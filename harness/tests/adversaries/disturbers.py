"""Contenders that change what all share, to be faster or to slow the others down."""

from __future__ import annotations

import _thread
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness import clock
from harness.tests.adversaries.attack import Attack, right

_kept: list[Any] = []


def _after(change: Callable[[], Any]) -> Callable[..., Tensor]:
    """Return a right convolution that changes something once it is done."""

    def contender(*tensors: Any, **keywords: Any) -> Tensor:
        result = right(*tensors, **keywords)
        change()
        return result

    return contender


def _once(change: Callable[[], Any]) -> Callable[..., Tensor]:
    done: list[Any] = []
    return _after(lambda: None if done else done.append(change()))


def _spin() -> None:
    while True:
        time.sleep(0.001)


def _stepping(step: int = 1) -> int:
    return step


def _slow(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def slower(*arguments: Any, **keywords: Any) -> Any:
        time.sleep(0.0005)
        return function(*arguments, **keywords)

    return slower


def _patch(owner: Any, name: str) -> Callable[..., Tensor]:
    return _once(lambda: setattr(owner, name, _slow(getattr(owner, name))))


def _start_thread() -> None:
    threading.Thread(target=_spin, name="spinner", daemon=True).start()


def _start_bare_thread() -> None:
    _thread.start_new_thread(_spin, ())


def _start_process() -> None:
    _kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"]))


def _own_kernel() -> None:
    library = torch.library.Library("aten", "IMPL")
    library.impl("relu", lambda x: x.clamp(min=0), "CPU")
    _kept.append(library)


def _profile(frame: Any, event: str, argument: Any) -> None:
    del frame, event, argument


def _hook(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient)
    return right(x, *tensors, **keywords)


class _Watching(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _enter_mode() -> None:
    mode = _Watching()
    mode.__enter__()
    _kept.append(mode)


class _ProcessorList:
    """Leaves one processor fewer, or the same one alone where there is one."""

    def __call__(self) -> None:
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, available[:1])


STATE = "the state of the process before and after"
NAMES = "functions that everybody calls must be those that were there"


def _flag(name: str, change: Callable[[], Any], attack: str, found: str) -> Attack:
    return Attack(name, _once(change), attack, STATE, found)


DISTURBERS = (
    Attack("patched_timer", _patch(time, "perf_counter_ns"), "replaces `time.perf_counter_ns`",
           "the clock is bound before plug-ins are loaded", "changes the timer"),
    Attack("patched_other_timer", _patch(time, "perf_counter"), "replaces `time.perf_counter`",
           NAMES, r"replaces time\.perf_counter"),
    Attack("patched_clock", _patch(clock, "monotonic_s"), "replaces a function of the clock module",
           NAMES, r"replaces harness\.clock\.monotonic_s"),
    Attack("patched_torch", _patch(torch, "convolution"),
           "makes `torch.convolution` slower, which the baseline calls", NAMES,
           r"replaces torch\.convolution"),
    Attack("patched_tensor", _patch(torch.Tensor, "reshape"), "makes a method of tensors slower",
           NAMES, r"replaces Tensor\.reshape"),
    Attack("own_kernel", _once(_own_kernel), "gives an operator of torch another kernel", STATE,
           "changes kernels of torch's operators"),
    Attack("thread_left", _once(_start_thread), "leaves a thread running", STATE,
           "thread running|changes Python threads"),
    Attack("bare_thread_left", _once(_start_bare_thread), "leaves one that `threading` cannot see",
           STATE, "changes Python threads"),
    Attack("process_left", _once(_start_process), "leaves a process running", STATE,
           "changes child processes"),
    Attack("hook_left", _hook, "leaves a hook on an argument, which the others' gradients run",
           "arguments are looked after", "leaves a hook on", direction="backward"),
    _flag("threads", lambda: torch.set_num_threads(torch.get_num_threads() + 1),
          "takes more threads", r"changes torch\.get_num_threads"),
    _flag("default_dtype", lambda: torch.set_default_dtype(torch.float64),
          "changes the default dtype", r"changes torch\.get_default_dtype"),
    _flag("denormals", lambda: torch.set_flush_denormal(True), "flushes denormal numbers",
          "changes denormal numbers"),
    _flag("tf32", lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), "allows TF32",
          r"changes torch\.(get_float32_matmul_precision|backends)"),
    _flag("deterministic", lambda: torch.use_deterministic_algorithms(True),
          "demands deterministic algorithms", r"changes torch\.get_deterministic"),
    _flag("grad_mode", lambda: torch.set_grad_enabled(not torch.is_grad_enabled()),
          "turns gradients on", r"changes torch\.is_grad_enabled"),
    _flag("anomalies", lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
          "turns the detection of anomalies on", r"changes torch\.is_anomaly_enabled"),
    _flag("onednn_off", lambda: torch.backends.mkldnn.set_flags(False), "turns oneDNN off",
          r"changes torch\.backends\.mkldnn\.enabled"),
    _flag("mode_left", _enter_mode, "leaves a mode that sees every call of torch",
          "changes modes that intercept functions"),
    _flag("profile_left", lambda: sys.setprofile(_profile), "leaves a profiler on",
          r"changes sys\.getprofile"),
    _flag("trace_left", lambda: sys.settrace(lambda *_: None), "leaves a tracer on",
          r"changes sys\.gettrace"),
    _flag("collector", lambda: gc.set_threshold(10), "makes the garbage collector run all the time",
          r"changes gc\.get_threshold"),
    _flag("interval", lambda: signal.setitimer(signal.ITIMER_REAL, 1000, 1000),
          "leaves an interval timer on", "changes the interval timer"),
    _flag("priority", lambda: os.nice(1), "changes the priority", "changes the priority"),
    _flag("affinity", _ProcessorList(), "moves the process to another processor",
          "changes the processors it may use"),
)  # fmt: skip
