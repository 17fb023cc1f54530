"""Pictures of many small fields: the border atlas, and mean maps through depth.

Everything is placed in points on one sheet, and fields of one colour and height are one path of
strokes: a thousand of them take no more room and time than a few curves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from reports.look import PALETTE, WIDTH, clipped, style

POINTS = 72 * WIDTH
LEVELS, DECADES = 9, 7
"""Colours of a mean map, and of the atlas: rounding, five powers of ten, and more than the value."""
ROUNDING = 1e-5
"""Relative errors below it are told by their colour alone."""


class Field(NamedTuple):
    """A rectangle: its left and upper edge and its size, in points, and its colour."""

    left: float
    top: float
    width: float
    height: float
    color: Any


def sheet(height: float) -> tuple[Figure, Axes]:
    """Return a figure `height` points high whose axes count points, downwards."""
    figure = Figure(figsize=(WIDTH, height / 72))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, POINTS), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def fill(axes: Axes, fields: Iterable[Field]) -> None:
    """Draw fields, one path for all of one colour and height, neighbours in one stroke."""
    kinds: dict[tuple[Any, float], list[tuple[float, float]]] = {}
    for one in fields:
        middle = one.top + one.height / 2
        ends = kinds.setdefault((one.color, one.height), [])
        if ends and ends[-1][1] == middle and abs(ends[-1][0] - one.left) < 1e-6:
            ends.pop()
        else:
            ends.append((one.left, middle))
        ends.append((one.left + one.width, middle))
    for (color, height), ends in kinds.items():
        axes.add_artist(_strokes(ends, edgecolor=color, linewidth=height, capstyle="butt"))


def _strokes(ends: Sequence[tuple[float, float]], **look: Any) -> PathPatch:
    path = Path(ends, [Path.MOVETO, Path.LINETO] * (len(ends) // 2))
    path.should_simplify = False
    return PathPatch(path, fill=False, **look)


def atlas(data: pd.DataFrame) -> Figure:
    """Draw relative errors: ways down, rings across, one block of columns per kernel and field.

    Ways of equal numbers share a line; who they are stands below.
    """
    rings = [name for name in data.columns if name.startswith("ring ")]
    errors = data[rings].apply(pd.to_numeric, errors="coerce")
    blocks = list(data[["field", "kernel", "layers"]].drop_duplicates().itertuples(index=False))
    held = {
        (row.way, (row.field, row.kernel, row.layers)): [v for v in values if not math.isnan(v)]
        for row, values in zip(data.itertuples(index=False), errors.to_numpy(float), strict=True)
    }
    groups: dict[tuple[Any, ...], list[str]] = {}
    for way in data["way"].unique():
        key = tuple(
            tuple(v if v > ROUNDING else 0.0 for v in held[way, tuple(block)]) for block in blocks
        )
        groups.setdefault(key, []).append(way)
    alike = [
        f"{ways[0]} stands for {', '.join(ways[1:])} too." for ways in groups.values() if ways[1:]
    ]
    left, top, line, gap = 128.0, 44.0, 15.0, 7.0
    columns = sum(len(held[next(iter(groups.values()))[0], tuple(block)]) for block in blocks)
    wide = (POINTS - left - 6 - gap * (len(blocks) - 1)) / columns
    bottom = top + line * len(groups)
    with style():
        figure, axes = sheet(bottom + 44 + 11 * len(alike))
        palette = sns.color_palette("cividis_r", DECADES)
        fields, x, heading = [], left, ""
        for block in blocks:
            count = len(held[next(iter(groups.values()))[0], tuple(block)])
            if str(block.field) != heading:
                heading = str(block.field)
                _word(axes, x, 10, clipped([heading])[0], size=9, weight="bold")
            layers = f", {block.layers} layers" if block.layers != 1 else ""
            _word(axes, x, 25, f"{block.kernel}{layers}", size=7.5, color=PALETTE["quiet"])
            for ring in range(count):
                place = x + (ring + 0.5) * wide
                _word(axes, place, 37, str(ring), size=7, ha="center", color=PALETTE["quiet"])
            for y, ways in enumerate(groups.values()):
                for ring, value in enumerate(held[ways[0], tuple(block)]):
                    level = _level(value)
                    corner = x + ring * wide, top + y * line
                    fields.append(Field(*corner, wide - 0.8, line - 0.8, palette[level]))
                    if value > ROUNDING:
                        _word(
                            axes, corner[0] + wide / 2, corner[1] + line / 2 - 0.4,
                            _percent(value), size=6.3, ha="center",
                            color="white" if level > 2 else "#262626",
                        )  # fmt: skip
            x += count * wide + gap
        fill(axes, fields)
        _word(axes, left - 6, 37, "ring", size=7, ha="right", color=PALETTE["quiet"])
        for y, ways in enumerate(groups.values()):
            more = f" + {len(ways) - 1}" if ways[1:] else ""
            name = clipped([ways[0].removeprefix("boundary: ") + more], 24)[0]
            _word(axes, left - 6, top + (y + 0.5) * line, name, size=8, ha="right")
        for y, text in enumerate(alike):
            _word(axes, 4, bottom + 38 + 11 * y, clipped([text], 170)[0], size=7)
        _word(axes, left, bottom + 20, "error in % of the value:", size=7, color=PALETTE["quiet"])
        powers = [f"< {10.0 ** (level - 3):g}" for level in range(1, DECADES - 1)]
        _legend(axes, (left + 104, bottom + 13), palette, ["< 0.001", *powers, "more"])
    return figure


def _level(error: float) -> int:
    """Return the colour of a relative error: one per power of ten, the first for rounding."""
    if error <= ROUNDING:
        return 0
    return min(DECADES - 1, max(1, DECADES - 1 + math.floor(math.log10(error))))


def _percent(error: float) -> str:
    percent = 100 * error
    return f"{percent:.0f}" if percent >= 9.5 else f"{percent:.1g}".removeprefix("0")


def mean_maps(data: pd.DataFrame) -> Figure:
    """Draw every map, stages across and ways down; dark is negative, light positive."""
    ways = [way for way in data["way"].unique() if way != "input"]
    stages = sorted(int(stage) for stage in data["stage"].unique())
    left, top, gap = 52.0, 22.0, 8.0
    side = (POINTS - left - 4) / max(1, len(stages)) - gap
    if not ways or not stages or side < LEVELS:
        raise ValueError(f"{len(stages)} stages and {len(ways)} ways have no place on a sheet")
    palette = sns.color_palette("cividis", LEVELS)
    fields: list[Field] = []
    slashes: list[tuple[float, float]] = []
    with style():
        figure, axes = sheet(top + len(ways) * (side + 18) + 24)
        for _, lines in data.groupby(["stage", "way"], sort=False):
            stage, way = int(lines["stage"].iloc[0]), str(lines["way"].iloc[0])
            x = left + stages.index(stage) * (side + gap)
            y = top + (ways.index(way) if way in ways else 0) * (side + 18)
            rows = [str(text).split() for text in lines.iloc[:, -1]]
            if {len(row) for row in rows} != {len(rows)}:
                raise ValueError("a map is square")
            cell = side / len(rows)
            for (i, j), text in (
                ((i, j), text) for i, row in enumerate(rows) for j, text in enumerate(row)
            ):
                corner = x + j * cell, y + i * cell
                if text == ".":
                    slashes += [(corner[0], corner[1] + cell), (corner[0] + cell, corner[1])]
                else:
                    share = min(1.0, max(-1.0, int(text) / 100))
                    color = palette[round((share + 1) / 2 * (LEVELS - 1))]
                    fields.append(Field(*corner, cell, cell, color))
            _word(
                axes, x + side / 2, y + side + 7, f"±{lines['largest mean'].iloc[0]:.2g}", size=7,
                ha="center", color=PALETTE["quiet"],
            )  # fmt: skip
            if y == top:
                name = f"stage {stage}" if stage else "the image"
                _word(axes, x, 12, name, size=8, weight="bold")
        for place, way in enumerate(ways):
            y = top + place * (side + 18) + side / 2
            _word(axes, left - 6, y, clipped([way], 9)[0], size=8, ha="right")
        fill(axes, fields)
        if slashes:
            axes.add_artist(_strokes(slashes, edgecolor=PALETTE["unresolved"], linewidth=0.5))
        y = top + len(ways) * (side + 18) + 4
        names = [
            "−",
            *[""] * (LEVELS - 2),
            "+ the largest mean of the map, below it; slashes: absent",
        ]
        _legend(axes, (left, y), palette, names, step=14)
    return figure


def _legend(
    axes: Axes, corner: tuple[float, float], palette: Sequence[Any], names: Sequence[str],
    step: float = 52,
) -> None:  # fmt: skip
    x, y = corner
    for place, (color, name) in enumerate(zip(palette, names, strict=True)):
        fill(axes, [Field(x + place * step, y, 12, 12, color)])
        before = place == 0 and step < 20
        at = x - 4 if before else x + place * step + 15
        if name:
            side = "right" if before else "left"
            _word(axes, at, y + 6, name, size=7, ha=side, color=PALETTE["quiet"])


def _word(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    axes.text(x, y, text, va="center", **look)
