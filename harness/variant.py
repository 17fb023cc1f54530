"""What a variant is: the types of the table, nothing that computes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from harness.case import CaseError, ConvCase
from harness.masks import STRUCTURES

Shape = tuple[int, ...]
Value = Tensor | None | tuple[Tensor | None, ...]
"""What one argument holds: a tensor, nothing, or one entry per source."""
Function = Callable[..., Any]
LayerForm = Callable[[ConvCase, Mapping[str, Value]], tuple[nn.Module, tuple[Any, ...]]]
"""Makes the layer of a case, its parameters set to the case's tensors, and its call's arguments."""


class Role(StrEnum):
    """What a tensor argument is to the operation."""

    SIGNAL = "signal"
    WEIGHT = "weight"
    BIAS = "bias"
    MASK = "mask"
    NOISE = "noise"


class Kind(StrEnum):
    """Why an implementation is in the table."""

    ORACLE = "oracle"
    LAYER = "layer"
    REFERENCE = "reference"
    OPTIMIZED = "optimized"


class Need(StrEnum):
    """What a machine must have to run an implementation."""

    CUDA = "CUDA"
    TRITON = "Triton"
    COMPILER = "C++ compiler"
    ONNX = "ONNX runtime"


class Ability(StrEnum):
    """What laws about torch's machinery ask of an implementation, unless it declares a lack."""

    COMPILE = "compiles without a graph break"
    EXPORT = "exports as one graph"
    ONNX = "exports to ONNX"
    VMAP = "is mapped over a new axis"
    FORWARD_MODE = "has forward-mode derivatives"
    DOUBLE_BACKWARD = "has derivatives of derivatives"
    META = "runs on tensors without values"
    THREADS = "runs in several threads at once"
    CHANNELS_LAST = "keeps channels_last"
    SKIP_TAPS = "multiplies no masked tap"


