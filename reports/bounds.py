"""Rows with every text cut to a length that a page can hold: they come from strangers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

NAME, TEXT = 200, 20_000
_LONG = {
    "detail", "script", "about", "statement", "equation", "reason", "source", "case", "replay", "argv",
    "notes",
}  # fmt: skip

Value = TypeVar("Value")


def bounded(value: Value, longest: int = NAME) -> Value:
    """Return `value` with every text in it at most `longest` characters long.

    Where something was cut off the text says so, with a digest of the whole: two names that begin
    alike stay two. Details and scripts, which are read and never compared, may have `TEXT`.
    """
    return _bounded(value, longest)  # type: ignore[no-any-return]


def _bounded(value: Any, longest: int) -> Any:
    if value is None or isinstance(value, Enum | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= longest else _cut(value, longest)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        changed = {
            name: new
            for name, old in fields.items()
            if not (type(old) is str and len(old) <= longest)
            if (new := _bounded(old, TEXT if name in _LONG else longest)) is not old
        }
        return dataclasses.replace(value, **changed) if changed else value
    if isinstance(value, Mapping):
        items = {_bounded(k, longest): _bounded(v, longest) for k, v in value.items()}
        return value if items == value else items
    if isinstance(value, tuple | list) and value and not isinstance(value[0], int | float):
        found = [_bounded(item, longest) for item in value]
        same = all(new is old for new, old in zip(found, value, strict=True))
        return value if same else type(value)(found)
    return value


def _cut(text: str, longest: int) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    end = f"… ({len(text):,} characters, {digest})"
    return text[: longest - len(end)] + end
