"""How the functional form of a variant is called: arguments checked once, implementation chosen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from harness.case import PADDING_MODES, CaseError, ConvCase
from harness.taps import pad
from harness.tensors import each
from harness.variant import Arg, Function, Implementation, Kind, Need, Role, Shape, Variant

OPTIONAL_ROLES = (Role.BIAS, Role.MASK, Role.NOISE)


class Declined(CaseError):
    """A case that the implementation which is asked for does not compute."""


def call(
    variant: Variant,
    tensors: Sequence[Any],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    implementation: str | None = None,
    size: Sequence[int] | None = None,
    kernel_size: Sequence[int] | None = None,
    **options: Any,
) -> Any:
    """Check the arguments of a functional form against the variant, then compute.

    Args:
        variant: What to compute.
        tensors: The tensor arguments in the variant's order, signal and weight first.
        stride, padding, dilation, groups: As `torch.nn.functional.conv2d` takes them.
        implementation: Pins one by name; by default the fastest for the case.
        size, kernel_size: Where signal and weight are sequences: the spatial size of the output's
            grid and the kernel's.
        options: The variant's keyword options.

    Raises:
        CaseError: a geometry that cannot be, or a tensor of another shape than it asks for.
    """
    _check_alike(variant, tensors)
    device, _ = _place_of(tensors)
    lowered = device in ("cpu", "cuda") and torch.is_autocast_enabled(device)
    if lowered:
        tensors = _lowered(variant, tensors, torch.get_autocast_dtype(device))
    _check_dtypes(variant, tensors)
    kernel_size = tuple(tensors[1].shape[2:] if kernel_size is None else kernel_size)
    rank = len(kernel_size)
    stride, dilation = per_axis("stride", stride, rank), per_axis("dilation", dilation, rank)
    if variant.domain.same_size:
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel_size, strict=True))
    elif isinstance(padding, str):
        sides = named_padding(padding, kernel_size, stride, dilation)
        if any(before != behind for before, behind in sides):
            known = "padding_mode" in variant.keywords  # else it is refused below
            mode = options.pop("padding_mode", "zeros") if known else "zeros"
            tensors = _pad_signal(variant, tensors, sides, mode)
            sides = ((0, 0),) * rank
        padding = tuple(before for before, _ in sides)
    else:
        padding = per_axis("padding", padding, rank)
    size = None if size is None else tuple(size)
    function, keywords = _uncached(_plan)(
        variant, implementation, tuple(map(_shape_of, tensors)), _place_of(tensors), size,
        kernel_size, stride, padding, dilation, groups, tuple(sorted(options.items())),
    )  # fmt: skip
    for arg, value in zip(variant.args, tensors, strict=True):
        if arg.role is Role.MASK and isinstance(value, Tensor):
            _check_mask(arg.name, value)
    if not lowered:
        return function(*tensors, **keywords)
    # counts and ratios inside keep the precision that the definition gives them
    with torch.autocast(device, enabled=False):
        return function(*tensors, **keywords)


def fastest(variant: Variant, case: ConvCase, device: str = "cpu") -> Implementation:
    """Return the preferred implementation for `case` on `device`: optimized before reference."""
    ranked = [(not i.pays(case), i.kind is Kind.REFERENCE, i) for i in variant.implementations]
    for *_, candidate in sorted(ranked, key=lambda entry: entry[:2]):
        elsewhere = Need.CUDA in candidate.needs and device != "cuda"
        if elsewhere or Need.COMPILER in candidate.needs:
            continue  # compiling behind a caller's back would stall the first call for seconds
        if declines(candidate, variant, case) is None:
            return candidate
    raise CaseError(f"no implementation of {variant.name} computes {case}")


def declines(implementation: Implementation, variant: Variant, case: ConvCase) -> str | None:
    """Return why `implementation` does not compute `case`, or None."""
    if reason := implementation.missing() or implementation.unsupported(case):
        return reason
    if implementation.within(case) != case:
        return "outside of what it computes"
    try:
        function = implementation.load()
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything at all
        return f"cannot be loaded: {type(error).__name__}: {error}"
    accepted = _uncached(_keywords_of)(function)
    lacking = variant.call_keywords(case).keys() - accepted
    return f"takes no argument {min(lacking)!r}" if lacking and "**" not in accepted else None


def compiled(load: Callable[[], Function], **options: Any) -> Implementation:
    """Return the `torch.compile` form of what `load` returns, compiled at its first call."""
    return Implementation(
        name="compiled",
        load=lambda: _compile(load(), tuple(sorted(options.items()))),
        needs=frozenset({Need.COMPILER}),
        model="compiled",
    )


@lru_cache(maxsize=256)
def _compile(function: Function, options: tuple[tuple[str, Any], ...]) -> Function:
    form = torch.compile(function, fullgraph=True, **dict(options))
    form.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return form


# -- checking ----------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _plan(
    variant: Variant, implementation: str | None, shapes: tuple[Any, ...], place: tuple[str, str],
    size: Shape | None, kernel_size: Shape, stride: Shape, padding: Shape, dilation: Shape,
    groups: int, options: tuple[tuple[str, Any], ...],
) -> tuple[Function, dict[str, Any]]:  # fmt: skip
    """Everything about a call that shapes, device and options decide; cached by all of them."""
    device, dtype = place
    case = _case_of(
        variant, shapes, dtype, size, kernel_size, stride, padding, dilation, groups, options
    )
    if implementation is None:
        chosen = fastest(variant, case, device)
    else:
        chosen = _named(variant, implementation)
        if reason := declines(chosen, variant, case):
            raise Declined(
                f"implementation={implementation!r} does not compute this case: {reason}"
            )
    return chosen.load(), variant.call_keywords(case)


def _case_of(
    variant: Variant, shapes: tuple[Any, ...], dtype: str, size: Shape | None,
    kernel_size: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int,
    options: tuple[tuple[str, Any], ...],
) -> ConvCase:  # fmt: skip
    for name, value in options:
        if name not in variant.keywords:
            known = ", ".join(("stride", "padding", "dilation", "groups", *variant.keywords))
            raise CaseError(
                f"{name}={value!r}: {variant.name} takes no argument {name!r}; it takes {known}"
            )
    signal, weight = shapes[0], shapes[1]
    several = variant.domain.sources
    batch, c_in = _batch_and_channels(signal, several, len(kernel_size))
    filters = weight if isinstance(weight[0], int) else next(w for w in weight if w is not None)
    # a weight may hold stacks of kernels before its output channels
    c_out = filters[0] if several else filters[-len(kernel_size) - 2]
    words = {n: str(v) for n, v in options if str(v) != variant.options[n][0]}
    case = ConvCase(
        n=batch, c_in=sum(c_in), c_out=c_out, in_size=signal[2:] if size is None else size,
        kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups,
        dtype=dtype, bias=any(a.role is Role.BIAS and s for a, s in zip(variant.args, shapes, strict=True)),
        options=tuple(sorted(words.items())), sources=c_in if several else (),
    )  # fmt: skip
    for arg, shape in zip(variant.args, shapes, strict=True):
        case = _match_shape(variant, arg, shape, case)
    variant.check_case(case)
    return case


def _batch_and_channels(signal: Any, several: bool, rank: int) -> tuple[int, Shape]:
    if several:
        present = [shape for shape in signal if shape is not None]
        if not present:
            raise CaseError("every source is absent: at least one must be given")
        return present[0][0], tuple(0 if shape is None else shape[1] for shape in signal)
    if len(signal) != rank + 2:
        raise CaseError(
            f"x.shape={signal} needs {rank + 2} axes: batch, channels and {rank} spatial"
        )
    return signal[0], (signal[1],)


def _match_shape(variant: Variant, arg: Arg, shape: Any, case: ConvCase) -> ConvCase:
    """Return `case` with the shape-changing options set that give `shape`; raise if none does."""
    if shape is None and arg.role in OPTIONAL_ROLES:
        return case
    allowed: dict[Any, ConvCase] = {}
    for values in product(*(variant.options[name] for name in arg.choices)):
        chosen = dict(zip(arg.choices, values, strict=True))
        defaults = {name: variant.options[name][0] for name in chosen}
        changed = {name: None if v == defaults[name] else v for name, v in chosen.items()}
        candidate = case.with_options(**changed)
        allowed.setdefault(arg.shape(candidate), candidate)
    if shape in allowed:
        return allowed[shape]
    expected = " or ".join(str(s) for s in allowed if s is not None) or "absent"
    raise CaseError(f"{arg.name}.shape={shape} must be {expected}")


def _check_alike(variant: Variant, tensors: Sequence[Any]) -> None:
    names = [arg.name for arg in variant.args]
    if len(tensors) != len(names):
        raise CaseError(f"{len(tensors)} tensors are given, expected {', '.join(names)}")
    for name, value in zip(names[:2], tensors, strict=False):
        if value is None:
            raise CaseError(f"{name}=None must be given")


def _check_dtypes(variant: Variant, tensors: Sequence[Any]) -> None:
    """Raise CaseError unless all but masks have one dtype: some backends would promote it."""
    dtype = None
    for arg, value in zip(variant.args, tensors, strict=True):
        if arg.role is Role.MASK:
            continue
        for part in value if isinstance(value, tuple | list) else (value,):
            if part is None:
                continue
            dtype = part.dtype if dtype is None else dtype
            if part.dtype != dtype:
                raise CaseError(f"{arg.name}.dtype={part.dtype} must be {dtype}, as others have")


def _check_mask(name: str, mask: Tensor) -> None:
    if mask.is_meta or mask.dtype == torch.bool or torch.compiler.is_compiling():
        return
    try:
        inside = mask.numel() == 0 or bool(((mask >= 0) & (mask <= 1)).all())
    except RuntimeError:  # no value to read: a fake tensor, or inside of vmap
        return
    if not inside:
        raise CaseError(f"{name} must hold values in [0, 1]")


def per_axis(name: str, value: int | Sequence[int], rank: int) -> Shape:
    """Return `value` with one entry per spatial axis.

    Raises:
        CaseError: it has another number of entries.
    """
    entries = (value,) if isinstance(value, int) else tuple(value)
    if len(entries) == 1:
        entries *= rank
    if len(entries) != rank:
        raise CaseError(f"{name}={value} needs {rank} entries, one per spatial axis")
    return entries


def named_padding(
    padding: str, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Return `(before, behind)` per axis for `'valid'` and `'same'`; one more behind if odd.

    Raises:
        CaseError: another word, or 'same' with a stride.
    """
    if padding not in ("valid", "same"):
        raise CaseError(f"padding={padding!r} must be a number per axis, 'valid' or 'same'")
    if padding == "valid":
        return ((0, 0),) * len(kernel_size)
    if any(s != 1 for s in stride):
        raise CaseError(f"padding='same' needs stride 1, not stride={tuple(stride)}")
    totals = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _pad_signal(
    variant: Variant, tensors: Sequence[Any], sides: tuple[tuple[int, int], ...], mode: str
) -> tuple[Any, ...]:
    """Pad the signal, and the masks that cover it, where the two sides differ."""
    if mode not in PADDING_MODES:
        raise CaseError(f"padding_mode={mode!r} must be one of {', '.join(PADDING_MODES)}")
    padded = []
    for arg, value in zip(variant.args, tensors, strict=True):
        touched = arg.role is Role.SIGNAL or arg.covers == variant.args[0].name
        # a mask per window has axes of its own, which padding does not touch
        spatial = touched and value is not None and value.dim() == len(sides) + 2
        try:
            padded.append(pad(value, sides, mode) if spatial else value)
        except ValueError as error:
            raise CaseError(str(error)) from None
    return tuple(padded)


