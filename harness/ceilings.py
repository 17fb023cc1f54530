"""What this machine can do at most, measured: how fast it copies, how fast it multiplies.

Published peaks are up to twice what can be reached, so a roofline drawn from them flatters nobody.
It takes some tenths of a second for every dtype and number of threads; seconds in a dtype that a
processor has no unit for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from harness import clock
from harness.case import DTYPES
from harness.proof import Common
from harness.tensors import torch_dtype

COPIED_BYTES = {"cpu": 2**26, "cuda": 2**30}
"""Well beyond the caches."""
SIDE = {"cpu": 512, "cuda": 8192}
SAMPLES = 7
COPY = "copy_bytes_per_s"


class Asked(NamedTuple):
    """The dtypes to multiply in, and the processors to do it on; empty means anywhere."""

    dtypes: tuple[str, ...]
    processors: tuple[int, ...]


def session(common: Common, cursor: Any) -> Callable[[Asked], Mapping[str, float]]:
    """Return what measures in a process of its own, set up as those that are timed."""
    del cursor
    torch.set_num_threads(common.threads)

    if common.device != "cpu":  # as convolutions do; the process is of its own
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32

    def measure(asked: Asked) -> Mapping[str, float]:
        if asked.processors:
            os.sched_setaffinity(0, asked.processors)
        return measure_ceilings(common.device, asked.dtypes)

    return measure


def measure_ceilings(device: str = "cpu", dtypes: tuple[str, ...] = DTYPES) -> Mapping[str, float]:
    """Return the best rates seen: `copy_bytes_per_s` (read and written), `DTYPE_flop_per_s`.

    The quickest of a few samples: a ceiling is what can be reached, not what is usual.
    """
    kind, timer = device.partition(":")[0], clock.make_clock(device)
    source = torch.ones(COPIED_BYTES[kind] // 4, device=device)
    target = torch.empty_like(source)
    found = {COPY: 2 * COPIED_BYTES[kind] / _seconds(timer, lambda: target.copy_(source))}
    side = SIDE[kind]
    for name in dtypes:
        matrix = torch.rand(side, side, device=device).to(torch_dtype(name))
        out = torch.empty_like(matrix)
        found[f"{name}_flop_per_s"] = 2 * side**3 / _seconds(timer, _product(matrix, out))
    return found


def _product(matrix: torch.Tensor, out: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: torch.mm(matrix, matrix, out=out)


def _seconds(timer: clock.Clock, work: Callable[[], Any]) -> float:
    """Return the least time of a call."""

    def call(_: Any) -> Any:
        return work()

    call(None)
    count = clock.calibrate(timer, call, lambda n: [None] * n)
    times = [timer.sample(call, [None] * count)[0] / count for _ in range(SAMPLES)]
    return max(min(times), 1.0) / 1e9
