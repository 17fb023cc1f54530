"""Correctness: laws by implementations, counterexamples, and how error goes with speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness.comparison import GeometricMean
from harness.results import LoadedRun, Outcome, VariantCard
from reports import frame
from reports.doubt import Doubts
from reports.look import MARKERS, PALETTE, WIDTH, log_ticks, style


def law_matrix(card: VariantCard, laws: pd.DataFrame, run: LoadedRun) -> dict[str, Any]:
    """Return the table of a variant: laws down, implementations across."""
    own = laws[laws["variant"] == card.name] if len(laws) else laws
    judged = {(row["law"], row["implementation"]): row for row in frame.records(own)}
    known = {law.id: law for law in run.run.laws}
    names = {law: row["law_name"] for (law, _), row in judged.items()}
    order = [law for law in dict.fromkeys([*known, *names]) if law in names]
    present = dict.fromkeys(name for _, name in judged)
    columns = [item.name for item in card.implementations if item.name in present]
    columns += [name for name in present if name not in columns]
    lines = [
        {
            "id": law,
            "name": names[law],
            "statement": known[law].statement if law in known else "",
            "domain": known[law].domain if law in known else "",
            "sharp": law in known and known[law].sharp,
            "cells": [judged.get((law, column)) for column in columns],
        }
        for law in order
    ]
    counts = Counter(row["status"] for row in judged.values())
    cases = {s: sum(r["cases"] for r in judged.values() if r["status"] == s) for s in counts}
    return {
        "columns": columns,
        "lines": lines,
        "counts": [(str(s), counts[s], cases[s]) for s in Outcome if counts[s]],
        "bad": any(counts[s] for s in (Outcome.REFUTED, Outcome.CRASHED)),
    }


def counterexamples(run: LoadedRun) -> list[dict[str, Any]]:
    """Return what refutes, crashes or proves nothing, the worst first."""
    known = {law.id: law for law in run.run.laws}
    shown = {Outcome.REFUTED: 0, Outcome.CRASHED: 1, Outcome.MISTRUSTED: 2}
    rows = sorted((r for r in run.verdicts if r.status in shown), key=lambda r: shown[r.status])
    return [
        {
            "row": row,
            "statement": known[row.law].statement if row.law in known else "",
            "domain": known[row.law].domain if row.law in known else "",
        }
        for row in rows
    ]


def errors(
    run: LoadedRun, means: Sequence[GeometricMean], doubtful: Doubts
) -> list[dict[str, Any]]:
    """Return per implementation the largest error over its bound by dtype, and its ratio of time.

    1 is the largest error that correct rounding can make; the ratio is that of forward, on the
    device and with the number of threads of the run, under the flags that came first.
    """
    worst: dict[tuple[str, str], dict[str, float]] = {}
    for row in run.verdicts:
        mine = worst.setdefault((row.variant, row.implementation), {})
        for dtype, error in row.tightness.items():
            mine[dtype] = max(mine.get(dtype, 0.0), error)
    speed: dict[tuple[str, str], tuple[float, str]] = {}
    for mean in means:
        here = (mean.device, mean.threads) == (run.run.device, run.run.threads)
        if here and mean.direction == "forward" and mean.ratio is not None:
            key = (mean.variant, mean.implementation)
            speed.setdefault(key, (mean.ratio, str(mean.verdict)))
    compared = {mean.variant: mean.baseline for mean in means}
    baselines = set(compared.items())
    return [
        {
            "number": number, "variant": variant, "implementation": implementation,
            "ratio": 1.0 if (variant, implementation) in baselines
            else speed.get((variant, implementation), (None, ""))[0],
            "verdict": speed.get((variant, implementation), (None, ""))[1],
            "is_baseline": (variant, implementation) in baselines,
            "errors": found,
            "doubt": str(doubtful[variant, implementation].outcome)
            if (variant, implementation) in doubtful else "",
            "spoiled": (variant, compared.get(variant, "")) in doubtful,
        }
        for number, ((variant, implementation), found) in enumerate(
            ((key, found) for key, found in worst.items() if found), start=1
        )
    ]  # fmt: skip


def error_figure(rows: Sequence[dict[str, Any]], dtype: str) -> Figure | None:
    """Draw error over bound against the ratio of time, one numbered dot per implementation."""
    drawn = [
        row for row in rows
        if row["ratio"] and dtype in row["errors"] and not row["is_baseline"]
        and not row["doubt"] and not row["spoiled"]
    ]  # fmt: skip
    drawn = [row for row in drawn if row["errors"][dtype] > 0]
    if not drawn:
        return None
    with style():
        figure = Figure(figsize=(WIDTH, 3.6))
        figure.subplots_adjust(left=0.08, right=0.985, bottom=0.14, top=0.97)
        axes = figure.subplots()
        x, y = [row["ratio"] for row in drawn], [row["errors"][dtype] for row in drawn]
        axes.set(xscale="log", yscale="log")
        axes.axvline(1.0, color=PALETTE["quiet"], linewidth=0.9)
        axes.axhline(1.0, color=PALETTE["slower"], linewidth=0.9, linestyle="--")
        for row, ratio, error in zip(drawn, x, y, strict=True):
            color, kind = PALETTE[row["verdict"].lower() or "unresolved"], row["verdict"]
            axes.plot(
                ratio, error, MARKERS[kind], markersize=4.5, color=color, zorder=3,
                markerfacecolor="none" if kind in {"UNRESOLVED", ""} else color,
            )  # fmt: skip
            axes.annotate(
                str(row["number"]), (ratio, error), (3.5, 2.5), textcoords="offset points",
                size=7.5, color=PALETTE["quiet"],
            )  # fmt: skip
        axes.set(
            xlabel="time / time of the baseline, forward", ylabel=f"largest error / bound, {dtype}"
        )
        low, high = min([*x, 0.8]) / 1.1, max([*x, 1.25]) * 1.1
        axes.set_xlim(low, high)
        for axis in (axes.xaxis, axes.yaxis):
            log_ticks(axis)
    return figure
