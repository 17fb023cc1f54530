"""The heat map: ratios of implementations by cases, with the crossover and what is not sure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.frame import records
from reports.look import PALETTE, WIDTH, clipped, crossed, legible, lines_named, style
from reports.words import word

LONGEST = 44
"""Letters of the name of a line."""
Held = Mapping[tuple[str, str], Mapping[Any, Any]]


def ratio_map(rows: pd.DataFrame) -> Figure:
    """Draw the ratios as a heat map: implementations down, cases across, small ones first.

    Hatched: the interval holds 1, or the row is no claim. A heavy line between two cases: one side
    is faster than the baseline, the other slower. Grey words are no ratio.

    Args:
        rows: variant, implementation, label, ratio, verdict, status, macs, no_claim.
    """
    rows = rows.assign(line=_lines(rows))
    # what nobody selected is told in the tables; here it would only push the rest apart
    tried = rows[rows["status"] != "NOT_SELECTED"]
    rows = rows[rows["line"].isin(tried["line"])]
    lines, labels = list(rows["line"].unique()), _by_size(rows)
    held = {
        (row["line"], row["label"]): row
        for row in records(rows[["line", "label", "ratio", "verdict", "status", "no_claim"]])
    }
    ratios = np.array([[_ratio_at(held, line, label) for label in labels] for line in lines])
    logs = np.log2(ratios)
    reach = max(0.5, float(np.nanmax(np.abs(logs), initial=0.0)))
    shown, across = clipped(lines, LONGEST), clipped(labels)
    # slanted names of cases need height too: half an em per letter, at 30 degrees
    below = 0.15 + 0.036 * max(map(len, across), default=0)
    height = below + 0.1 + 0.27 * max(len(lines), 2)
    with style():
        figure = Figure(figsize=(WIDTH, height))
        left = 0.2 + 0.066 * max(map(len, shown), default=0)
        figure.subplots_adjust(
            left=left / WIDTH, right=1 - 0.1 / WIDTH, bottom=below / height, top=1 - 0.08 / height
        )
        axes = figure.subplots()
        sns.heatmap(
            logs, ax=axes, cmap=sns.diverging_palette(243, 30, s=85, l=45, as_cmap=True),
            vmin=-reach, vmax=reach, cbar=False, linewidths=1, linecolor="none",
            mask=np.isnan(logs), xticklabels=False, yticklabels=False,
        )  # fmt: skip
        lines_named(axes, np.arange(len(shown)) + 0.5, shown, size=8.8)
        for place, name in enumerate(across):
            axes.text(
                place + 0.5, len(shown) + 0.2, name, rotation=30, rotation_mode="anchor", size=8.8,
                ha="right", va="center", color=PALETTE["quiet"],
            )  # fmt: skip
        _mark(axes, logs, held, lines, labels)
        _number(axes, ratios)
        axes.set(xlabel="", ylabel="")
        axes.grid(visible=False)
    return figure


def _mark(axes: Axes, logs: Any, held: Held, lines: list[str], labels: list[str]) -> None:
    for (line, column), value in np.ndenumerate(logs):
        row = held.get((lines[line], labels[column]))
        if row is None:
            continue
        if math.isnan(value):
            axes.text(
                column + 0.5, line + 0.5, no_ratio(row["status"]), size=6.5,
                ha="center", va="center", color=PALETTE["quiet"],
            )  # fmt: skip
        elif row["verdict"] == "UNRESOLVED" or row["no_claim"]:
            axes.fill_between(
                [column, column + 1], line, line + 1, facecolor="none", hatch="///",
                edgecolor=PALETTE["unresolved"], alpha=0.35, linewidth=0,
            )  # fmt: skip
    sure = logs.copy()
    for line, column in np.ndindex(logs.shape):
        row = held.get((lines[line], labels[column]))
        if row is None or row["verdict"] not in {"FASTER", "SLOWER"} or row["no_claim"]:
            sure[line, column] = np.nan
    for line, column in np.argwhere(sure[:, :-1] * sure[:, 1:] < 0):
        axes.vlines(column + 1, line, line + 1, color=PALETTE["ink"], linewidth=2.2)


def _number(axes: Axes, ratios: Any) -> None:
    """Write the ratios into the cells, dark or white, whichever can be read on the colour."""
    colours = axes.collections[0].to_rgba(np.log2(ratios))
    for (line, column), ratio in np.ndenumerate(ratios):
        if not math.isnan(ratio):
            axes.text(
                column + 0.5, line + 0.5, _short(ratio), size=8, ha="center", va="center",
                color=legible(colours[line, column].tolist()),
            )  # fmt: skip


def no_ratio(status: str) -> str:
    """Return the word for a cell without a ratio."""
    return "no ratio" if status == "MEASURED" else word(status)


def _lines(rows: pd.DataFrame) -> pd.Series:
    names = rows["variant"] + " / " + rows["implementation"]
    told = [crossed(*pair, LONGEST) for pair in zip(names, rows["no_claim"], strict=True)]
    return pd.Series(told, index=rows.index)


def _by_size(rows: pd.DataFrame) -> list[str]:
    """Return the cases by their multiply-adds: only in an order can a crossover be seen."""
    sizes = rows.groupby("label", sort=False)["macs"].min().astype("Float64")
    return list(sizes.sort_values(kind="stable", na_position="last").index)


def _ratio_at(held: Held, line: str, label: str) -> float:
    row = held.get((line, label))
    return math.nan if row is None or row["ratio"] is None else float(row["ratio"])


def _short(ratio: float) -> str:
    return "" if math.isnan(ratio) else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
