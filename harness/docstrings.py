"""Signatures and docstrings as Markdown."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

_SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:")
_ENTRY = re.compile(r"(\*{0,2}\w[\w, *]*): (.*)", re.DOTALL)
_CODE = re.compile(r"(`[^`]*`)")
_SIGNS = re.compile(r"([*_<|])")
_WIDTH = 96


def definition_of(value: Any) -> ast.stmt | None:
    """Return the definition of a function or class as a tree, or None where it has no source."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(value)))
        return ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        return None


def signature(name: str, tree: ast.stmt | None) -> list[str]:
    """Return the lines of a signature: of a function, of `__init__`, or the fields of a record."""
    if isinstance(tree, ast.ClassDef):
        made = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if made:
            return signature(name, made[0])
        fields = [n for n in tree.body if isinstance(n, ast.AnnAssign)]
        bases = ", ".join(map(ast.unparse, tree.bases))
        return [f"class {name}({bases})" if bases else f"class {name}"] + [
            f"    {ast.unparse(field)}" for field in fields
        ]
    assert isinstance(tree, ast.FunctionDef)
    lines = [f"{name}("]
    for place, item in enumerate(items := arguments_of(tree.args)):
        text = item + ", " * (place < len(items) - 1)
        if len(lines[-1] + text) > _WIDTH and lines[-1].strip():
            lines.append("    ")
        lines[-1] += text
    returned = tree.returns is not None and tree.name != "__init__"
    lines[-1] += f") -> {ast.unparse(tree.returns)}" if returned and tree.returns else ")"
    return [line.rstrip() for line in lines]


def arguments_of(given: ast.arguments) -> list[str]:
    """Return the arguments as they are written, one by one, without `self`."""
    plain = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(plain) - len(given.defaults)), *given.defaults]
    items = [_item(*pair) for pair in zip(plain, defaults, strict=True)]
    items = [item for item in items if item not in ("self", "cls")]
    if given.vararg or given.kwonlyargs:
        items.append(f"*{_item(given.vararg, None)}" if given.vararg else "*")
    items += [_item(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*items, f"**{_item(given.kwarg, None)}"] if given.kwarg else items


def _item(argument: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(argument)
    if default is None:
        return text
    return f"{text}{' = ' if argument.annotation else '='}{ast.unparse(default)}"


def told(doc: str) -> list[str]:
    """Return a docstring as Markdown: its sections as lists, its examples as code."""
    lines: list[str] = []
    for block in doc.split("\n\n"):
        first, _, rest = block.partition("\n")
        if block.startswith(">>>"):
            lines += ["```python", *block.splitlines(), "```"]
        elif first in _SECTIONS:
            lines += [f"{first[:-1]}:", "", *_items(textwrap.dedent(rest))]
        elif first.startswith("* "):
            lines += [f"* {prose(item[2:])}" for item in re.split(r"\n(?=\* )", block)]
        else:
            lines.append(prose(block))
        lines.append("")
    return lines


def _items(text: str) -> Iterator[str]:
    """Yield a list of the entries, each with its name, where it has one, as code."""
    for item in re.split(r"\n(?=\S)", text):
        words = " ".join(item.split())
        found = _ENTRY.fullmatch(words)
        if found:
            yield f"* `{found[1]}`: {prose(found[2])}"
        else:
            yield f"* {prose(words)}"


def prose(text: str) -> str:
    r"""Return text on one line, Markdown's signs outside of code escaped.

    >>> prose("x*m is `x*m`")
    'x\\*m is `x*m`'
    """
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if part.startswith("`") else _SIGNS.sub(r"\\\1", part) for part in parts)
