"""Pictures of evidence: a table whose name is known becomes a figure as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.evidence import Evidence
from reports.look import PALETTE, WIDTH, clipped, lines_named, plain_ticks, style, title
from reports.mosaic import atlas, mean_maps
from reports.vector import svg

MARKERS = "osD^v<>P"


def picture(evidence: Evidence) -> Markup | None:
    """Return a table as a figure; None where it is not known, or is not what its name says."""
    if evidence.name not in _PICTURES or not evidence.rows:
        return None
    data = pd.DataFrame(list(evidence.rows), columns=list(evidence.columns))
    try:
        figure = _PICTURES[evidence.name](data)
    except (
        KeyError,
        ValueError,
        TypeError,
        ArithmeticError,
        AttributeError,
        IndexError,
    ):  # the page shows the table whatever it holds
        return None
    text = f"{evidence.about} The table below has the numbers."
    return svg(figure, f"evidence-{evidence.name}", evidence.title, text)


def _border_error(data: pd.DataFrame) -> Figure:
    methods = list(data.columns[3:])
    fields, sides = list(data["field"].unique()), list(data["kernel"].unique())
    with style():
        figure = Figure(figsize=(WIDTH, 0.9 + 2.3 * len(fields)))
        figure.subplots_adjust(
            left=0.075, right=0.87, top=0.93, bottom=0.1, wspace=0.08, hspace=0.35
        )
        panels = figure.subplots(len(fields), len(sides), sharey=True, squeeze=False)
        for line, field in enumerate(fields):
            for place, side in enumerate(sides):
                axes: Axes = panels[line][place]
                own = data[(data["field"] == field) & (data["kernel"] == side)]
                _lines(axes, own["n"], {m: own[m] for m in methods}, named=place == len(sides) - 1)
                axes.set(yscale="log", xlabel="n" if line == len(fields) - 1 else "")
                plain_ticks(axes.yaxis)
                title(axes, f"{field}, {side}", size=8.5)
                axes.set_ylabel("" if place else "mean absolute error")
    return figure


def _convergence(data: pd.DataFrame) -> Figure:
    grids = [name for name in data.columns if name.endswith(" steps")]
    steps = pd.Series([int(name.split()[0]) for name in grids])
    keys = data[["kernel", "dtype"]].drop_duplicates().to_records(index=False).tolist()
    with style():
        figure = Figure(figsize=(WIDTH, 3.1))
        figure.subplots_adjust(left=0.075, right=0.87, top=0.9, bottom=0.16, wspace=0.08)
        panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
        for place, ((kernel, dtype), axes) in enumerate(zip(keys, panels, strict=True)):
            own = data[(data["kernel"] == kernel) & (data["dtype"] == dtype)]
            curves = {
                row["method"]: pd.Series([row[g] for g in grids]) for _, row in own.iterrows()
            }
            axes.set(xscale="log", yscale="log", xlabel="steps a side")
            for axis in (axes.xaxis, axes.yaxis):
                plain_ticks(axis)
            _lines(axes, steps, curves, named=place == len(keys) - 1)
            axes.set_xticks(list(steps), [str(step) for step in steps])
            title(axes, f"{kernel}, {dtype}", size=8.5)
            axes.set_ylabel("" if place else "mean absolute error")
    return figure


def _activations(data: pd.DataFrame) -> Figure:
    own = data[data["over"] == "present"]
    if not len(own):
        raise ValueError("no row is about present positions")
    with style():
        figure = Figure(figsize=(WIDTH, 2.7))
        figure.subplots_adjust(left=0.06, right=0.9, top=0.88, bottom=0.18, wspace=0.42)
        names = ("mean", "deviation", "skewness", "kurtosis")
        for place, (name, axes) in enumerate(
            zip(names, figure.subplots(1, len(names)), strict=True)
        ):
            curves = {
                str(way): pd.Series(pd.to_numeric(group[name], errors="coerce").to_numpy())
                for way, group in own.groupby("way", sort=False)
            }
            stages = pd.Series(sorted(own["stage"].unique()))
            _lines(axes, stages, curves, named=place == len(names) - 1)
            if name == "deviation":
                axes.set_yscale("log")
                plain_ticks(axes.yaxis)
            if name == "kurtosis":
                axes.axhline(3.0, color=PALETTE["quiet"], linewidth=0.9, linestyle="--")
            axes.set(xlabel="stage", ylabel="")
            title(axes, name, size=8.5)
    return figure


def _crossover(data: pd.DataFrame) -> Figure:
    shares = [name for name in data.columns if name.endswith(" present")]
    ratios = data[shares].astype(float).to_numpy()
    logs = np.log2(ratios)
    reach = max(0.5, float(np.nanmax(np.abs(logs))))
    lines = clipped(data["implementation"] + " / " + data["structure"], 48)
    height = 0.6 + 0.27 * max(len(lines), 2)
    with style():
        figure = Figure(figsize=(WIDTH, height))
        figure.subplots_adjust(left=0.34, right=0.99, top=1 - 0.08 / height, bottom=0.45 / height)
        axes = figure.subplots()
        sns.heatmap(
            logs, ax=axes, cmap=sns.diverging_palette(243, 30, s=85, l=45, as_cmap=True),
            vmin=-reach, vmax=reach, cbar=False, linewidths=1, annot=ratios, fmt=".2f",
            annot_kws={"size": 8}, yticklabels=False,
            xticklabels=[name.removesuffix(" present") for name in shares],
        )  # fmt: skip
        lines_named(axes, np.arange(len(lines)) + 0.5, lines, size=8.8)
        for line, place in np.argwhere(logs[:, :-1] * logs[:, 1:] < 0):
            axes.vlines(place + 1, line, line + 1, color=PALETTE["ink"], linewidth=2.2)
        axes.set(xlabel="share present", ylabel="")
        axes.tick_params(axis="both", length=0, rotation=0)
    return figure


def _lines(axes: Axes, x: pd.Series, curves: Mapping[str, pd.Series], *, named: bool) -> None:
    """Draw curves that differ in colour and mark; the last panel names them where they end."""
    colors = sns.color_palette("colorblind", len(curves))
    for (name, y), color, marker in zip(curves.items(), colors, MARKERS, strict=False):
        axes.plot(
            x.to_numpy(), y.to_numpy(dtype=float), color=color, marker=marker, markersize=3,
            linewidth=1.1, label=name,
        )  # fmt: skip
    axes.grid(visible=False, axis="x")
    if named:
        axes.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7.5, frameon=False,
            handlelength=1.6, labelcolor=PALETTE["quiet"],
        )  # fmt: skip


_PICTURES: Mapping[str, Callable[[pd.DataFrame], Figure]] = {
    "border_error": _border_error,
    "border_convergence": _convergence,
    "border_atlas": atlas,
    "activations": _activations,
    "activation_maps": mean_maps,
    "crossover": _crossover,
}
