"""Launching Triton kernels: on CUDA, or by Triton's interpreter on CPUs where TRITON_INTERPRET=1."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from harness.api import Declined

INTERPRETED: bool = triton.knobs.runtime.interpret
# the interpreter holds the program's place in the grid in one variable for all threads
_ALONE = threading.Lock()
_TUNED: dict[str, Any] = {}

Grid = tuple[int, ...] | Callable[[Mapping[str, int]], tuple[int, ...]]


def launches(*tensors: Tensor | None) -> bool:
    """Return whether kernels can run on `tensors`; else torch's own operators have to.

    They are what transforms, compilers and exporters see, and what tensors without values meet.

    Raises:
        Declined: tensors on several devices, or on one that no kernel can run on.
    """
    given = [t for t in tensors if t is not None]
    within = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack()
    if within or any(t.is_meta or type(t) not in (Tensor, nn.Parameter) for t in given):
        return False
    place = given[0].device
    if any(t.device != place for t in given):
        raise Declined(f"tensors are on {', '.join(str(t.device) for t in given)}, expected one")
    if not INTERPRETED and place.type != "cuda":
        raise Declined(f"x.device={place} must be a CUDA device, or TRITON_INTERPRET=1 be set "
                       "before Python starts")  # fmt: skip
    return True


def launch(kernel: Any, grid: Grid, *arguments: Any, **constants: Any) -> None:
    """Run `kernel` over `grid` on the device of its first tensor; nothing where it is empty."""
    if isinstance(grid, tuple) and 0 in grid:
        return
    place = next(a.device for a in arguments if isinstance(a, Tensor))
    guard: AbstractContextManager[Any] = nullcontext()
    if INTERPRETED:
        guard = _alone()
    elif place.type == "cuda":
        guard = torch.cuda.device(place)
    with guard:
        kernel[grid](*arguments, **constants)


@contextmanager
def _alone() -> Iterator[None]:
    # infinite and undefined values are values, to a GPU and here
    with _ALONE, np.errstate(all="ignore"):
        yield


def tuned(key: Sequence[str], interpreted: Mapping[str, int], *configs: Any) -> Any:
    """Decorate a kernel: the fastest of `configs` for every new `key`, timed at its first call.

    The interpreter takes `interpreted` as it is. `choices` tells what was chosen.
    """

    def decorate(kernel: Any) -> Any:
        offered = [triton.Config(dict(interpreted))] if INTERPRETED else list(configs)
        _TUNED[kernel.__name__] = chooser = triton.autotune(configs=offered, key=list(key))(kernel)
        return chooser

    return decorate


def choices() -> dict[str, dict[str, str]]:
    """Return what tuning has chosen so far: the configuration by key, by kernel."""
    return {
        name: {str(key): str(config) for key, config in chooser.cache.items()}
        for name, chooser in _TUNED.items()
    }


# -- what kernels are told -------------------------------------------------------------------------


def accumulator(dtype: torch.dtype) -> Any:
    """Return the dtype that kernels compute in: float32 at least."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def operand(dtype: torch.dtype) -> Any:
    """Return the dtype of a matrix product's operands; NumPy, the interpreter's, has no bfloat16."""
    if INTERPRETED:
        return accumulator(dtype)
    return {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}.get(dtype, accumulator(dtype))


def precision(x: Tensor) -> str:
    """Return how products of float32 are computed: as torch is told to for its convolutions."""
    return "tf32" if x.is_cuda and torch.backends.cudnn.allow_tf32 else "ieee"


def written(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that kernels store: the interpreter cuts bfloat16 off instead of rounding."""
    return torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype


def lifted(values: Sequence[int], fill: int) -> tuple[int, ...]:
    """Return one entry for each of three axes: the rank of space is data to a kernel."""
    return (fill,) * (3 - len(values)) + tuple(values)


def strides_of(x: Tensor) -> tuple[int, ...]:
    """Return the strides of batch, channels and three spatial axes."""
    return (x.stride(0), x.stride(1), *lifted(x.stride()[2:], 0))


def flat_strides(x: Tensor) -> tuple[int, int, int] | None:
    """Return the strides of batch, channel and position where the spatial axes are one, or None."""
    axes = [(n, s) for n, s in zip(x.shape[2:], x.stride()[2:], strict=True) if n != 1]
    for (_, outer), (size, inner) in pairwise(axes):
        if outer != size * inner:
            return None
    return x.stride(0), x.stride(1), axes[-1][1] if axes else 1


def flat(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Return `x`, copied where need be, and its `flat_strides`."""
    strides = flat_strides(x)
    return (x, strides) if strides else flat(x.contiguous())


def blank(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return memory for a result, channels last where `like` has them so."""
    dtype = written(like.dtype)
    if like.dim() > 2 and like.stride(1) == 1 < like.shape[1] and not like.is_contiguous():
        return like.new_empty((shape[0], *shape[2:], shape[1]), dtype=dtype).movedim(-1, 1)
    return like.new_empty(tuple(shape), dtype=dtype)
