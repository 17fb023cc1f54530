"""Compile every Triton kernel for a GPU, without one: `python -m impls.tests.kernel_targets 80`.

The functions that launch kernels are called on small CPU tensors; what they would launch is
compiled down to machine code instead, with integers as they come and with every 1 as a constant.
"""

import sys
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

from impls._shared import triton_runtime
from impls._shared.triton_broadcast import SPANNED, Repeat, broadcast_add
from impls._shared.triton_extension import extend_by_kernels
from impls.kernel_masked import triton_kernel as kernel_masked
from impls.partial import triton_kernel as partial
from impls.window_masked import triton_kernel as window_masked

_NAMES = {
    torch.float64: "*fp64", torch.float32: "*fp32", torch.bfloat16: "*bf16",
    torch.float16: "*fp16", torch.int8: "*i8", torch.bool: "*i1",
}  # fmt: skip
_compiled: dict[str, set[str]] = {}


def _type_of(value: Any, place: tuple[int, ...], constants: dict[Any, Any], ones: bool) -> Any:
    if isinstance(value, Tensor):
        return _NAMES[value.dtype]
    if isinstance(value, tuple):
        return tuple(_type_of(v, (*place, i), constants, ones) for i, v in enumerate(value))
    if ones and value == 1:
        constants[place] = 1
        return "constexpr"
    return "i32"


def _compile(kernel: JITFunction, arguments: Any, known: dict[str, Any], **options: Any) -> None:
    for ones in (False, True):
        constants: dict[Any, Any] = {}
        names = kernel.arg_names
        types = {n: _type_of(a, (i,), constants, ones)
                 for i, (n, a) in enumerate(zip(names, arguments, strict=False))}  # fmt: skip
        for name in names[len(arguments) :]:
            types[name] = "constexpr"
            constants[names.index(name),] = known[name]
        key = f"{types} {constants}"
        if key in _compiled.setdefault(kernel.__name__, set()):
            continue
        source = ASTSource(kernel, types, constexprs=constants)
        triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=options)
        _compiled[kernel.__name__].add(key)


def _run(self: JITFunction, *arguments: Any, grid: Any, warmup: bool, **known: Any) -> None:
    del grid, warmup
    _compile(self, arguments, known)


def _run_tuned(self: Autotuner, *arguments: Any, grid: Any, warmup: bool, **known: Any) -> None:
    del grid, warmup
    config = self.configs[-1]  # the smallest tiles compile soonest
    known |= config.kwargs
    _compile(self.fn, arguments, known, num_warps=config.num_warps, num_stages=config.num_stages)


def _launch_all(dtype: torch.dtype) -> None:
    x, weight, bias = (
        torch.ones(shape, dtype=dtype, requires_grad=True)
        for shape in ((2, 4, 9, 8), (6, 4, 3, 3), (6,))
    )
    geometry = {"stride": (1, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    seen = torch.ones(2, 4, 9, 8, dtype=torch.bool)
    kept = torch.ones(3, 3, dtype=torch.bool)
    windows = torch.ones(2, 1, 3, 3, 9, 4, dtype=torch.bool)
    results = (
        partial.fused_epilogue(x, weight, bias, seen, **geometry).output,
        kernel_masked.skipped_taps(x, weight, bias, kept, **geometry),
        window_masked.gathered(x, weight, bias, windows, **geometry),
        extend_by_kernels(x, (3, 5), (1, 1), (2, 4)),
        broadcast_add(
            x.shape, x, [x[..., :1], x[:, :, :1], x[:, :, :1, :1]],
            [[SPANNED, Repeat(0, 8)], [Repeat(0, 9), SPANNED], [Repeat(0, 9), Repeat(0, 8)]],
        ),
    )  # fmt: skip
    for result in results:
        result.sum().backward()


def main() -> None:
    """Compile, then print how many forms of each kernel were."""
    real = triton_runtime.launches
    for module in list(sys.modules.values()):
        if getattr(module, "launches", None) is real:
            module.launches = lambda *_: True  # type: ignore[attr-defined]
    JITFunction.run, Autotuner.run = _run, _run_tuned
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        _launch_all(dtype)
    counted = (f"{name}={len(forms)}" for name, forms in sorted(_compiled.items()))
    sys.stdout.write(" ".join(counted) + "\n")


if __name__ == "__main__":
    main()
