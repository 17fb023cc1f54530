"""Operations in C++ for CPUs: one pass over memory where the library takes several.

`python3 -m harness build` compiles them with the machine's compiler, once for its kind of processor
and the installed PyTorch.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.api import Build, BuildError, ConvCase, Implementation
from impls._shared.eager import BARE, is_unwatched

FOLDER = Path(__file__).parent
DTYPES = ("float32", "float64")
_COMPILERS = ("g++", "clang++")
_FLAGS = (
    "-O3", "-std=c++20", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math",
    "-DAT_PER_OPERATOR_HEADERS", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
)  # fmt: skip
_VECTORS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
}


def native_form(load: Callable[[], Callable[..., Any]], **declared: Any) -> Implementation:
    """Return the implementation in C++ that `load` returns.

    Under `torch.func`, compilers and exporters, with tangents and for what `takes` refuses, torch's
    own operators stand in.
    """
    return Implementation(
        name="native", load=load, build=BUILD, unsupported=_unsupported, **declared
    )


def takes(*tensors: Tensor | None) -> bool:
    """Return whether the operations can read `tensors`.

    Those of one dtype, float32 or float64, on a CPU, with entries and without a tangent, and where
    nothing records what is computed. Other layouts than the contiguous one are copied: the layout
    chooses no path, so that it does not change what is rounded.
    """
    if not is_unwatched() or not all(t is None or type(t) in BARE for t in tensors):
        return False
    return bool(_reader()(tensors))


def takes_zero_padded(
    padding: Sequence[int], padding_mode: str, *tensors: Tensor | None
) -> bool:  # fmt: skip
    """Return whether they can read `tensors`, and what is padded is padded with zeros."""
    return (padding_mode == "zeros" or not any(padding)) and takes(*tensors)


def flops(case: ConvCase) -> int | None:
    """Return those of the convolution that is counted: a depthwise one is no call of the library."""
    return None if case.groups > 1 and case.groups == case.c_in else 2 * case.macs


def copies(*tensors: Tensor | None) -> bool:
    """Return whether the operations copy one of `tensors` first."""
    return not all(t is None or t.is_contiguous() for t in tensors)


@lru_cache(maxsize=1)
def _reader() -> Any:
    return operations().takes.default


def operations() -> Any:
    """Return the operations, `torch.ops.convharness`.

    Raises:
        BuildError: they are not built.
    """
    if reason := _missing():
        raise BuildError(reason)
    torch.ops.load_library(str(_library()))
    return torch.ops.convharness


def build() -> Path:
    """Compile the operations where they are not there yet; return the library.

    Raises:
        BuildError: no compiler, or what it says.
    """
    library = _library()
    if library.exists():
        return library
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if sys.platform != "linux":
        raise BuildError(f"sys.platform={sys.platform!r}: built on linux alone")
    if compiler is None:
        raise BuildError(f"no C++ compiler: none of {', '.join(_COMPILERS)} is on PATH")
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"XDG_CACHE_HOME: {error}") from error
    # written apart and then renamed: others see all of it or nothing
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder, library.name)
        ended = subprocess.run(
            [compiler, *_flags(), *map(str, _sources()), "-o", str(made), *_linked()],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ended.returncode:
            said = "\n".join(ended.stderr.splitlines()[:20])
            raise BuildError(f"{compiler} ended with {ended.returncode}:\n{said}")
        made.replace(library)
    return library


def _missing() -> str | None:
    if _reader.cache_info().currsize:  # it is loaded: every call of a layer asks
        return None
    return None if _library().exists() else "its C++ is not built: python3 -m harness build"


def _unsupported(case: ConvCase) -> str | None:
    return None if case.dtype in DTYPES else f"computes {' and '.join(DTYPES)} alone"


@lru_cache(maxsize=1)
def _library() -> Path:
    """Return where the library is for these sources, this PyTorch and this kind of processor."""
    key = hashlib.sha256(f"{torch.__version__} {_flags()}".encode())
    for path in sorted([*_sources(), *FOLDER.glob("*.h")]):
        key.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "convharness" / f"native-{key.hexdigest()[:16]}.so"


def _sources() -> list[Path]:
    return sorted(FOLDER.glob("*.cpp"))


def _flags() -> tuple[str, ...]:
    headers = Path(torch.__file__).parent / "include"
    places = (f"-I{headers}", f"-I{headers / 'torch' / 'csrc' / 'api' / 'include'}")
    return (*_FLAGS, *_VECTORS.get(torch.backends.cpu.get_cpu_capability(), ()), *places)


def _linked() -> tuple[str, ...]:
    return (f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-lc10")


BUILD = Build("the C++ of impls", _missing, build)
