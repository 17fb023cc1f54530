"""The plugin table: every variant and implementation there is, loaded by name."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType

from harness.case import CaseError, ConvCase
from harness.law import Law, natural_order
from harness.variant import Implementation, Kind, Variant

ENTRY_POINT_GROUP = "convharness"
MOST_SHOWN = 60
PLUGIN = "plug-in "


class UnknownName(LookupError):
    """A name that the table does not hold, with the names that it does and the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str], plural: str = "") -> None:
        names = list(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(names)
        if len(names) > MOST_SHOWN:
            shown = "those of `python3 -m harness list`"
        super().__init__(f"no {kind} {name!r}; {plural or kind + 's'} are {shown}{hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Variants by name and laws by id. `failures` names the plug-ins that were left out, and why."""

    variants: Mapping[str, Variant]
    laws: Mapping[str, Law]
    failures: tuple[str, ...] = ()

    def variant(self, name: str) -> Variant:
        """Return the variant called `name`; raise UnknownName."""
        if name not in self.variants:
            raise UnknownName("variant", name, self.variants)
        return self.variants[name]

    def implementation(self, variant: Variant, name: str) -> Implementation:
        """Return the implementation of `variant` called `name`, the oracle included."""
        known = {i.name: i for i in every_form(variant)}
        if name not in known:
            raise UnknownName(
                f"implementation of {variant.name}", name, known, "its implementations"
            )
        return known[name]

    def law(self, name: str) -> Law:
        """Return the law with the id, alias or name `name`."""
        for law in self.laws.values():
            if name in (law.id, law.name, *law.aliases):
                return law
        words = [w for law in self.laws.values() for w in (law.id, *law.aliases, law.name)]
        raise UnknownName("law", name, words)

    def case(self, variant: Variant, word: str) -> tuple[str, ConvCase]:
        """Return `(name, case)` for the name of a benchmark case or a descriptor."""
        if word in variant.cases:
            case = ConvCase.parse(variant.cases[word])
        elif " " in word.strip():
            case, word = ConvCase.parse(word), ""
        else:
            raise UnknownName(f"case of {variant.name}", word, variant.cases, "its cases")
        variant.check_case(case)
        return word, case

    def laws_of(self, variant: Variant) -> list[Law]:
        """Return the laws whose traits `variant` claims."""
        return [law for law in self.laws.values() if law.requires <= variant.traits]


def with_oracle(variant: Variant) -> tuple[Implementation, ...]:
    """Return the oracle, as an implementation, and the implementations of `variant`."""
    oracle = Implementation(name="oracle", kind=Kind.ORACLE, load=lambda: variant.oracle)
    return (oracle, *variant.implementations)


def every_form(variant: Variant) -> tuple[Implementation, ...]:
    """Return all that laws judge: the oracle, the implementations, and the layer if there is one.

    The layer calls implementations: only laws of layers meet it.
    """
    if variant.layer is None:
        return with_oracle(variant)
    form = Implementation(
        name="layer", kind=Kind.LAYER, load=lambda: variant.oracle, layer=variant.layer
    )
    return (*with_oracle(variant), form)


def load_table(plugins: Sequence[str] = ()) -> Table:
    """Load every variant folder and law, entry points of the group `convharness`, and `plugins`.

    Args:
        plugins: Paths of Python files or dotted module names. One that fails is left out and
            named in `Table.failures`.
    """
    variants = {v.name: v for v in _variant_folders()}
    laws = _load_laws()
    failures = []
    installed = metadata.entry_points(group=ENTRY_POINT_GROUP)
    sources: list[tuple[str, Callable[[], object]]] = [
        (f"entry point {point.name}", point.load) for point in installed
    ]
    sources += [(f"{PLUGIN}{word}", functools.partial(_import, word)) for word in plugins]
    for label, load in sources:
        try:
            variants = _extend(variants, load(), label)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            failures.append(f"{label} is left out: {reason}")
    return Table(variants=variants, laws=laws, failures=tuple(failures))


def _variant_folders() -> list[Variant]:
    package = importlib.import_module("impls")
    variants = []
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("_"):
            continue
        variant = importlib.import_module(f"impls.{module.name}").VARIANT
        if variant.name != module.name:
            raise ValueError(f"impls/{module.name} defines the variant {variant.name!r}")
        variants.append(variant)
    return variants


def _load_laws() -> dict[str, Law]:
    package = importlib.import_module("properties.laws")
    laws: dict[str, Law] = {}
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"properties.laws.{found.name}")
        for law in vars(module).values():
            if not isinstance(law, Law):
                continue
            known = laws.setdefault(law.id, law)
            if known is not law:
                raise ValueError(
                    f"the laws {known.name!r} and {law.name!r} share the id {law.id!r}"
                )
    for law in laws.values():
        taken = next((alias for alias in law.aliases if alias in laws), None)
        if taken:
            raise ValueError(f"the law {law.name!r} has the alias {taken!r}, which is another's id")
    return dict(sorted(laws.items(), key=lambda item: natural_order(item[0])))


def _import(word: str, suffix: str = "") -> ModuleType:
    path = Path(word)
    if path.suffix != ".py":
        return importlib.import_module(word)
    if not path.is_file():
        raise FileNotFoundError(f"{word} is no file")
    name = f"convharness_plugin_{path.stem}{suffix}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def reloaded(implementation: Implementation, variant: str) -> Implementation | None:
    """Return a plug-in's implementation from its code loaded afresh; None where that cannot be."""
    word = implementation.origin.removeprefix(PLUGIN)
    if word == implementation.origin or not word.endswith(".py"):
        return None
    # beside the first, by whose name its classes are pickled
    module = _import(word, suffix="_afresh")
    own = getattr(module, "VARIANT", None)
    listed = list(getattr(module, "IMPLEMENTATIONS", {}).get(variant, ()))
    listed += own.implementations if own is not None and own.name == variant else ()
    found = next((i for i in listed if i.name == implementation.name), None)
    return found and replace(found, origin=implementation.origin)


def _extend(variants: dict[str, Variant], module: object, origin: str) -> dict[str, Variant]:
    """Return `variants` and what `module` adds, all or nothing."""
    extended = dict(variants)
    added: Variant | None = getattr(module, "VARIANT", None)
    if added is not None:
        if added.name in extended:
            raise ValueError(f"the variant {added.name!r} is in the table already")
        own = tuple(replace(i, origin=origin) for i in added.implementations)
        extended[added.name] = replace(added, implementations=own)
    extra: Mapping[str, Sequence[Implementation]] = getattr(module, "IMPLEMENTATIONS", {})
    if added is None and not extra:
        raise ValueError("defines neither IMPLEMENTATIONS nor VARIANT")
    for name, implementations in extra.items():
        if name not in extended:
            raise UnknownName("variant", name, extended)
        variant = extended[name]
        taken = {i.name for i in with_oracle(variant)}
        for implementation in implementations:
            if implementation.name in taken:
                raise CaseError(f"{name}/{implementation.name} is in the table already")
        marked = tuple(replace(i, origin=origin) for i in implementations)
        extended[name] = replace(variant, implementations=variant.implementations + marked)
    return extended