def _named(variant: Variant, name: str) -> Implementation:
    for implementation in variant.implementations:
        if implementation.name == name:
            return implementation
    names = ", ".join(i.name for i in variant.implementations)
    raise CaseError(f"implementation={name!r} must be one of {names}")


@lru_cache(maxsize=1024)
def _keywords_of(function: Function) -> frozenset[str]:
    parameters = inspect.signature(function).parameters.values()
    return frozenset("**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters)


def _lowered(variant: Variant, tensors: Sequence[Any], dtype: torch.dtype) -> tuple[Any, ...]:
    """Return `tensors` in the dtype of autocast, as it casts the arguments of a convolution.

    Masks stay as they are, and so does float64.
    """

    def lower(value: Tensor) -> Tensor:
        return (
            value.to(dtype) if value.is_floating_point() and value.dtype != torch.double else value
        )

    return tuple(
        value if arg.role is Role.MASK else each(value, lower)
        for arg, value in zip(variant.args, tensors, strict=True)
    )


def _uncached(function: Any) -> Any:
    """Return `function` without its cache while compiling: the compiler guards its own result."""
    return function.__wrapped__ if torch.compiler.is_compiling() else function


def _shape_of(value: Any) -> Any:
    if value is None:
        return None
    return tuple(value.shape) if isinstance(value, Tensor) else tuple(map(_shape_of, value))


def _place_of(tensors: Sequence[Any]) -> tuple[str, str]:
    """Return the type of the device, and the dtype, of the first tensor."""
    for value in tensors:
        if isinstance(value, Tensor):
            return value.device.type, str(value.dtype).removeprefix("torch.")
        if value is not None:
            return _place_of(value)
    return "cpu", "float32"