class Trait(StrEnum):
    """A claim that a variant makes; every trait is required by at least one law."""

    AFFINE_IN_SIGNAL = "affine in the signal"
    LINEAR_IN_WEIGHT = "linear in the weight"
    BATCH_INDEPENDENT = "every sample of a batch is computed alone"
    SUBSAMPLES = "a stride subsamples the result of stride 1"
    IS_PLAIN = "is the plain convolution"
    ONES_ARE_PLAIN = "masks of ones give the plain convolution"
    ONES_UNPADDED_ARE_PLAIN = "masks of ones give the plain convolution without padding"
    HOLES_INVISIBLE = "contents of holes reach neither outputs nor gradients"
    BROADCASTS_MASK = "a mask shared by the batch acts as its copies"
    ADDITIVE_IN_MASK = "is affine in its mask, and the bias where the mask is 0"
    MASKS_SIGNAL = "is the plain convolution of the masked signal"
    MASKS_WINDOWS = "masks every window on its own"
    SERVES_DIVERSE_SIZES = "a padded, masked batch gives each sample what it gives alone"
    MASKS_TAPS = "masked taps take no part"
    REWEIGHTS_BY_COVERAGE = "divides by the coverage of the window"
    SCALES_BY_MASK = "multiplies the output by the mask's share at the window's centre"
    TAKES_SOURCES = "takes one source per subset of the spatial axes"
    SUMS_SOURCES = "is a sum of one convolution per source"
    TILES_SOURCES = "is one convolution of the tiled sources"
    EXTENDS_POLYNOMIALLY = "continues the image by polynomials"
    CHOOSES_BOUNDARY = "offers the boundary method as an option"
    ADDS_BIAS = "adds the bias to what it computes without one"
    CHANNELS_ARE_EQUAL = "knows no order of channels, filters and groups"
    GROUPS_ARE_APART = "is one convolution per group"
    HAS_NO_DIRECTION = "knows no direction and no order of the spatial axes"
    ACTS_ALIKE_INSIDE = "acts alike wherever the window is inside the image"
    ABSENCE_IS_PADDING = "is padded by what is absent, wherever the image ends"
    RANK_IS_DATA = "is the same operation in any number of spatial axes"
    DILATION_IS_STUFFING = "acts as its dilated kernel does with zeros between the taps"
    PADS_SIGNAL = "pads the signal, then convolves without padding"
    FREE_WITHOUT_MASK = "costs the plain convolution without a mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg:
    """One tensor argument of a variant.

    Args:
        name: Its name in the functional form.
        role: What it is.
        shape: Its shape for a case; None where the case has no such tensor; a tuple of shapes
            where the argument is a sequence of tensors.
        covers: For a mask, the argument that it masks.
        choices: Options of the variant that change the shape: a caller's tensor may have any of
            the shapes that they give.
        make: Makes a tensor of a named family, for families that `harness.tensors` does not know:
            `make(case, shape, family) -> Tensor`.
    """

    name: str
    role: Role
    shape: Callable[[ConvCase], Any]
    covers: str | None = None
    choices: tuple[str, ...] = ()
    make: Callable[[ConvCase, Shape, str], Tensor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The geometries a variant is defined for; strategies draw from it instead of filtering.

    Args:
        ranks: Numbers of spatial axes.
        odd_kernels: Whether every kernel side must be odd.
        same_size: Whether the variant has no padding argument and `padding` in a case is always
            `dilation * (kernel_size - 1) / 2`.
        sources: Whether the signal comes in one source per subset of the axes.
        least_size: Smallest allowed `in_size` for the other fields of a case, per axis.
        settle: Moves a drawn case whose options do not fit its geometry inside.
        strides, dilations: Whether any but 1 is allowed.
    """

    ranks: tuple[int, ...] = (1, 2, 3)
    odd_kernels: bool = False
    same_size: bool = False
    sources: bool = False
    least_size: Callable[[ConvCase], Shape] | None = None
    settle: Callable[[ConvCase], ConvCase] | None = None
    strides: bool = True
    dilations: bool = True

    def check(self, case: ConvCase) -> None:
        """Raise CaseError where `case` is outside."""
        if case.spatial_dims not in self.ranks:
            raise CaseError(
                f"in_size={case.in_size} has {case.spatial_dims} spatial axes, not 1 to 3"
            )
        if self.odd_kernels and any(k % 2 == 0 for k in case.kernel_size):
            raise CaseError(f"kernel_size={case.kernel_size} must be odd on every axis")
        half = tuple((field - 1) // 2 for field in case.receptive_field)
        if self.same_size and case.padding != half:
            raise CaseError(f"padding={case.padding} must be dilation*(kernel_size-1)/2 = {half}")
        if bool(case.sources) != self.sources:
            expected = "one source per subset of the spatial axes" if self.sources else "one signal"
            raise CaseError(f"sources={case.sources} where the variant takes {expected}")
        least = self.least(case)
        if any(size < bound for size, bound in zip(case.in_size, least, strict=True)):
            raise CaseError(
                f"in_size={case.in_size} must be at least {least} for this kernel and options"
            )

    def least(self, case: ConvCase) -> Shape:
        """Return the smallest `in_size` that the other fields of `case` allow."""
        least = self.least_size(case) if self.least_size else (1,) * case.spatial_dims
        mode = case.option("padding_mode", "zeros")
        if mode in ("reflect", "circular"):
            need = tuple(p + (mode == "reflect" and p > 0) for p in case.padding)
            least = tuple(map(max, least, need))
        return least


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call costs, counted and not timed; None = not declared.

    Args:
        flops: Floating-point operations of products and convolutions, as
            `torch.utils.flop_counter` counts them: two per multiply-add.
        saved_bytes: Memory other than the arguments' that it keeps for the backward pass.
        extra_bytes: At most so much more memory is held at any time than the plain convolution
            holds, scratch inside of the library's kernels left out.
    """

    flops: int | None = None
    saved_bytes: int | None = None
    extra_bytes: int | None = None


class Build(NamedTuple):
    """What `python3 -m harness build` makes for an implementation, once per machine.

    Args:
        what: What it is, in a few words.
        missing: Returns why it is not there, or None.
        make: Makes it and returns where it is; raises BuildError.
    """

    what: str
    missing: Callable[[], str | None]
    make: Callable[[], Path]


class BuildError(RuntimeError):
    """A machine cannot make what an implementation needs."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Implementation:
    """One way to compute a variant.

    Args:
        name: What differs, e.g. `box_filter`.
        kind: `reference` as the source describes it, or `optimized`.
        load: Returns the callable; imports its backend when called, not before.
        needs: What the machine must have.
        build: What must be made on the machine first.
        unsupported: A reason why a case is declined, or None.
        within: Moves a case to where the implementation computes it, or returns None: for one whose
            domain is so narrow that few drawn cases are in it.
        pays: Whether it is worth its overhead for a case; where not, callers who pin nothing get
            the next one.
        lacks: Abilities that it does not have, each with the reason.
        layer: Makes it as a layer, where it is one.
        accumulators: The dtype in which products are added up, by `(dtype, direction)`, a direction
            being `output` or the role of the argument whose gradient it is; where it is absent,
            what the library's convolution adds up in.
        stored: How many results on the way of a product are stored in the dtype of the case before
            the last one, by case and direction (None = the output); None for as many as any of the
            variant's own.
        model: `dot product` where the sums are those of the definition, `transform` where they are
            not (FFT, Winograd), `compiled` where that holds in low precision only.
        cost: What a call on a case and its tensors costs; None = not declared.
        share: Which share of a law's cases it gets: less than 1 for one that is slow to call.
        origin: Where it comes from, for plug-ins.
    """

    name: str
    load: Callable[[], Function]
    kind: Kind = Kind.OPTIMIZED
    needs: frozenset[Need] = frozenset()
    build: Build | None = None
    unsupported: Callable[[ConvCase], str | None] = lambda _: None
    within: Callable[[ConvCase], ConvCase | None] = lambda case: case
    pays: Callable[[ConvCase], bool] = lambda _: True
    differentiable: bool = True
    deterministic: bool = True
    lacks: Mapping[Ability, str] = field(default_factory=dict)
    layer: LayerForm | None = None
    accumulators: Mapping[tuple[str, str], str] = field(default_factory=dict)
    stored: Callable[[ConvCase, Role | None], int] | None = None
    model: Literal["dot product", "transform", "compiled"] = "dot product"
    cost: Callable[[ConvCase, Mapping[str, Value]], Cost] | None = None
    share: float = 1.0
    origin: str = ""

    def missing(self) -> str | None:
        """Return why this machine cannot run it, or None."""
        # a compiler cannot follow how a build is looked for, and traces other operators than those
        if self.build is None or torch.compiler.is_compiling():
            return missing(self.needs)
        return missing(self.needs) or self.build.missing()

    def requirements(self) -> tuple[str, ...]:
        """Return in words what the machine must have or make."""
        return (*sorted(map(str, self.needs)), *([self.build.what] if self.build else []))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """What an operation means.

    Args:
        name: The folder's name.
        equation: The definition in one line.
        source: Paper and equation, or document.
        args: The tensor arguments in the order of the functional form, the signal first.
        oracle: The definition as a loop over taps, with the functional signature.
        implementations: Reference first; among the optimized ones the preferred first.
        traits: Claims, each checked by at least one law.
        domain: Legal geometries.
        options: Choices of a case, default first; `family:number` entries stand for a family.
        keywords: Those options that are keyword arguments of the functional form, with the
            function that turns the word into the value.
        magnitude: The same sum with every factor replaced by its absolute value; None where that
            is the oracle of absolute values.
        extra_roundings: Roundings per output beyond those of the convolution's own sum.
        exact: Whether integer-valued tensors give a result without any rounding; None = always.
        check: Further requirements on a case; raises CaseError.
        layer: Makes the drop-in layer of a case.
        cases: Named benchmark cases, `name -> descriptor`; frozen.
        quick: Names of those that the quick benchmark runs.
    """

    name: str
    equation: str
    source: str
    args: tuple[Arg, ...]
    oracle: Function
    implementations: tuple[Implementation, ...]
    traits: frozenset[Trait]
    domain: Domain = field(default_factory=Domain)
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keywords: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    magnitude: Function | None = None
    extra_roundings: Callable[[ConvCase], int] = lambda _: 0
    exact: Callable[[ConvCase, Mapping[str, Value]], bool] | None = None
    check: Callable[[ConvCase], None] | None = None
    layer: LayerForm | None = None
    cases: Mapping[str, str] = field(default_factory=dict)
    quick: tuple[str, ...] = ()

    def check_case(self, case: ConvCase) -> None:
        """Raise CaseError unless `case` is one of this variant's."""
        for name, value in case.options:
            known = self.options.get(name)
            if known is None:
                raise CaseError(f"{name}={value}: {self.name} has no option {name!r}; it has "
                                f"{', '.join(self.options) or 'none'}")  # fmt: skip
            families = {word.split(":")[0]: ":" in word for word in known}
            if "bernoulli" in families:
                families |= dict.fromkeys(STRUCTURES, True)
            family, _, number = value.partition(":")
            if family not in families or bool(number) != families[family]:
                raise CaseError(f"{name}={value} must be one of {', '.join(known)}")
            if number and not _is_share(number):
                raise CaseError(f"{name}={value}: {number!r} must be a number in [0, 1]")
        self.domain.check(case)
        if self.check:
            self.check(case)

    def call_keywords(self, case: ConvCase) -> dict[str, Any]:
        """Return the keywords of the functional form: geometry, options not at their default."""
        names = ("stride", "dilation", "groups")
        geometry = {name: getattr(case, name) for name in names}
        if not self.domain.same_size:
            geometry["padding"] = case.padding
        if self.domain.sources:  # sources and weights need not span every axis
            geometry |= {"size": case.in_size, "kernel_size": case.kernel_size}
        chosen = {name: value for name, value in case.options if name in self.keywords}
        return geometry | {name: self.keywords[name](value) for name, value in chosen.items()}

    def arg(self, role: Role) -> Arg:
        """Return the first argument with `role`."""
        return next(arg for arg in self.args if arg.role is role)

    @property
    def reference(self) -> Implementation:
        """The implementation that the source describes."""
        return next(i for i in self.implementations if i.kind is Kind.REFERENCE)


def missing(needs: Iterable[Need]) -> str | None:
    """Return why this machine lacks one of `needs`, or None."""
    return next(filter(None, (_MISSING[need]() for need in sorted(needs))), None)


def _is_share(word: str) -> bool:
    try:
        return 0 <= float(word) <= 1
    except ValueError:
        return False


def _no_cuda() -> str | None:
    return None if torch.cuda.is_available() else "no CUDA device"


def _no_triton() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return "no CUDA device for Triton; TRITON_INTERPRET=1 runs its kernels on the CPU, slowly"


def _no_onnx() -> str | None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    return None


def _no_compiler() -> str | None:
    if not (shutil.which("g++") or shutil.which("clang++")):
        return "no C++ compiler for torch.compile"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.exists() else f"no {header} for torch.compile"


_MISSING: Mapping[Need, Callable[[], str | None]] = {
    Need.CUDA: _no_cuda,
    Need.TRITON: _no_triton,
    Need.COMPILER: _no_compiler,
    Need.ONNX: _no_onnx,
}
