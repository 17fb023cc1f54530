"""A case: one problem as a frozen value that prints itself and parses itself back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

DTYPES = ("float64", "float32", "bfloat16", "float16")
LAYOUTS = ("contiguous", "channels_last", "strided", "transposed")
# exact fills hold small integers, so that every order of summation gives the same bits
EXACT_FILLS = ("exact", "ones", "arange", "sparse")
FILLS = (*EXACT_FILLS, "real", "wide")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

_SIZES = {"i": "in_size", "k": "kernel_size", "s": "stride", "p": "padding", "d": "dilation"}
_SCALARS = {"n": "n", "g": "groups", "b": "bias", "seed": "seed"}
_TOKEN = re.compile(r"(?P<letter>seed|[a-z])(?P<value>[0-9][0-9x]*)")
_CHANNELS = re.compile(r"c(?P<sources>\d+(\+\d+)*)>(?P<out>\d+)")


class CaseError(ValueError):
    """A geometry that cannot be, or a descriptor that does not parse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvCase:
    """One convolution problem; `str(case)` is its identity.

    Args:
        n: Batch size, 0 or more.
        c_in: Channels of the signal; with several sources the sum over them.
        c_out: Channels of the output.
        in_size, kernel_size, stride, padding, dilation: One entry per spatial axis; dilation 1 is
            dense, padding is symmetric.
        groups: Channel groups; divides `c_in` and `c_out` (and every source).
        bias: Whether there is a bias.
        dtype, layout, fill, seed: How the tensors are made (`harness.tensors`).
        options: The variant's own choices that are not at their default, sorted by name.
        sources: Channels of every source where the signal comes in several, else empty.

    Raises:
        CaseError: an entry is out of range, or the kernel is larger than the padded input.

    >>> line = "n2 c4>6 i8x9 k3x2 s1x1 p0x0 d1x1 g2 b1 float32 contiguous exact seed0 mask=ones"
    >>> case = ConvCase.parse(line)
    >>> str(case) == line, case.out_size, case.weight_shape, case.n_acc
    (True, (6, 8), (6, 2, 3, 2), 12)
    >>> ConvCase.parse("n1 c3+4+5+6>8 i8x8 k3x3").sources
    (3, 4, 5, 6)
    >>> ConvCase.parse("n1 c6>8 i8 k3 g4")
    Traceback (most recent call last):
    harness.case.CaseError: c_in=6 is not divisible by groups=4
    """

    n: int
    c_in: int
    c_out: int
    in_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    bias: bool = True
    dtype: str = "float32"
    layout: str = "contiguous"
    fill: str = "exact"
    seed: int = 0
    options: tuple[tuple[str, str], ...] = ()
    sources: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    # -- derived -------------------------------------------------------------------------------

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes."""
        return len(self.in_size)

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """`dilation * (kernel_size - 1) + 1`, per axis."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))

    @property
    def out_size(self) -> tuple[int, ...]:
        """`floor((in_size + 2 padding - receptive_field) / stride) + 1`, per axis."""
        axes = zip(self.in_size, self.padding, self.receptive_field, self.stride, strict=True)
        return tuple((size + 2 * p - field) // s + 1 for size, p, field, s in axes)

    @property
    def taps(self) -> int:
        """Number of positions inside the kernel."""
        return prod(self.kernel_size)

    @property
    def n_acc(self) -> int:
        """Products that one output sums."""
        return self.taps * self.c_in // self.groups

    @property
    def macs(self) -> int:
        """Multiply-adds in total."""
        return self.n * self.c_out * prod(self.out_size) * self.n_acc

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the (image) signal."""
        return (self.n, self.sources[0] if self.sources else self.c_in, *self.in_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight over all channels, `(c_out, c_in/groups, *kernel_size)`."""
        return (self.c_out, self.c_in // self.groups, *self.kernel_size)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        return (self.n, self.c_out, *self.out_size)

    @property
    def is_exact(self) -> bool:
        """Whether the fill holds small integers only."""
        return self.fill in EXACT_FILLS

    def option(self, name: str, default: str) -> str:
        """Return option `name`, or `default` where the case leaves it at its default."""
        return dict(self.options).get(name, default)

    def with_options(self, **options: str | None) -> ConvCase:
        """Return this case with `options` set; `None` removes one."""
        merged: dict[str, str | None] = {**dict(self.options), **options}
        kept = {name: value for name, value in merged.items() if value is not None}
        return replace(self, options=tuple(sorted(kept.items())))

    # -- text ----------------------------------------------------------------------------------

    def __str__(self) -> str:
        """Return the one-token-per-field line."""
        channels = "+".join(map(str, self.sources)) if self.sources else str(self.c_in)
        sizes = (f"{letter}{_times(getattr(self, name))}" for letter, name in _SIZES.items())
        options = (f"{name}={value}" for name, value in self.options)
        return " ".join((
            f"n{self.n}", f"c{channels}>{self.c_out}", *sizes, f"g{self.groups}", f"b{int(self.bias)}",
            self.dtype, self.layout, self.fill, f"seed{self.seed}", *options,
        ))  # fmt: skip

    @classmethod
    def parse(cls, line: str) -> ConvCase:
        """Read the line that `str(case)` prints; `n`, `c`, `i` and `k` are required.

        Raises:
            CaseError: which token, and why.
        """
        fields: dict[str, object] = {}
        options: dict[str, str] = {}
        for token in line.split():
            for name, value in _parse_token(token).items():
                target = options if "=" in token else fields
                if name in target:
                    raise CaseError(f"{token!r}: {name} is given twice in {line!r}")
                target[name] = value  # type: ignore[assignment]
        for letter, name in (("n", "n"), ("c", "c_out"), ("i", "in_size"), ("k", "kernel_size")):
            if name not in fields:
                raise CaseError(f"{line!r} has no {letter} token ({name})")
        ones = (1,) * len(fields["in_size"])  # type: ignore[arg-type]
        fields = {"stride": ones, "padding": tuple(0 for _ in ones), "dilation": ones, **fields}
        return cls(**fields, options=tuple(sorted(options.items())))  # type: ignore[arg-type]


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _parse_token(token: str) -> Mapping[str, object]:
    for field, words in (("dtype", DTYPES), ("layout", LAYOUTS), ("fill", FILLS)):
        if token in words:
            return {field: token}
    if "=" in token:
        option, _, word = token.partition("=")
        if not option.isidentifier() or not word:
            raise CaseError(f"{token!r} is no option: expected name=value")
        return {option: word}
    if channels := _CHANNELS.fullmatch(token):
        sources = tuple(map(int, channels["sources"].split("+")))
        counts = {"c_in": sum(sources), "c_out": int(channels["out"])}
        return {**counts, "sources": sources} if len(sources) > 1 else counts
    if match := _TOKEN.fullmatch(token):
        letter, value = match["letter"], match["value"]
        if letter in _SIZES and not value.endswith("x") and "xx" not in value:
            return {_SIZES[letter]: tuple(map(int, value.split("x")))}
        if letter in _SCALARS and value.isdigit():
            number = int(value)
            if letter == "b" and number > 1:
                raise CaseError(f"{token!r}: b is 0 or 1")
            return {_SCALARS[letter]: bool(number) if letter == "b" else number}
    listed = ", ".join((*DTYPES, *LAYOUTS, *FILLS))
    raise CaseError(
        f"{token!r} is no token of a case: expected n c i k s p d g b seed with numbers "
        f"(n2 c4>6 i8x9 k3x2), name=value, or one of {listed}"
    )


def _check(case: ConvCase) -> None:
    if not case.in_size:
        raise CaseError("in_size=() needs at least one spatial axis")
    for name in ("kernel_size", "stride", "padding", "dilation"):
        entries = getattr(case, name)
        if len(entries) != case.spatial_dims:
            raise CaseError(
                f"{name}={entries} needs {case.spatial_dims} entries, "
                f"one per spatial axis of in_size={case.in_size}"
            )
    least = {
        "n": 0, "c_in": 1, "c_out": 1, "groups": 1, "seed": 0,
        "in_size": 1, "kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1, "sources": 0,
    }  # fmt: skip
    for name, bound in least.items():
        value = getattr(case, name)
        if any(entry < bound for entry in (value if isinstance(value, tuple) else (value,))):
            raise CaseError(f"{name}={value} must be at least {bound}")
    for name, words in (("dtype", DTYPES), ("layout", LAYOUTS), ("fill", FILLS)):
        if getattr(case, name) not in words:
            raise CaseError(f"{name}={getattr(case, name)!r} must be one of {', '.join(words)}")
    _check_channels(case)
    axes = zip(case.in_size, case.padding, case.receptive_field, strict=True)
    for axis, (size, p, field) in enumerate(axes):
        if field > size + 2 * p:
            raise CaseError(
                f"kernel_size={case.kernel_size} with dilation={case.dilation} spans {field} on "
                f"spatial axis {axis}, larger than the padded input {size} + 2 * {p}"
            )


def _check_channels(case: ConvCase) -> None:
    if case.sources and len(case.sources) != 2**case.spatial_dims:
        raise CaseError(
            f"sources={case.sources} needs {2**case.spatial_dims} entries, one per subset of the "
            f"{case.spatial_dims} spatial axes"
        )
    if case.sources and sum(case.sources) != case.c_in:
        raise CaseError(f"c_in={case.c_in} must be the sum of sources={case.sources}")
    counts = {"c_in": case.c_in, "c_out": case.c_out}
    counts |= {f"sources[{i}]": count for i, count in enumerate(case.sources)}
    for name, count in counts.items():
        if count % case.groups:
            raise CaseError(f"{name}={count} is not divisible by groups={case.groups}")
