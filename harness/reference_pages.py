"""Two pages of docs/ from the code itself: the catalogue of the variants and the reference."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import EnumType
from types import ModuleType
from typing import Any

from torch import nn

from harness.docstrings import arguments_of, definition_of, prose, signature, told
from harness.evidence import escaped
from harness.limits import domain_in_words, limits_of
from harness.table import Table
from harness.variant import Implementation, Variant

_LAZY = "Lazy"
_PASSED_ON = ("*args: Any", "**kwargs: Any")


VARIANTS = (
    "Generated from the table. An implementation that *needs* something is left out where the "
    "machine lacks it; one that declines a case says why, and the next one computes it. *Declared "
    "limits*: what it declines among the cases of the benchmark, in four dtypes, and the abilities "
    "of torch's machinery that it lacks. The first implementation is the baseline; `fastest` takes "
    "the others in their order."
)
REFERENCE = (
    "Generated from signatures and docstrings. `N` is the batch, `C_in` and `C_out` are channels, "
    "`*S` the sizes of the spatial axes."
)

# -- variants ----------------------------------------------------------------------------------


def variant_page(table: Table) -> str:
    """Return every variant with its source, claims, implementations, options and layers."""
    lines = [
        "# The variants",
        "",
        VARIANTS,
        "",
    ]
    for variant in table.variants.values():
        lines += [f"## {variant.name}", "", *_about(variant), ""]
        lines += [f"{len(table.laws_of(variant))} [laws](laws.md). It claims:", ""]
        lines += [f"* {trait}" for trait in sorted(map(str, variant.traits))]
        lines += [
            "",
            "| implementation | kind | how | needs | declared limits |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(variant, one) for one in variant.implementations]
        lines += ["", *_choices(variant), *_layers(variant)]
    return "\n".join(lines).rstrip() + "\n"


def _about(variant: Variant) -> Iterator[str]:
    yield f"    {variant.equation}"
    yield ""
    written = f"impls/{variant.name}/oracle.py"
    definition = f" Definition: [{written}](../{written})." if _is_ours(variant) else ""
    yield f"Source: {escaped(variant.source)}.{definition}"
    yield ""
    takes = ", ".join(f"`{arg.name}` ({arg.role})" for arg in variant.args)
    yield f"Takes {takes}. Domain: {domain_in_words(variant)}."


def _row(variant: Variant, one: Implementation) -> str:
    needs = ", ".join(one.requirements())
    cells = (f"`{one.name}`", str(one.kind), _how(one), needs, "; ".join(limits_of(variant, one)))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _how(one: Implementation) -> str:
    """Return the first sentence of its docstring; what needs a backend is not loaded for that."""
    if one.model == "compiled":
        return "an implementation of the variant, by `torch.compile`"
    return "" if one.needs else prose((inspect.getdoc(one.load()) or "").split("\n\n")[0])


def _choices(variant: Variant) -> Iterator[str]:
    if variant.options:
        yield "| option of a case | words, the default first | of the functional form |"
        yield "|---|---|---|"
        for name, words in variant.options.items():
            listed = ", ".join(f"`{word}`" for word in words)
            yield f"| `{name}` | {listed} | {'yes' if name in variant.keywords else ''} |"
        yield ""


def _layers(variant: Variant) -> Iterator[str]:
    module = importlib.import_module(f"impls.{variant.name}") if _is_ours(variant) else None
    names = [cls.__name__ for cls in _modules_of(module)] if module else []
    if names:
        listed = ", ".join(f"`{name}`" for name in names)
        yield f"Layers in `impls.{variant.name}`: {listed}; see [api.md](api.md#{variant.name})."
        yield ""


def _is_ours(variant: Variant) -> bool:
    return not any(one.origin for one in variant.implementations)


def _modules_of(module: ModuleType) -> list[type[nn.Module]]:
    found = (getattr(module, name) for name in module.__all__)
    return [value for value in found if isinstance(value, type) and issubclass(value, nn.Module)]


# -- the reference -----------------------------------------------------------------------------


def api_page(table: Table) -> str:
    """Return signatures and docstrings of layers, functional forms and `harness.api`."""
    ours = [name for name, variant in table.variants.items() if _is_ours(variant)]
    lines = [
        "# Reference",
        "",
        REFERENCE,
        "",
        "## Shared by the layers",
        "",
    ]
    shared = importlib.import_module("impls._shared.layer")
    for name in ("ConvLayer", "PairLayer", "LazyConvLayer"):
        lines += [*_entry(getattr(shared, name)), *_methods(getattr(shared, name))]
    for name in ours:
        module = importlib.import_module(f"impls.{name}")
        lines += [f"## {name}", "", *_of_variant(module)]
    companions = importlib.import_module("impls")
    lines += ["## Companions: `impls`", "", *_families(_modules_of(companions))]
    for name in companions.__all__:
        if getattr(companions, name) not in _modules_of(companions):
            lines += _entry(getattr(companions, name))
    api = importlib.import_module("harness.api")
    lines += ["## For plug-ins: `harness.api`", ""]
    for name in api.__all__:
        lines += _entry(getattr(api, name), name)
    return "\n".join(lines).rstrip() + "\n"


def _of_variant(module: ModuleType) -> list[str]:
    lines = _families(_modules_of(module))
    for name in module.__all__:
        value = getattr(module, name)
        if name != "VARIANT" and value not in _modules_of(module):
            lines += _entry(value, name)
    return lines


def _families(classes: Sequence[type[nn.Module]]) -> list[str]:
    """Return one entry for the forms of a layer that differ in rank alone, lazy ones named."""
    families: dict[str, list[type[nn.Module]]] = {}
    for cls in classes:
        stem = re.sub(r"[123]d$", "", cls.__name__.removeprefix(_LAZY))
        families.setdefault(stem, []).append(cls)
    lines: list[str] = []
    for members in families.values():
        members.sort(key=lambda cls: (cls.__name__.startswith(_LAZY), cls.__name__))
        lines += [f"### {', '.join(f'`{cls.__name__}`' for cls in members)}", ""]
        own = [c for c in members[0].__mro__ if c.__module__.startswith("impls.")]
        described = own[min(len(members) > 1, len(own) - 1)]
        lines += [*told(inspect.getdoc(described) or ""), *_arguments(own, members[0])]
        lines += _methods(described, ("forward",))
    return lines


def _arguments(own: Sequence[type], cls: type) -> list[str]:
    """Return the constructor's arguments, those that go on to torch's class named by it."""
    found: dict[str, str] = {}
    whole = False  # whether one of ours names all that torch's takes
    for one in own:
        tree = definition_of(vars(one)["__init__"]) if "__init__" in vars(one) else None
        if isinstance(tree, ast.FunctionDef):
            for item in arguments_of(tree.args):
                if item not in ("*", *_PASSED_ON):
                    found.setdefault(item.partition(":")[0], f"`{item}`")
            whole = whole or tree.args.vararg is None
    texts = list(found.values())
    if not whole:
        theirs = next((c for c in cls.__mro__ if c.__module__.startswith("torch.nn.")), nn.Module)
        if theirs is not nn.Module:
            texts.insert(0, f"those of `torch.nn.{theirs.__name__}`")
    text = ", ".join(texts)
    return [f"Arguments of the constructor: {text}.", ""] if text else []


def _entry(value: Any, name: str = "") -> list[str]:
    """Return heading, signature and docstring of a function, class or constant."""
    name = name or value.__name__
    lines = [f"### `{name}`", ""]
    if isinstance(value, EnumType):
        known: Mapping[str, Any] = value.__members__
        members = [f"* `{one}`: {prose(str(member.value))}" for one, member in known.items()]
        return [*lines, *told(inspect.getdoc(value) or ""), *members, ""]
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return [*lines, *_assigned(name, value)]
    tree = definition_of(value)
    lines += ["```python", *signature(name, tree), "```", ""] if tree else []
    return [*lines, *told(inspect.getdoc(value) or "")]


def _assigned(name: str, value: object) -> Iterator[str]:
    """Yield a constant or the name of a type as it is written, and what stands below it."""
    ours = ("harness.", "impls.")
    for module in [m for known, m in sys.modules.items() if known.startswith(ours)]:
        if vars(module).get(name) is not value:
            continue
        body = ast.parse(inspect.getsource(module)).body
        for node, below in zip(body, [*body[1:], ast.Pass()], strict=True):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                yield from ("```python", ast.unparse(node), "```", "")
                if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                    yield from told(inspect.cleandoc(str(below.value.value)))
                return


def _methods(cls: type, names: Iterable[str] = ()) -> list[str]:
    """Return the public methods that `cls` defines itself and documents, or those in `names`."""
    lines = []
    for name, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        wanted = name in names if names else not name.startswith("_")
        if wanted and inspect.isfunction(function):
            tree = definition_of(function)
            lines += ["```python", *signature(name, tree), "```", ""]
            lines += told(inspect.getdoc(function) or "")
    return lines
