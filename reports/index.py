"""`index.html`: every page of a folder, newest first, two runs side by side, ratios through time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reports.headlines import Places
from reports.payload import plain
from reports.rendering import environment
from reports.summary import Mean, Summary, read_summary
from reports.words import place_labels

NAME = "index.html"
SHOWN = 12
"""Runs that a line of history reaches back."""


def write_index(folder: Path) -> Path:
    """Write `index.html` over the pages in `folder` and return its path; the same pages, same bytes."""
    folder = Path(folder)
    summaries: list[tuple[str, Summary]] = []
    others: list[tuple[str, str]] = []
    for page in sorted(folder.glob("*.html")):
        if page.name == NAME:
            continue
        found = read_summary(page)
        if isinstance(found, Summary):
            summaries.append((page.name, found))
        else:
            others.append((page.name, found))
    summaries.sort(key=lambda pair: (pair[1].started, pair[0]), reverse=True)
    runs = [{"run": run, "link": quote(name), "name": name} for name, run in summaries]
    places = place_labels(mean.place for _, run in summaries for mean in run.means)
    text = (
        environment()
        .get_template("index.html")
        .render(
            runs=runs,
            others=others,
            history=history([run for _, run in summaries]),
            places=places,
            data=plain({"runs": [_told(run, places) for _, run in summaries]}),
        )
    )
    target = folder / NAME
    target.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return target


def _told(run: Summary, places: Places) -> dict[str, Any]:
    """Return a summary as plain data, its means with the words for where and how they ran."""
    means = [dataclasses.asdict(mean) | {"place": places[mean.place]} for mean in run.means]
    return dataclasses.asdict(run) | {"means": means}


def history(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return one row per implementation that several runs on one machine measured.

    `changed` is whether the intervals of the newest two lie apart; None where one has none.

    Args:
        summaries: newest first.
    """
    lines: dict[tuple[Any, ...], list[tuple[Summary, Mean]]] = {}
    for run in reversed(summaries):
        for mean in run.means:
            if mean.ratio is not None and mean.ratio > 0:
                lines.setdefault((run.machine, *mean.key), []).append((run, mean))
    rows = []
    for (machine, *_), found in lines.items():
        if len(found) < 2:
            continue
        found = found[-SHOWN:]
        (_, before), (_, now) = found[-2:]
        rows.append({
            "machine": machine, "mean": now, "before": before, "runs": len(found),
            "change": (now.ratio or 1.0) / (before.ratio or 1.0),
            "changed": _apart(before, now),
            "line": _line([mean.ratio or 1.0 for _, mean in found]),
            "words": ", ".join(f"{run.id}: {mean.ratio:.3g}" for run, mean in found),
        })  # fmt: skip
    return sorted(rows, key=lambda row: (row["changed"] is not True, row["mean"].key))


def _apart(one: Mean, two: Mean) -> bool | None:
    ends = (one.ratio_low, one.ratio_high, two.ratio_low, two.ratio_high)
    if any(end is None for end in ends):
        return None
    return bool(ends[1] < ends[2] or ends[3] < ends[0])  # type: ignore[operator]


def _line(ratios: Sequence[float]) -> str:
    """Return the points of a small curve, 120 by 24, ratio 1 in the middle of its height."""
    logs = [math.log(ratio) for ratio in ratios]
    reach = max(0.1, *(abs(value) for value in logs))
    step = 112 / (len(logs) - 1)
    return " ".join(f"{4 + i * step:.1f},{12 + 10 * v / reach:.1f}" for i, v in enumerate(logs))
