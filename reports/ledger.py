"""Memory per implementation, and how many operations a row performs in its time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from harness.case import CaseError, ConvCase
from reports import frame
from reports.look import MARKERS, PALETTE, WIDTH, log_ticks, style

_SAME = ("case", "device", "threads", "flags", "dtype")
_LEDGER = (
    "variant", *_SAME, "macs", "implementation", "doubt", "is_baseline", "saved_bytes", "direction",
    "peak_bytes", "label",
)  # fmt: skip
COPY = "copy_bytes_per_s"
_ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def ledger(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the bytes of every implementation in the largest case of its variant."""
    if not len(cells) or cells["peak_bytes"].isna().all():
        return []
    rows = cells.loc[~cells["placebo"] & cells["peak_bytes"].notna(), list(_LEDGER)]
    found = []
    for variant, own in rows.groupby("variant", sort=False):
        sizes = own["macs"].astype("Float64").fillna(0)
        largest = own.iloc[int(sizes.to_numpy(dtype=float).argmax())]
        same = own
        for name in _SAME:
            same = same[same[name] == largest[name]]
        table: dict[str, dict[str, Any]] = {}
        for row in frame.records(same):
            line = table.setdefault(row["implementation"], {
                "implementation": row["implementation"], "doubt": row["doubt"],
                "is_baseline": row["is_baseline"], "saved": None,
            })  # fmt: skip
            line[row["direction"]] = row["peak_bytes"]
            line["saved"] = row["saved_bytes"] if line["saved"] is None else line["saved"]
        case = frame.records(same)[0]
        inputs = _bytes(case["case"])
        found.append({
            "variant": variant, "label": case["label"], "case": case["case"], "inputs": inputs,
            "output": _output_bytes(case["case"]),
            "rows": list(table.values()),
        })  # fmt: skip
    return found


def rates(cells: pd.DataFrame) -> pd.DataFrame:
    """Return what forward rows achieve: operations a ns and per byte, useful and issued.

    Useful is what the row recorded, and where it did not, that of the dense definition. `issued_rate`
    and `issued_intensity` are missing where nothing was counted.
    """
    if not len(cells):
        return cells
    rows = cells[(cells["direction"] == "forward") & ~cells["placebo"]]
    rows = rows[rows["median_ns"].notna() & (rows["median_ns"] > 0)]
    dense = 2 * _floats(rows["macs"])
    least = pd.Series([_bytes(case) for case in rows["case"]], index=rows.index, dtype=float)
    time = rows["median_ns"].astype(float)
    useful = _floats(rows["useful_flop"]).fillna(dense)
    issued = _floats(rows["issued_flop"])
    found = rows.assign(
        rate=useful / time,
        intensity=useful / _floats(rows["useful_bytes"]).fillna(least),
        issued_rate=issued / time,
        issued_intensity=issued / _floats(rows["issued_bytes"]),
    )
    return found[(found["rate"] > 0) & (found["intensity"] > 0)]


def roofs(ceilings: Mapping[str, float], dtype: str) -> tuple[float, float] | None:
    """Return the measured ceilings as operations and bytes per ns; None where one is missing."""
    copy, product = ceilings.get(COPY, math.nan), ceilings.get(f"{dtype}_flop_per_s", math.nan)
    if not (0 < copy < math.inf and 0 < product < math.inf):
        return None
    return product / 1e9, copy / 1e9


def rate_figure(rows: pd.DataFrame, roof: tuple[float, float] | None = None) -> Figure:
    """Draw rates against intensity: circles are baselines, lines lead from them to contenders.

    A plus is what a row issued, a dotted line joins it to what was useful of that.

    Args:
        rows: As `rates` returns them.
        roof: As `roofs` returns them: the ceilings are drawn as lines.
    """
    with style():
        figure = Figure(figsize=(WIDTH, 3.9))
        figure.subplots_adjust(left=0.075, right=0.985, bottom=0.13, top=0.97)
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log")
        marks, lines = _marks(rows)
        axes.add_collection(LineCollection(lines, colors=PALETTE["grid"], zorder=1), autolim=False)
        counted = rows[(rows["issued_rate"] > 0) & (rows["issued_intensity"] > 0)]
        if len(counted):
            ends = [
                counted[[f"{way}intensity", f"{way}rate"]].to_numpy() for way in ("", "issued_")
            ]
            joined = LineCollection(
                list(zip(*ends, strict=True)), colors=PALETTE["grid"], linestyles="dotted",
                linewidths=1, zorder=1,
            )  # fmt: skip
            axes.add_collection(joined, autolim=False)
            axes.plot(*ends[1].T, "+", markersize=5, color=PALETTE["quiet"], zorder=2)
        for kind, found in marks.items():
            x, y = zip(*found, strict=True)
            base = kind == "BASELINE"
            axes.plot(
                x, y, "o" if base else MARKERS[kind], markersize=4.5, linestyle="none", zorder=3,
                color=PALETTE["quiet" if base else kind.lower() or "unresolved"],
                markerfacecolor="none" if base else None,
            )  # fmt: skip
        axes.set(xlabel="operations per byte, FLOP / byte", ylabel="rate, GFLOP / s")
        if roof:
            corner = roof[0] / roof[1]
            ends_of = [*rows["intensity"], *counted["issued_intensity"]]
            places = [min([*ends_of, corner / 2]), corner, max([*ends_of, 2 * corner])]
            axes.plot(
                places, [min(roof[0], roof[1] * place) for place in places], color=PALETTE["ink"],
                linewidth=1.2,
            )  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            log_ticks(axis)
    return figure


def _floats(column: pd.Series) -> pd.Series:
    return column.astype("Float64").astype(float)


def _marks(
    rows: pd.DataFrame,
) -> tuple[dict[str, list[tuple[float, float]]], list[list[tuple[float, float]]]]:
    """Return the places of the marks by kind, and the lines that lead to them from baselines."""
    keys = ("variant", "case", "device", "threads", "flags")
    marks: dict[str, list[tuple[float, float]]] = {}
    starts: dict[tuple[Any, ...], tuple[float, float]] = {}
    lines = []
    found = frame.records(rows)
    for row in sorted(found, key=lambda row: not row["is_baseline"]):
        place = row["intensity"], row["rate"]
        cell = tuple(row[key] for key in keys)
        if row["is_baseline"]:
            starts[cell] = place
            marks.setdefault("BASELINE", []).append(place)
            continue
        marks.setdefault("" if row["no_claim"] else row["verdict"], []).append(place)
        if cell in starts:
            lines.append([starts[cell], place])
    return marks, lines


def _bytes(line: str) -> int | None:
    """Return the bytes of signal, weight and output of a case: the least that must move."""
    case = _case(line)
    return None if case is None else _size(case, case.x_shape, case.weight_shape, case.out_shape)


def _output_bytes(line: str) -> int | None:
    case = _case(line)
    return None if case is None else _size(case, case.out_shape)


def _case(line: str) -> ConvCase | None:
    """Return the case of a line; None where another version wrote it differently."""
    try:
        return ConvCase.parse(line)
    except CaseError:
        return None


def _size(case: ConvCase, *shapes: tuple[int, ...]) -> int:
    return _ITEM.get(case.dtype, 4) * sum(math.prod(shape) for shape in shapes)
