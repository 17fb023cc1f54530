"""What the table holds, as text, JSON and Markdown: projections that cannot disagree with it."""

from __future__ import annotations

from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

from harness.evidence import escaped
from harness.law import Law
from harness.limits import domain_in_words, limits_of
from harness.results import ImplementationCard, LawCard, VariantCard
from harness.table import Table, with_oracle
from harness.variant import Kind, Variant


def variant_card(variant: Variant) -> VariantCard:
    """Return what a run records of `variant`."""
    return VariantCard(
        name=variant.name,
        equation=variant.equation,
        source=variant.source,
        traits=tuple(sorted(trait.name for trait in variant.traits)),
        baseline=variant.reference.name,
        domain=domain_in_words(variant),
        implementations=tuple(
            ImplementationCard(
                name=i.name,
                kind=str(i.kind),
                needs=i.requirements(),
                available=i.missing() is None,
                reason=i.missing(),
                origin=i.origin,
                limits=limits_of(variant, i),
            )
            for i in with_oracle(variant)
        ),
    )


def law_cards(table: Table) -> tuple[LawCard, ...]:
    """Return what a run records of the laws."""
    return tuple(
        LawCard(
            id=law.id,
            name=law.name,
            statement=law.statement,
            requires=tuple(sorted(trait.name for trait in law.requires)),
            domain=law.domain,
            sharp=law.outside is not None,
            relates=related(law, table),
        )
        for law in table.laws.values()
    )


def related(law: Law, table: Table) -> tuple[str, ...]:
    """Return the variants whose oracles `law` asks for, as its code names them."""
    asked: set[str] = set()
    waiting: list[tuple[CodeType, Mapping[str, object]]] = []
    if isinstance(law.check, FunctionType):
        waiting.append((law.check.__code__, law.check.__globals__))
    seen: set[CodeType] = set()
    while waiting:
        code, names = waiting.pop()
        if code in seen:
            continue
        seen.add(code)
        if "other" in code.co_names:
            asked.update(c for c in code.co_consts if isinstance(c, str) and c in table.variants)
        waiting += [(inner, names) for inner in code.co_consts if isinstance(inner, CodeType)]
        helpers = (names.get(name) for name in code.co_names)
        waiting += [
            (helper.__code__, helper.__globals__)
            for helper in helpers
            if isinstance(helper, FunctionType) and helper.__module__.startswith("properties.")
        ]
    return tuple(sorted(asked))


def describe(table: Table) -> dict[str, Any]:
    """Return the table as plain data: the contract of `list --json`."""
    cards = [variant_card(variant) for variant in table.variants.values()]
    return {
        "variants": [
            {
                "name": card.name,
                "equation": card.equation,
                "source": card.source,
                "traits": list(card.traits),
                "implementations": [
                    {
                        "name": i.name,
                        "kind": i.kind,
                        "needs": list(i.needs),
                        "available": i.available,
                        "reason": i.reason,
                        "origin": i.origin,
                    }
                    for i in card.implementations
                ],
            }
            for card in cards
        ],
        "laws": [
            {"id": c.id, "name": c.name, "statement": c.statement, "requires": list(c.requires)}
            for c in law_cards(table)
        ],
    }


def text(table: Table) -> str:
    """Return the table for a reader at a terminal."""
    lines = []
    for variant in table.variants.values():
        lines += [f"{variant.name}: {variant.equation}", f"  source: {variant.source}"]
        for i in with_oracle(variant):
            reason = i.missing()
            state = f"not available: {reason}" if reason else "available"
            origin = f" ({i.origin})" if i.origin else ""
            lines.append(f"  {i.kind:<10} {i.name:<26} {state}{origin}")
        lines += [f"  cases: {', '.join(variant.cases)}", ""]
    lines.append(f"{len(table.laws)} laws")
    lines += [
        f"  {'/'.join((law.id, *law.aliases)):<4} {law.name}: {law.statement}"
        for law in table.laws.values()
    ]
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """Return the table of the README."""
    lines = ["| variant | equation | reference | optimized | laws |", "|---|---|---|---|---|"]
    for variant in table.variants.values():
        by_kind = {
            kind: ", ".join(f"`{i.name}`" for i in variant.implementations if i.kind is kind)
            for kind in (Kind.REFERENCE, Kind.OPTIMIZED)
        }
        equation = variant.equation.replace("|", "\\|")
        laws = len(table.laws_of(variant))
        lines.append(
            f"| `{variant.name}` | `{equation}` | {by_kind[Kind.REFERENCE]} "
            f"| {by_kind[Kind.OPTIMIZED]} | {laws} |"
        )
    return "\n".join(lines)


def law_page(table: Table) -> str:
    """Return the catalogue of the laws as a page: statement, domain, and who claims it."""
    lines = [
        "# The laws",
        "",
        (
            "Generated from the laws themselves. Each is judged over every implementation of the "
            "variants that claim its traits; *sharp* says that a case just outside the domain breaks "
            "it, and that the tests find one."
        ),
        "",
        "| law | statement | domain | variants |",
        "| --- | --- | --- | --- |",
    ]
    for law in table.laws.values():
        claim = [name for name, v in table.variants.items() if law.requires <= v.traits]
        names = "all" if len(claim) == len(table.variants) else ", ".join(claim)
        kind = " (layers)" if law.of_layers else ""
        sharp = "**sharp**: " if law.outside else ""
        label = f"{'/'.join((law.id, *law.aliases))} {law.name.replace('_', ' ')}{kind}"
        cells = (escaped(label), escaped(law.statement), sharp + escaped(law.domain), names)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
