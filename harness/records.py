"""Plain JSON as typed records: every value has the type that its record says, or is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

TOO_LARGE = 2**63
LONGEST_SHOWN = 200
"""Letters of a wrong value that an error quotes."""

Record = TypeVar("Record")


class ResultsError(Exception):
    """A results folder that cannot be written or read, with the path and the reason."""


def read_record(kind: type[Record], data: Any, place: str) -> Record:
    """Turn plain JSON `data` into a `kind`, a dataclass; `place` is named in the error.

    Raises:
        ResultsError: an entry is missing, unknown or of another type.
    """
    try:
        value = _typed(kind, data, "")
    except (TypeError, ValueError) as error:
        raise ResultsError(f"{place}: is no {kind.__name__}: {error}") from error
    return value  # type: ignore[no-any-return]


def _typed(kind: Any, data: Any, name: str) -> Any:
    """Turn plain JSON `data` into `kind`, refusing every value of another type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _typed_record(kind, data, name)
    if origin in (typing.Union, types.UnionType):
        return _typed_choice(kind, [p for p in parts if p is not type(None)], data, name)
    if origin is tuple and isinstance(data, list):
        kinds = set(map(type, data))  # of numbers there are many
        if parts[0] is float and kinds <= {int, float}:
            return tuple(data)
        if parts[0] is int and kinds == {int}:
            return (
                tuple(data)
                if max(map(abs, data)) < TOO_LARGE
                else _refuse(name, data, "64-bit integers")
            )
        return tuple(_typed(parts[0], item, name) for item in data)
    if origin is Mapping and isinstance(data, dict):
        return {key: _typed(parts[1], item, f"{name}.{key}") for key, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(data)
    accepted = (int, float) if kind is float else (kind,)
    if (
        origin is None
        and isinstance(data, accepted)
        and (kind is bool or not isinstance(data, bool))
    ):
        if kind is int and abs(data) >= TOO_LARGE:
            _refuse(name, data, "a 64-bit integer")
        return data
    return _refuse(name, data, getattr(kind, "__name__", str(kind)))


def _refuse(name: str, data: Any, expected: str) -> Any:
    shown = repr(data)
    shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"
    raise TypeError(f"{name}={shown} must be {expected}")


def _typed_choice(kind: Any, parts: Sequence[Any], data: Any, name: str) -> Any:
    if data is None and isinstance(None, kind):
        return None
    for part in parts[:-1]:
        with contextlib.suppress(TypeError, ValueError):
            return _typed(part, data, name)
    return _typed(parts[-1], data, name)


def _typed_record(kind: type, data: Any, name: str) -> Any:
    if not isinstance(data, dict):
        _refuse(name or "it", data, "an object")
    hints, required = _entries(kind)
    if missing := sorted(required - data.keys()):
        raise TypeError(f"{missing[0]} is missing")
    if unknown := sorted(data.keys() - hints.keys()):
        raise TypeError(f"{unknown[0]} is unknown")
    return kind(**{
        # most entries are text or a choice of their very type
        key: value if type(value) is hints[key] is not int else _typed(hints[key], value, key)
        for key, value in data.items()
    })  # fmt: skip


@functools.cache
def _entries(kind: type) -> tuple[Mapping[str, Any], frozenset[str]]:
    """Return the types of a record's entries, and the names of those that it must have."""
    required = (
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    return typing.get_type_hints(kind), frozenset(required)
