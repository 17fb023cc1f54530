"""Figures of the page: DataFrame in, matplotlib Figure out; no files, no global state.

Colours are those of `PALETTE`; the page swaps them for its own style variables, so that a figure
follows dark and light. Verdicts differ in marker shape too, never in colour alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

PALETTE = {
    "ink": "#1b1d21",
    "quiet": "#63676e",
    "grid": "#d9dbdf",
    "band": "#ece6d3",
    "faster": "#0068a8",
    "slower": "#b84a00",
    "same": "#00745a",
    "unresolved": "#7a7e85",
}
MARKERS = {"FASTER": "<", "SLOWER": ">", "SAME": "s", "UNRESOLVED": "o"}
WIDTH = 9.6
ROW = 0.215
LONGEST_NAME = 34

# Steps that a reader can multiply in the head, from fine to coarse.
_TICKS = (
    (0.9, 0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08, 1.1),
    (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4),
    (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 2.0, 2.5, 3.0),
    (0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 1.8, 2.2),
    (0.1, 0.2, 0.33, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0),
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
    tuple(10.0**power for power in range(-9, 10)),
)


@contextmanager
def style() -> Iterator[None]:
    """Set the look of every figure for the duration of a block; globals return to what they were."""
    ink, quiet, grid = PALETTE["ink"], PALETTE["quiet"], PALETTE["grid"]
    look: Any = {
        "axes.edgecolor": grid,
        "axes.facecolor": "none",
        "axes.labelcolor": quiet,
        "axes.titlecolor": ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.unicode_minus": True,
        "figure.facecolor": "none",
        "font.family": ["DejaVu Sans"],
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "text.color": ink,
        # Names come from strangers: a dollar sign is a dollar sign.
        "text.parse_math": False,
        "xtick.color": quiet,
        "ytick.color": ink,
    }
    with (
        mpl.rc_context(),
        sns.plotting_context("paper"),
        sns.axes_style("whitegrid", rc=look),
        mpl.rc_context(look),
        warnings.catch_warnings(),
    ):
        # Text stays text: the browser has the glyphs that the font used for measuring may lack.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def forest(rows: pd.DataFrame, processes: pd.DataFrame, *, group: str, margin: float) -> Figure:
    """Draw ratios with their intervals, one line per implementation, one panel per direction.

    Args:
        rows: `group`, implementation, direction, ratio, ratio_low, ratio_high, verdict, status.
        processes: `group`, implementation, direction, ratio; one faint dot each.
        group: the column that gathers lines under one heading.
        margin: half-width of the shaded band in which ratios count as the same.
    """
    labels = rows[[group, "implementation"]].drop_duplicates()
    names = labels["implementation"].unique()
    places: dict[tuple[str, str], float] = {}
    headings: list[tuple[float, str]] = []
    y = 0.0
    for name, members in labels.groupby(group, sort=False):
        if len(names) > 1:
            headings.append((y, str(name)))
            y += 1.0
        for member in members["implementation"]:
            places[str(name), member] = y
            y += 1.0
        y += 0.35 if len(names) > 1 else 0.0
    directions = list(rows["direction"].unique())
    with style():
        figure = Figure(figsize=(WIDTH, 0.75 + ROW * max(y, 2.0)), layout="constrained")
        panels = figure.subplots(1, len(directions), sharex=True, sharey=True, squeeze=False)[0]
        limits = _limits(rows, processes, margin)
        for panel, direction in zip(panels, directions, strict=True):
            _ratio_axis(panel, limits, margin)
            panel.set_title(*_clipped([direction]))
            dots = processes[processes["direction"] == direction] if len(processes) else processes
            if len(dots):
                heights = [
                    places[str(g), i]
                    for g, i in zip(dots[group], dots["implementation"], strict=True)
                ]
                sns.stripplot(
                    x=dots["ratio"].to_numpy(), y=np.array(heights), orient="h", jitter=False,
                    native_scale=True, size=3.2, alpha=0.35, color=PALETTE["quiet"],
                    linewidth=0, ax=panel, zorder=2,
                )  # fmt: skip
            _draw_rows(panel, rows[rows["direction"] == direction], places, group, limits)
            panel.set(
                ylim=(max(y, 1.0) - 0.4, -0.7), xlabel="time / time of the baseline", ylabel=""
            )
            panel.grid(visible=False, axis="y")
        panels[0].set_yticks(
            [*places.values(), *(place for place, _ in headings)],
            _clipped([*(key[bool(headings)] for key in places), *(text for _, text in headings)]),
        )
        panels[0].tick_params(axis="y", length=0)
        for label in panels[0].get_yticklabels()[len(places) :]:
            label.set_fontweight("bold")
        for label in panels[0].get_yticklabels()[: len(places)] if headings else ():
            label.set_color(PALETTE["quiet"])
    return figure


def ratio_map(rows: pd.DataFrame) -> Figure:
    """Draw the ratios as a heat map: implementations down, cases across; grey words are no ratio."""
    rows = rows.assign(line=rows["variant"] + " / " + rows["implementation"])
    # what nobody selected is told in the tables; here it would only push the rest apart
    tried = rows[rows["status"] != "NOT_SELECTED"]
    rows = rows[rows["line"].isin(tried["line"])]
    lines, labels = list(rows["line"].unique()), list(rows["label"].unique())
    held = {(row["line"], row["label"]): row for row in rows.to_dict("records")}
    ratios = np.array([[_ratio_at(held, line, label) for label in labels] for line in lines])
    logs = np.log2(ratios)
    reach = max(0.5, float(np.nanmax(np.abs(logs), initial=0.0)))
    # slanted names of cases need height too: half an em per letter, at 30 degrees
    below = 0.035 * max(map(len, _clipped(labels)), default=0)
    size = (WIDTH, 0.5 + below + 0.27 * max(len(lines), 2))
    with style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        sns.heatmap(
            logs, ax=axes, cmap=sns.diverging_palette(243, 30, s=85, l=45, as_cmap=True),
            vmin=-reach, vmax=reach, cbar=False, linewidths=1, linecolor="none",
            annot=np.vectorize(_short)(ratios), fmt="", annot_kws={"size": 8},
            mask=np.isnan(logs), xticklabels=_clipped(labels), yticklabels=_clipped(lines),
        )  # fmt: skip
        for (line, column), value in np.ndenumerate(logs):
            row = held.get((lines[line], labels[column]))
            if math.isnan(value) and row is not None:
                word = _no_ratio(row["status"])
                axes.text(
                    column + 0.5, line + 0.5, word, size=6.5,
                    ha="center", va="center", color=PALETTE["quiet"],
                )  # fmt: skip
        axes.set(xlabel="", ylabel="")
        axes.grid(visible=False)
        axes.tick_params(axis="both", length=0)
        axes.tick_params(axis="x", rotation=30)
        axes.tick_params(axis="y", rotation=0)
        for text in axes.get_xticklabels():
            text.set(horizontalalignment="right", rotation_mode="anchor")
    return figure


def drift(frame: pd.DataFrame) -> Figure:
    """Draw the pace of the machine in time order: every block of every process, 1 is usual."""
    frame = frame.assign(position=np.arange(len(frame)))
    starts = frame.groupby("process")["position"].min()
    with style():
        figure = Figure(figsize=(WIDTH, 1.9), layout="constrained")
        axes = figure.subplots()
        sns.lineplot(
            data=frame, x="position", y="relative", units="process", estimator=None,
            color=PALETTE["faster"], linewidth=1.1, ax=axes,
        )  # fmt: skip
        sns.scatterplot(
            data=frame,
            x="position",
            y="relative",
            s=9,
            linewidth=0,
            color=PALETTE["faster"],
            ax=axes,
        )
        axes.axhline(1.0, color=PALETTE["quiet"], linewidth=0.8)
        for place in list(starts)[1:]:
            axes.axvline(place - 0.5, color=PALETTE["grid"], linewidth=0.8)
        axes.set_xticks(list(starts), [f"process {name}" for name in starts.index])
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("left")
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="", ylabel="time / usual time")
        axes.margins(x=0.01)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.95), max(high, 1.05))
    return figure


def _draw_rows(
    panel: Axes,
    rows: pd.DataFrame,
    places: dict[tuple[str, str], float],
    group: str,
    limits: tuple[float, float],
) -> None:
    for row in rows.to_dict("records"):
        y = places[str(row[group]), row["implementation"]]
        if pd.isna(row["ratio"]):
            panel.text(
                limits[0] * 1.02, y, _no_ratio(row["status"]),
                va="center", size=7, color=PALETTE["quiet"], style="italic",
            )  # fmt: skip
            continue
        verdict = row["verdict"]
        color = PALETTE[verdict.lower()]
        if not pd.isna(row["ratio_low"]):
            ends = np.clip([row["ratio_low"], row["ratio_high"]], *limits)
            panel.hlines(y, ends[0], ends[1], color=color, linewidth=1.8, zorder=3)
        face = "none" if verdict == "UNRESOLVED" else color
        panel.plot(
            [row["ratio"]], [y], MARKERS[verdict], color=color, markersize=5.5,
            markerfacecolor=face, markeredgewidth=1.2, zorder=4,
        )  # fmt: skip


def _ratio_axis(panel: Axes, limits: tuple[float, float], margin: float) -> None:
    panel.set_xscale("log")
    panel.set_xlim(*limits)
    panel.xaxis.set_major_locator(FixedLocator(_ticks(limits)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.axvspan(1 / (1 + margin), 1 + margin, color=PALETTE["band"], linewidth=0, zorder=0)
    panel.axvline(1.0, color=PALETTE["quiet"], linewidth=0.9, zorder=1)


def _limits(rows: pd.DataFrame, processes: pd.DataFrame, margin: float) -> tuple[float, float]:
    """Return the ends of the axis: all dots, and intervals as far as they stay near the ratios."""
    ratios = [*rows["ratio"].dropna().astype(float)]
    if len(processes):
        ratios += [*processes["ratio"].astype(float)]
    low, high = min([*ratios, 1 / (1 + margin)]), max([*ratios, 1 + margin])
    reach = max(high / low, 1.1) ** 0.5
    wide = [*rows["ratio_low"].dropna().astype(float), *rows["ratio_high"].dropna().astype(float)]
    near = [end for end in wide if low / reach <= end <= high * reach]
    low, high = min([low, *near]), max([high, *near])
    pad = (high / low) ** 0.05
    return low / pad, high * pad


def _ticks(limits: tuple[float, float]) -> Sequence[float]:
    """Return the finest ticks of which at most seven fall within `limits`."""
    sets = [[tick for tick in ticks if limits[0] <= tick <= limits[1]] for ticks in _TICKS]
    return next((ticks for ticks in sets if 3 <= len(ticks) <= 7), _thinned(sets))


def _thinned(sets: Iterable[Sequence[float]]) -> Sequence[float]:
    return min(
        (ticks for ticks in sets if ticks), key=lambda ticks: abs(len(ticks) - 5), default=()
    )


def _ratio_at(held: Mapping[tuple[str, str], Mapping[Any, Any]], line: str, label: str) -> float:
    row = held.get((line, label))
    return math.nan if row is None or row["ratio"] is None else float(row["ratio"])


def _no_ratio(status: str) -> str:
    word = status.lower().replace("_", " ")
    return "no ratio" if word == "measured" else word


def _clipped(names: Iterable[str]) -> list[str]:
    """Return names short enough to leave room for the figure, without what no font can print."""
    shown = ("".join(c if c.isprintable() else "\ufffd" for c in name) for name in names)
    return [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in shown]


def _short(ratio: float) -> str:
    return "" if math.isnan(ratio) else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
