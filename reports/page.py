"""The page: sections of a run rendered into one HTML file that needs nothing else."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jinja2
import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from harness.comparison import (
    CONFIDENCE,
    MARGIN,
    GeometricMean,
    Speed,
    summarize,
    summarize_placebo,
)
from harness.evidence import Evidence, load_evidence
from harness.results import LoadedRun, Outcome, Status, VariantCard, Verdict, load_run
from reports import figures, frame

ICONS: Mapping[str, str] = {
    Speed.FASTER: "◂", Speed.SLOWER: "▸", Speed.SAME: "■", Speed.UNRESOLVED: "○",
    Outcome.HOLDS: "✓", Outcome.REFUTED: "✗", Outcome.UNSUPPORTED: "–",
    Outcome.MISTRUSTED: "?", Outcome.CRASHED: "!",
    Status.MEASURED: "✓", Status.NOT_SELECTED: "·", Status.TIMED_OUT: "…",
}  # fmt: skip

# Columns of the downloads, in order; everything else can be derived from them.
EXPORTED = (
    "variant", "implementation", "kind", "placebo", "is_baseline", "case_name", "case", "direction",
    "dtype", "device", "threads", "flags", "status", "reason", "median_ns", "baseline",
    "baseline_median_ns", "ratio", "ratio_low", "ratio_high", "p_value", "p_adjusted", "verdict",
    "processes", "samples", "peak_bytes", "saved_bytes", "ratio_memory", "macs", "proof", "replay",
    "timing", "anchor",
)  # fmt: skip

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"


def write_page(run_folder: Path, target: Path) -> Path:
    """Write the page of the run in `run_folder` to the file `target` and return its path.

    Raises:
        ResultsError: the folder cannot be read.
    """
    evidence = load_evidence(Path(run_folder) / "evidence")
    text = render(load_run(run_folder), read_profile(run_folder), evidence)
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return target


def read_profile(run_folder: Path) -> list[dict[str, Any]] | str:
    """Return the entries of `profile.json`, or the sentence that says why there are none."""
    path = Path(run_folder) / "profile.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "This run was not profiled."
    except (OSError, ValueError) as error:
        return f"profile.json cannot be read: {error}"
    columns = {"name": str, "calls": int, "self_ns": int | float, "device_ns": int | float}
    try:
        for entry in entries:
            for name in ("variant", "implementation", "case_name"):
                _expect(entry[name], str, name)
            for operator in entry["operators"]:
                for name, kind in columns.items():
                    _expect(operator[name], kind, name)
    except (KeyError, TypeError) as error:
        return f"profile.json is not a list of operator tables: {error}"
    return list(entries)


def render(
    run: LoadedRun,
    profile: list[dict[str, Any]] | str = "This run was not profiled.",
    evidence: Sequence[Evidence] = (),
) -> str:
    """Return the page as HTML; the same rows give the same bytes."""
    comparisons = frame.compare_run(run)
    means = summarize(comparisons)
    cells = frame.cells_frame(run, comparisons)
    processes = frame.process_ratios_frame(comparisons)
    laws = frame.laws_frame(run.verdicts)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "time": format_time, "bytes": format_bytes, "ratio": format_ratio, "percent": format_percent,
        "direction": _direction, "word": _word,
        "anchor": lambda text, kind: frame.anchor(kind, text),
    }  # fmt: skip
    environment.globals |= {"icons": ICONS}
    cards = _cards(run)
    return environment.get_template("template.html").render(
        run=run.run,
        command=shlex.join(run.run.argv),
        damage=run.damage,
        margin=MARGIN,
        confidence=CONFIDENCE,
        placebo=summarize_placebo(comparisons),
        headlines=[_headline(card, means, cells, run.verdicts) for card in cards],
        overview=_overview(means, cells),
        drift=_drift(run),
        variants=[_variant(card, cells, processes, laws, run) for card in cards],
        cases_run=sum(row.cases for row in run.verdicts),
        counterexamples=_counterexamples(run),
        evidence=evidence,
        profile=profile if isinstance(profile, str) else "",
        budgets=[_budget(entry) for entry in profile] if not isinstance(profile, str) else [],
        rows=_records(cells),
        data=_embedded(run, cells),
    )


def format_time(nanoseconds: float | None) -> str:
    """Return a duration with three significant digits and its unit."""
    if nanoseconds is None or math.isnan(nanoseconds):
        return ""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{_three(nanoseconds / size)} {unit}"
    return f"{nanoseconds:.0f} ns"


def format_bytes(count: float | None) -> str:
    """Return a size with three significant digits and its unit, in powers of 1024."""
    if count is None or math.isnan(count):
        return ""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{_three(count / size)} {unit}"
    return f"{count:.0f} B"


def format_ratio(ratio: float | None) -> str:
    """Return a ratio with three significant digits, never fewer than two decimals below 10."""
    if ratio is None or math.isnan(ratio):
        return ""
    return f"{ratio:.3f}" if ratio < 2 else f"{ratio:.2f}" if ratio < 10 else _three(ratio)


def format_percent(fraction: float | None) -> str:
    """Return a fraction as per cent with two significant digits."""
    if fraction is None or math.isnan(fraction):
        return ""
    return f"{100 * fraction:.2g} %" if abs(fraction) < 0.1 else f"{100 * fraction:.0f} %"


def svg(figure: Figure, slug: str, title: str, text: str) -> Markup:
    """Return a figure as inline SVG: deterministic, unique ids, colours of the page, alternative."""
    buffer = io.BytesIO()
    with figures.style(), mpl.rc_context({"svg.hashsalt": slug}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # The style sheet of the figure would apply to the whole page.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', buffer.getvalue().decode("utf-8")))
    for node in root.iter():
        _adapt(node, slug, used)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "figure", "role": "img", "aria-labelledby": f"{slug}-t {slug}-d"}
    for place, (tag, content) in enumerate((("title", title), ("desc", text))):
        node = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{slug}-{tag[0]}"})
        node.text = content
        root.insert(place, node)
    # HTML knows inline svg without namespaces.
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    return Markup(ET.tostring(root, encoding="unicode"))


def _adapt(node: ET.Element, slug: str, used: set[str]) -> None:
    name = node.attrib.pop("id", None)
    if name in used:
        node.set("id", f"{slug}-{name}")
    target = node.attrib.pop(f"{{{_XLINK}}}href", None)
    if target:
        node.set("href", f"#{slug}-{target[1:]}")
    for key, value in list(node.attrib.items()):
        value = value.replace("url(#", f"url(#{slug}-")
        for role, color in figures.PALETTE.items():
            value = value.replace(color, "currentColor" if role == "ink" else f"var(--{role})")
        node.set(key, value)


def _cards(run: LoadedRun) -> list[VariantCard]:
    """Return the variants of the catalogue, then those that only rows know."""
    cards = {card.name: card for card in run.run.catalogue}
    for name in [*(r.variant for r in run.measurements), *(r.variant for r in run.verdicts)]:
        if name not in cards:
            cards[name] = VariantCard(
                name=name, equation="", source="", traits=(), baseline="", implementations=()
            )
    return list(cards.values())


def _headline(
    card: VariantCard,
    means: Sequence[GeometricMean],
    cells: pd.DataFrame,
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    """Return the line of a variant: its best implementation per direction, or why there is none."""
    refuted: dict[str, list[str]] = {}
    for row in verdicts:
        if row.variant == card.name and row.status is Outcome.REFUTED:
            refuted.setdefault(row.implementation, []).append(row.law)
    oracles = {item.name for item in card.implementations if item.kind == "oracle"}
    entries = []
    places = frame.place_labels(means)
    for direction, place in itertools.product(frame.DIRECTIONS, places):
        found = [
            mean
            for mean in means
            if (mean.variant, mean.direction) == (card.name, direction)
            and (mean.device, mean.threads) == place
            and mean.ratio is not None
            and mean.implementation not in refuted
        ]
        found = [mean for mean in found if mean.implementation not in oracles] or found
        # A record on a corner of the cells is no headline if another covers more.
        wide = [mean for mean in found if 2 * mean.counted >= mean.cells] or found
        if wide:
            best = min(wide, key=lambda mean: mean.ratio or math.inf)
            entries.append(_entry(best) | {"place": places[place]})
    own = cells[(cells["variant"] == card.name) & ~cells["placebo"]] if len(cells) else cells
    reason = "" if entries else _no_number(card, own)
    if reason and refuted and len(own) and own["ratio"].notna().any():
        reason = "no ratio of an implementation that every law accepts"
    return {
        "name": card.name,
        "entries": entries,
        "reason": reason,
        "refuted": [(name, list(dict.fromkeys(laws))) for name, laws in refuted.items()],
    }


def _entry(mean: GeometricMean) -> dict[str, Any]:
    ratio, low, high = mean.ratio or math.nan, mean.ratio_low, mean.ratio_high
    ends: tuple[float, float] | None = None
    faster = mean.verdict is Speed.FASTER
    if low is not None and high is not None:
        ends = (1 / high, 1 / low) if faster else (low, high)
    return {
        "mean": mean,
        "verdict": mean.verdict,
        "number": 1 / ratio if faster else ratio,
        "ends": ends,
        "memory": None if mean.memory_ratio is None else mean.memory_ratio - 1,
    }


def _no_number(card: VariantCard, cells: pd.DataFrame) -> str:
    """Return the sentence for a variant without any ratio."""
    if not len(cells):
        absent = [
            f"{i.name} is not available, {i.reason}" for i in card.implementations if i.reason
        ]
        return "; ".join(["nothing of this variant was timed in this run", *absent])
    counts = Counter(zip(cells["status"], cells["reason"], strict=True))
    parts = [
        f"{count} × {_word(status)}" + (f" ({reason})" if reason else "")
        for (status, reason), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    more = f", and {len(parts) - 3} other reasons" if len(parts) > 3 else ""
    return f"no ratio; its cells: {', '.join(parts[:3])}{more}"


def _overview(means: Sequence[GeometricMean], cells: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.means_frame(means)
    if not len(rows) or rows["ratio"].isna().all():
        return []
    rows["status"] = "MEASURED"
    rows["direction"] = rows["direction"].map(_direction)
    drawn = figures.forest(rows, rows.iloc[:0], group="label", margin=MARGIN)
    text = "; ".join(_found(mean) for mean in means)
    title = "Geometric mean of the ratios of time per implementation"
    parts = [{"title": title, "svg": svg(drawn, "overview", title, text)}]
    for direction, name in frame.DIRECTIONS.items():
        contenders = ~cells["is_baseline"] & ~cells["placebo"]
        chosen = cells[(cells["direction"] == direction) & contenders]
        if len(chosen) and chosen["ratio"].notna().any() and chosen["label"].nunique() <= 24:
            title = f"Ratio of time per case, {name}"
            text = "The numbers of this map stand in the table of everything."
            parts.append(
                {
                    "title": title,
                    "svg": svg(figures.ratio_map(chosen), f"map-{direction}", title, text),
                }
            )
    return parts


def _found(mean: GeometricMean) -> str:
    """Return a mean as the words that stand for its mark in the figure."""
    name = f"{mean.variant} / {mean.implementation}, {_direction(mean.direction)}"
    if mean.ratio is None:
        return f"{name}: no ratio"
    low, high = format_ratio(mean.ratio_low), format_ratio(mean.ratio_high)
    ends = f" [{low}, {high}]" if low else ""
    return f"{name}: {format_ratio(mean.ratio)}{ends} {_word(mean.verdict)}"


def _drift(run: LoadedRun) -> Markup | None:
    pace = frame.drift_frame(run.measurements)
    if not len(pace):
        return None
    low, high = pace["relative"].min(), pace["relative"].max()
    text = (
        f"Block by block the time of everything lay between {low:.3f} and {high:.3f} of its median."
    )
    return svg(figures.drift(pace), "drift", "Pace of the machine in time order", text)


def _variant(
    card: VariantCard,
    cells: pd.DataFrame,
    processes: pd.DataFrame,
    laws: pd.DataFrame,
    run: LoadedRun,
) -> dict[str, Any]:
    own = cells[cells["variant"] == card.name] if len(cells) else cells
    rows = own[~own["is_baseline"]] if len(own) else own
    plot = None
    if len(rows) and rows["ratio"].notna().any():
        drawn = rows.assign(
            direction=rows["direction"].map(_direction),
            implementation=rows["implementation"].where(~rows["placebo"], "placebo"),
        )
        dots = processes[processes["variant"] == card.name] if len(processes) else processes
        if len(dots):
            dots = dots.assign(
                direction=dots["direction"].map(_direction),
                implementation=dots["implementation"].where(~dots["placebo"], "placebo"),
            )
        slug = frame.anchor("forest", card.name)
        counts = Counter(drawn["verdict"])
        text = ", ".join(f"{counts[v]} {_word(v)}" for v in Speed)
        title = (
            f"{card.name}: time of every implementation divided by that of the baseline, per case"
        )
        figure = figures.forest(drawn, dots, group="label", margin=MARGIN)
        plot = svg(
            figure, slug, title, f"Of {len(drawn)} rows: {text}. The table below has the numbers."
        )
    return {
        "card": card,
        "plot": plot,
        "rows": _records(own),
        "reason": "" if plot else _no_number(card, own[~own["placebo"]] if len(own) else own),
        "laws": _law_matrix(card, laws, run),
    }


def _law_matrix(card: VariantCard, laws: pd.DataFrame, run: LoadedRun) -> dict[str, Any]:
    own = laws[laws["variant"] == card.name] if len(laws) else laws
    judged = {(row["law"], row["implementation"]): row for row in _records(own)}
    known = {law.id: law for law in run.run.laws}
    order = list(dict.fromkeys([*known, *(law for law, _ in judged)]))
    names = [item.name for item in card.implementations]
    columns = [
        name
        for name in dict.fromkeys([*names, *(name for _, name in judged)])
        if any(name == column for _, column in judged)
    ]
    lines = [
        {
            "id": law,
            "name": next(row["law_name"] for key, row in judged.items() if key[0] == law),
            "statement": known[law].statement if law in known else "",
            "cells": [judged.get((law, column)) for column in columns],
        }
        for law in order
        if any(law == key for key, _ in judged)
    ]
    counts = Counter(row["status"] for row in judged.values())
    cases = {s: sum(r["cases"] for r in judged.values() if r["status"] == s) for s in counts}
    return {
        "columns": columns,
        "lines": lines,
        "counts": [(str(s), counts[s], cases[s]) for s in Outcome if counts[s]],
        "bad": any(counts[s] for s in (Outcome.REFUTED, Outcome.CRASHED)),
    }


def _counterexamples(run: LoadedRun) -> list[dict[str, Any]]:
    statements = {law.id: law.statement for law in run.run.laws}
    shown = {Outcome.REFUTED: 0, Outcome.CRASHED: 1, Outcome.MISTRUSTED: 2}
    rows = sorted((r for r in run.verdicts if r.status in shown), key=lambda r: shown[r.status])
    return [{"row": row, "statement": statements.get(row.law, "")} for row in rows]


def _budget(entry: Mapping[str, Any]) -> dict[str, Any]:
    operators = sorted(
        entry["operators"], key=lambda op: (-op["self_ns"] - op["device_ns"], op["name"])
    )
    total = sum(op["self_ns"] for op in operators)
    return {
        "entry": entry,
        "total_ns": total,
        "on_device": any(op["device_ns"] for op in operators),
        "operators": [
            op | {"share": op["self_ns"] / total if total else 0.0} for op in operators[:20]
        ],
        "left_out": max(0, len(operators) - 20),
    }


def _records(data: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values, with None wherever pandas holds a missing value."""
    records: list[dict[str, Any]] = data.astype(object).where(data.notna(), None).to_dict("records")  # type: ignore[assignment]
    return records


def _embedded(run: LoadedRun, cells: pd.DataFrame) -> Markup:
    """Return the rows as JSON that no name can end, whatever it holds."""
    columns = [name for name in EXPORTED if name in cells]
    rows = [[record[name] for name in columns] for record in _records(cells)]
    text = json.dumps({"run_id": run.run.id, "columns": columns, "rows": rows}, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _expect(value: object, kind: Any, name: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}={value!r} is no {getattr(kind, '__name__', kind)}")


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _direction(name: str) -> str:
    return frame.DIRECTIONS.get(name, name)


def _word(name: str) -> str:
    return name.lower().replace("_", " ")
