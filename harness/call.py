"""How the functional form of a variant is called: arguments checked once, implementation chosen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from harness.case import PADDING_MODES, CaseError, ConvCase
from harness.explanation import Explained, Inquiry
from harness.selection import declines, explanation_of, fastest, named, uncached
from harness.single import batch_of_one, sample_of
from harness.taps import pad
from harness.tensors import each
from harness.variant import Arg, Function, Implementation, Need, Role, Shape, Variant

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
    implementation: str | Inquiry | None = None,
    size: Sequence[int] | None = None,
    kernel_size: Sequence[int] | None = None,
    **options: Any,
) -> Any:
    """Check the arguments of a functional form against the variant, then compute.

    Args:
        variant: What to compute.
        tensors: The tensor arguments in the variant's order, signal and weight first. A signal
            without an axis for the batch is a batch of one; masks come without it alike.
        stride, padding, dilation, groups: As `torch.nn.functional.conv2d` takes them.
        implementation: Pins one by name; by default the fastest for the case.
        size, kernel_size: Where signal and weight are sequences: the spatial size of the output's
            grid and the kernel's.
        options: The variant's keyword options.

    Raises:
        CaseError: a geometry that cannot be, or a tensor of another shape than it asks for.
    """
    if _is_single(tensors, kernel_size):
        _check_alike(variant, tensors)
        result = call(
            variant, batch_of_one(variant, tensors), stride=stride, padding=padding,
            dilation=dilation, groups=groups, implementation=implementation, size=size,
            kernel_size=kernel_size, **options,
        )  # fmt: skip
        return sample_of(result)
    device = _device_of(tensors)
    lowered = device in ("cpu", "cuda") and torch.is_autocast_enabled(device)
    if lowered:
        tensors = _lowered(variant, tensors, torch.get_autocast_dtype(device))
    if isinstance(padding, str) and not variant.domain.same_size:
        tensors, padding = _even_sides(
            variant, tensors, padding, stride, dilation, kernel_size, options
        )
    try:
        function, keywords, masks = uncached(_plan)(
            variant, implementation, tuple(map(_described, tensors)), device, _hashed(size),
            _hashed(kernel_size), _hashed(stride), _hashed(padding), _hashed(dilation), groups,
            tuple(sorted(options.items())) if options else (),
        )  # fmt: skip
    except TypeError:
        _check_words(variant, {"implementation": implementation, "groups": groups, **options})
        raise
    for place, name in masks:
        if tensors[place] is not None:
            _check_mask(name, tensors[place])
    if not lowered:
        return function(*tensors, **keywords)
    # counts and ratios inside keep the precision that the definition gives them
    with torch.autocast(device, enabled=False):
        return function(*tensors, **keywords)


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
    variant: Variant, implementation: str | Inquiry | None, described: tuple[Any, ...], device: str,
    size: Shape | None, kernel_size: Shape | None, stride: Any, padding: Any, dilation: Any,
    groups: int, options: tuple[tuple[str, Any], ...],
) -> tuple[Function, dict[str, Any], tuple[tuple[int, str], ...]]:  # fmt: skip
    """Check all of a call that no value decides; cached by everything that it depends on.

    Returns:
        What computes, its keywords, and the masks among the tensors by place and name.
    """
    _check_alike(variant, described)
    dtype = _check_dtypes(variant, described)
    shapes = tuple(map(_shape_of, described))
    kernel_size = tuple(shapes[1][2:]) if kernel_size is None else kernel_size
    rank = len(kernel_size)
    stride, dilation = per_axis("stride", stride, rank), per_axis("dilation", dilation, rank)
    if variant.domain.same_size:
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel_size, strict=True))
    padding = per_axis("padding", padding, rank)
    case = _case_of(
        variant, shapes, dtype, size, kernel_size, stride, padding, dilation, groups, options
    )
    if isinstance(implementation, Inquiry):
        raise Explained(explanation_of(variant, case, device, implementation.pinned))
    if implementation is None:
        chosen = fastest(variant, case, device)
    else:
        chosen = named(variant, implementation)
        if reason := declines(chosen, variant, case):
            raise Declined(
                f"implementation={implementation!r} does not compute this case: {reason}"
            )
    masks = tuple((i, a.name) for i, a in enumerate(variant.args) if a.role is Role.MASK)
    return chosen.load(), variant.call_keywords(case), masks


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
            f"x.shape={signal} needs {rank + 2} axes: batch, channels and {rank} spatial; "
            f"or {rank + 1}, without the batch"
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


def _check_alike(variant: Variant, given: Sequence[Any]) -> None:
    names = [arg.name for arg in variant.args]
    if len(given) != len(names):
        raise CaseError(f"{len(given)} tensors are given, expected {', '.join(names)}")
    for name, value in zip(names[:2], given, strict=False):
        if value is None:
            raise CaseError(f"{name}=None must be given")


def _check_dtypes(variant: Variant, described: Sequence[Any]) -> str:
    """Return the dtype that all but masks have; else raise: some backends would promote it."""
    dtype = None
    for arg, value in zip(variant.args, described, strict=True):
        if arg.role is Role.MASK or value is None:
            continue
        for part in (value,) if _is_one(value) else value:
            if part is None:
                continue
            dtype = part[1] if dtype is None else dtype
            if part[1] != dtype:
                raise CaseError(f"{arg.name}.dtype={part[1]} must be {dtype}, as others have")
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")


def _check_words(variant: Variant, words: Mapping[str, Any]) -> None:
    """Raise CaseError for a value that cannot be compared with those that there are."""
    for name, value in words.items():
        try:
            hash(value)
        except TypeError:
            known = {"implementation": [i.name for i in variant.implementations], **variant.options}
            expected = f"one of {', '.join(known[name])}" if name in known else "a number or a word"
            raise CaseError(f"{name}={value!r} must be {expected}") from None


def _check_mask(name: str, mask: Tensor) -> None:
    if mask.dtype == torch.bool or mask.is_meta or torch.compiler.is_compiling():
        return
    if mask.is_cuda and torch.cuda.is_current_stream_capturing():
        return  # a CUDA graph is recorded without values
    if not mask.numel():
        return
    try:
        least, most = mask.detach().aminmax()
        if mask.is_cuda:  # reading a value would wait for the device
            torch._assert_async((least >= 0) & (most <= 1), f"{name} must hold values in [0, 1]")
            return
        inside = least.item() >= 0 and most.item() <= 1
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


def _even_sides(
    variant: Variant, tensors: Sequence[Any], padding: str, stride: Any, dilation: Any,
    kernel_size: Sequence[int] | None, options: dict[str, Any],
) -> tuple[Sequence[Any], Shape]:  # fmt: skip
    """Return the tensors, padded where a named padding is uneven, and the padding that is left.

    Where they are padded, `padding_mode` is taken out of `options`.
    """
    _check_alike(variant, tensors)
    kernel_size = tuple(tensors[1].shape[2:] if kernel_size is None else kernel_size)
    rank = len(kernel_size)
    steps = per_axis("stride", stride, rank), per_axis("dilation", dilation, rank)
    sides = named_padding(padding, kernel_size, *steps)
    if all(before == behind for before, behind in sides):
        return tensors, tuple(before for before, _ in sides)
    known = "padding_mode" in variant.keywords  # else it is refused later
    mode = options.pop("padding_mode", "zeros") if known else "zeros"
    return _pad_signal(variant, tensors, sides, mode), (0,) * rank


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


def _is_single(tensors: Sequence[Any], kernel_size: Sequence[int] | None) -> bool:
    """Whether the signal is one sample without an axis for the batch."""
    signal, weight = tensors[0], tensors[1]
    if not isinstance(signal, Tensor) or not isinstance(weight, Tensor):
        return False
    rank = weight.dim() - 2 if kernel_size is None else len(kernel_size)
    return signal.dim() == rank + 1


def _hashed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _described(value: Any) -> Any:
    """Return the shape and dtype of a tensor, of every tensor, or None."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    return tuple(map(_described, value))


def _is_one(described: Any) -> bool:
    return len(described) == 2 and isinstance(described[1], torch.dtype)


def _shape_of(described: Any) -> Any:
    if described is None:
        return None
    return described[0] if _is_one(described) else tuple(map(_shape_of, described))


def _device_of(tensors: Sequence[Any]) -> str:
    """Return the type of the device of the first tensor."""
    for value in tensors:
        if isinstance(value, Tensor):
            return value.device.type
        if value is not None:
            return _device_of(value)
    return "cpu"
