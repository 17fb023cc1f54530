"""How the variants hang together: the laws that relate two, with the domain on every edge."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from harness.results import LoadedRun, Outcome, VariantCard
from reports.look import PALETTE, WIDTH, clipped, style

SHOWN = 2
"""Laws that an edge names; the table names all."""


def relations(cards: Sequence[VariantCard], run: LoadedRun) -> list[dict[str, Any]]:
    """Return one row per law and pair of variants that it relates.

    A law relates every variant that claims its traits with those whose definition it asks for.
    `outcome` is the worst in this run over the implementations, empty where it was not judged.
    """
    order = (
        Outcome.REFUTED, Outcome.CRASHED, Outcome.MISTRUSTED, Outcome.HOLDS, Outcome.UNSUPPORTED,
    )  # fmt: skip
    judged: dict[tuple[str, str], list[Outcome]] = {}
    for row in run.verdicts:
        judged.setdefault((row.law, row.variant), []).append(row.status)
    rows = []
    for law in run.run.laws:
        for card in cards:
            if not set(law.requires) <= set(card.traits):
                continue
            for other in law.relates:
                if other == card.name:
                    continue
                found = judged.get((law.id, card.name), [])
                rows.append({
                    "variant": card.name, "other": other, "law": law,
                    "outcome": str(min(found, key=order.index)) if found else "",
                })  # fmt: skip
    return rows


def relation_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw the variants as nodes, the most related one in the middle, and the laws as edges."""
    edges: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        first, second = sorted((row["variant"], row["other"]))
        laws = edges.setdefault((first, second), [])
        if row["law"].id not in {other["law"].id for other in laws}:
            laws.append(row)
    places = _places(edges)
    with style():
        heights = [y for _, y in places.values()]
        low, high = min(heights, default=0.0) - 0.14, max(heights, default=0.0) + 0.14
        full = 7.2 if len(places) > 5 else 4.4
        figure = Figure(figsize=(WIDTH, full * max(high - low, 0.7) / 2.24))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(-1.28, 1.28), ylim=(low, high))
        axes.set_axis_off()
        for (first, second), laws in edges.items():
            (x, y), (u, v) = places[first], places[second]
            bad = any(row["outcome"] in {"REFUTED", "CRASHED", "MISTRUSTED"} for row in laws)
            axes.plot(
                [x, u], [y, v], color=PALETTE["slower" if bad else "unresolved"],
                linewidth=2.2 if bad else 1.2, zorder=1,
            )  # fmt: skip
            lines = [_edge(row) for row in laws[:SHOWN]]
            if len(laws) > SHOWN:
                rest = ", ".join(row["law"].id for row in laws[SHOWN : SHOWN + 8])
                lines.append(f"and {rest}")
            axes.text(
                *_label_place((x, y), (u, v)), "\n".join(clipped(lines, 34)), size=6.8, zorder=2,
                ha="center", va="center", linespacing=1.35, color=PALETTE["ink"],
                bbox={"boxstyle": "round,pad=0.25", "facecolor": PALETTE["band"], "linewidth": 0},
            )  # fmt: skip
        for name, (x, y) in places.items():
            axes.text(
                x, y, clipped([name], 24)[0], size=9.5, weight="bold", ha="center", va="center", zorder=3,
                bbox={
                    "boxstyle": "round,pad=0.45", "facecolor": PALETTE["band"],
                    "edgecolor": PALETTE["quiet"], "linewidth": 1.2,
                },
            )  # fmt: skip
    return figure


def _label_place(one: tuple[float, float], two: tuple[float, float]) -> tuple[float, float]:
    """Return where the words of an edge stand: nearer to its outer end, where there is room."""
    outer, inner = sorted((one, two), key=lambda place: -math.hypot(*place))
    share = 0.56 if math.hypot(*inner) < 0.1 else 0.5
    return tuple(share * a + (1 - share) * b for a, b in zip(outer, inner, strict=True))  # type: ignore[return-value]


def _edge(row: dict[str, Any]) -> str:
    bad = "✗ " if row["outcome"] in {"REFUTED", "CRASHED", "MISTRUSTED"} else ""
    return f"{bad}{row['law'].id}: {row['law'].domain or 'every case'}"


def _places(edges: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[str, tuple[float, float]]:
    """Return where every node stands: the best related in the middle, its kin around it."""
    degree = Counter(name for edge in edges for name in edge)
    middle = max(degree, key=lambda name: (degree[name], name)) if degree else ""
    ring = _ring(sorted(degree.keys() - {middle}), [edge for edge in edges if middle not in edge])
    places = {middle: (0.0, 0.0)} if middle else {}
    for number, name in enumerate(ring):
        angle = math.pi / 2 - 2 * math.pi * number / len(ring)
        places[name] = (1.08 * math.cos(angle), 0.98 * math.sin(angle))
    return places


def _ring(names: list[str], edges: Sequence[tuple[str, str]]) -> list[str]:
    """Return `names` in an order that puts neighbours side by side: swap two while that helps."""

    def length(order: Sequence[str]) -> int:
        steps = (abs(order.index(a) - order.index(b)) for a, b in edges)
        return sum(min(step, len(order) - step) ** 2 for step in steps)

    best = length(names)
    for _ in range(len(names)):
        for i, j in itertools.combinations(range(len(names)), 2):
            tried = [*names]
            tried[i], tried[j] = tried[j], tried[i]
            if (found := length(tried)) < best:
                names, best = tried, found
    return names
