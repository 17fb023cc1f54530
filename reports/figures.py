"""Figures of the page: DataFrame in, matplotlib Figure out; no files, no global state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from reports.frame import records
from reports.heat import no_ratio
from reports.look import (
    LONGEST_NAME,
    MARKERS,
    PALETTE,
    WIDTH,
    clipped,
    crossed,
    lines_named,
    style,
    title,
)

ROW = 0.215
_DRAWN = (
    "implementation", "direction", "ratio", "ratio_low", "ratio_high", "verdict", "status", "no_claim",
)  # fmt: skip
MOST_DOTS = 1500
MOST_MARKED, MOST_STARTS = 150, 24
"""Blocks that are marked one by one; changes of the process that are named."""

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


def forest(rows: pd.DataFrame, processes: pd.DataFrame, *, group: str, margin: float) -> Figure:
    """Draw ratios with their intervals, one line per implementation, one panel per direction.

    Args:
        rows: `group`, implementation, direction, ratio, ratio_low, ratio_high, verdict, status,
            no_claim, the words for why a row claims nothing: it is drawn as a grey cross.
        processes: `group`, implementation, direction, ratio; one faint dot each.
        group: the column that gathers lines under one heading.
        margin: half-width of the shaded band in which ratios count as the same.
    """
    places, headings, height = _places(rows, group)
    found = records(rows[[group, *_DRAWN]])
    spoiled = {(str(r[group]), r["implementation"]): r["no_claim"] for r in found}
    seen: dict[str, tuple[list[float], list[float]]] = {}
    for row in (
        records(processes[[group, "implementation", "direction", "ratio"]])
        if len(processes)
        else ()
    ):
        x, y = seen.setdefault(row["direction"], ([], []))
        x.append(row["ratio"])
        y.append(places[str(row[group]), row["implementation"]])
    labels = clipped(crossed(name, spoiled[where, name]) for where, name in places)
    if not headings:  # the reason for a cross stands at the end: what is cut is the group
        labels = [
            f"{clipped([where], max(8, LONGEST_NAME - len(name) - 3))[0]} · {name}"
            for name, (where, _) in zip(labels, places, strict=True)
        ]
    bold = clipped([text for _, text in headings])
    directions = list(rows["direction"].unique())
    inches = 0.85 + ROW * max(height, 2.0)
    with style():
        figure = Figure(figsize=(WIDTH, inches))
        wide = [0.066 * len(label) for label in labels] + [0.08 * len(label) for label in bold]
        left = 0.15 + max(wide, default=0.0)
        limits = _limits(rows, processes, margin)
        span = (0.985 * WIDTH - left + 0.2) / len(directions)
        panels = [
            _panel(figure, (left + place * span, 0.5, span - 0.2, inches - 0.8), limits, margin)
            for place in range(len(directions))
        ]
        for panel, direction in zip(panels, directions, strict=True):
            title(panel, clipped([direction])[0])
            dots = seen.get(direction, ([], []))
            if 0 < len(dots[0]) <= MOST_DOTS:
                panel.add_artist(_dots(*dots))
            own = [row for row in found if row["direction"] == direction]
            _draw_rows(panel, own, places, group, limits)
            panel.set_ylim(max(height, 1.0) - 0.4, -0.7)
        quiet: dict[str, Any] = {"color": PALETTE["quiet"]} if headings else {}
        lines_named(panels[0], places.values(), labels, size=8.8, **quiet)
        lines_named(panels[0], [y for y, _ in headings], bold, size=8.8, fontweight="bold")
    return figure


def _places(
    rows: pd.DataFrame, group: str
) -> tuple[dict[tuple[str, str], float], list[tuple[float, str]], float]:
    """Return the height of every line, that of every heading, and the height of all."""
    lines = rows[[group, "implementation"]].drop_duplicates()
    several = len(set(lines["implementation"])) > 1
    places: dict[tuple[str, str], float] = {}
    headings: list[tuple[float, str]] = []
    y = 0.0
    for name, members in lines.groupby(group, sort=False):
        if several:
            headings.append((y, str(name)))
            y += 1.0
        for member in members["implementation"]:
            places[str(name), member] = y
            y += 1.0
        y += 0.35 if several else 0.0
    return places, headings, y


def blocks(
    points: pd.DataFrame, label: str, usual: float | None = None, least: float = 0.0
) -> Figure:
    """Draw a quantity block by block, one line per process, and its range where blocks share a place.

    Args:
        points: place, process, low, middle, high, in time order.
        label: What stands beside the axis, with its unit.
        usual: Where a line marks the usual value, if anywhere.
        least: Half of the least height of the axis, as a share of the middle.
    """
    changes = points["process"].ne(points["process"].shift()).cumsum()
    starts = points.groupby(changes)[["place", "process"]].first()
    with style():
        figure = Figure(figsize=(WIDTH, 1.9))
        figure.subplots_adjust(left=0.075, right=0.99, bottom=0.16, top=0.95)
        axes = figure.subplots()
        # a gap, not a line, leads from one process to the next
        gaps = np.flatnonzero(changes.diff().to_numpy() > 0)
        x, low, middle, high = (
            np.insert(points[name].to_numpy(float), gaps, math.nan)
            for name in ("place", "low", "middle", "high")
        )
        if (points["high"] > points["low"]).any():
            axes.fill_between(x, low, high, color=PALETTE["grid"], linewidth=0)
        marker = "." if len(points) <= MOST_MARKED else ""
        axes.plot(
            x, middle, marker=marker, color=PALETTE["faster"], linewidth=1.1, markersize=3
        )  # fmt: skip
        if usual is not None:
            axes.axhline(usual, color=PALETTE["quiet"], linewidth=0.8)
        if len(starts) <= MOST_STARTS:
            for place in list(starts["place"])[1:]:
                axes.axvline(place - 0.5, color=PALETTE["grid"], linewidth=0.8)
            names = _process_names(starts["process"], len(points))
            axes.set_xticks(list(starts["place"]), names)
            for tick in axes.get_xticklabels():
                tick.set_horizontalalignment("left")
        else:
            axes.set_xticks([])
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="", ylabel=label)
        axes.margins(x=0.01)
        center, (bottom, top) = float(points["middle"].median()), axes.get_ylim()
        axes.set_ylim(min(bottom, center * (1 - least)), max(top, center * (1 + least)))
    return figure


def _dots(x: Sequence[float], y: Sequence[float]) -> PathPatch:
    """Return faint dots as one path of strokes without length and with round ends: it is short."""
    points = [point for place in zip(x, y, strict=True) for point in (place, place)]
    path = Path(points, [Path.MOVETO, Path.LINETO] * len(x))
    path.should_simplify = False
    return PathPatch(
        path, fill=False, edgecolor=PALETTE["quiet"], alpha=0.4, linewidth=3, capstyle="round",
        zorder=2,
    )  # fmt: skip


def _process_names(processes: Iterable[object], blocks: int) -> list[str]:
    """Return what stands below the first block of each process: bare numbers where many begin."""
    names = [str(name) for name in processes]
    narrow = 12 * len(names) > blocks
    return [f"process {name}" if not narrow or name == names[0] else name for name in names]


def _draw_rows(
    panel: Axes,
    rows: Sequence[Mapping[str, Any]],
    places: dict[tuple[str, str], float],
    group: str,
    limits: tuple[float, float],
) -> None:
    marks: dict[str, list[tuple[float, float]]] = {}
    lines: dict[str, list[list[tuple[float, float]]]] = {}
    for row in rows:
        y = places[str(row[group]), row["implementation"]]
        if row["ratio"] is None:
            panel.text(
                limits[0] * 1.02, y, no_ratio(row["status"]),
                va="center", size=7, color=PALETTE["quiet"], style="italic",
            )  # fmt: skip
            continue
        kind = "" if row["no_claim"] else str(row["verdict"])
        marks.setdefault(kind, []).append((float(row["ratio"]), y))
        if row["ratio_low"] is not None:
            low, high = (
                min(max(row[end], limits[0]), limits[1]) for end in ("ratio_low", "ratio_high")
            )
            lines.setdefault(kind, []).append([(low, y), (high, y)])
    for kind, places_of in marks.items():
        color = PALETTE[kind.lower() or "unresolved"]
        panel.add_collection(
            LineCollection(lines.get(kind, []), colors=color, linewidths=1.8, zorder=3),
            autolim=False,
        )
        x, y_of = zip(*places_of, strict=True)
        panel.plot(
            x, y_of, MARKERS[kind], color=color, markersize=5.5, linestyle="none", zorder=4,
            markerfacecolor="none" if kind in {"UNRESOLVED", ""} else color, markeredgewidth=1.2,
        )  # fmt: skip


def _panel(
    figure: Figure, place: tuple[float, float, float, float], limits: tuple[float, float],
    margin: float,
) -> Axes:  # fmt: skip
    """Return axes at a place in inches, with a logarithmic grid and its numbers.

    Frame, grid and numbers are drawn as they are: axes that look for their own take half of the
    time of the figure.
    """
    wide, high = figure.get_size_inches()
    left, bottom, width, height = place
    panel = figure.add_axes((left / wide, bottom / high, width / wide, height / high))
    panel.set_axis_off()
    panel.set_xscale("log")
    panel.set_xlim(*limits)
    down, across = panel.get_xaxis_transform(), panel.transAxes
    ticks = _ticks(limits)
    grid = [[(tick, 0.0), (tick, 1.0)] for tick in ticks]
    panel.add_artist(
        LineCollection(grid, colors=PALETTE["grid"], linewidths=0.6, transform=down, zorder=0.5)
    )
    frame = Rectangle((0, 0), 1, 1, transform=across, fill=False, edgecolor=PALETTE["grid"])
    panel.add_artist(frame)
    small: dict[str, Any] = {"ha": "center", "va": "top", "color": PALETTE["quiet"]}
    for tick in ticks:
        panel.text(tick, -0.07 / height, f"{tick:g}", transform=down, size=8.8, **small)
    panel.text(
        0.5, -0.27 / height, "time / time of the baseline", transform=across, size=9.6, **small
    )
    panel.axvspan(1 / (1 + margin), 1 + margin, color=PALETTE["band"], linewidth=0, zorder=0)
    panel.axvline(1.0, color=PALETTE["quiet"], linewidth=0.9, zorder=1)
    return panel


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
