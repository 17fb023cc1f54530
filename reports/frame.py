"""Rows of a run as DataFrames: the only place where columns for the page are derived."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.case import CaseError, ConvCase
from harness.comparison import (
    Comparison,
    GeometricMean,
    compare,
    deciding_row,
    median_ns,
    peak_bytes,
)
from harness.results import LoadedRun, Measurement, Outcome, Status, VariantCard, Verdict
from reports.doubt import Doubts
from reports.lines import plugin_options, replay_line, timing_line
from reports.words import no_claim, place_labels

CELL = ("variant", "case", "case_name", "direction", "dtype", "device", "threads", "flags")

# Whole numbers that may be missing.
_COUNTS = (
    "peak_bytes", "saved_bytes", "baseline_peak_bytes",
    "n", "c_in", "c_out", "spatial_dims", "taps", "macs", "useful_flop", "useful_bytes",
    "issued_flop", "issued_bytes",
)  # fmt: skip

# Worst first: one refuted case refutes the law, whatever other rows of the same law say.
_OUTCOMES = (
    Outcome.REFUTED,
    Outcome.CRASHED,
    Outcome.MISTRUSTED,
    Outcome.HOLDS,
    Outcome.UNSUPPORTED,
)


def baselines(loaded: LoadedRun) -> dict[str, str]:
    """Return the baseline of every variant as the catalogue of the run names it."""
    return {card.name: card.baseline for card in loaded.run.catalogue if card.baseline}


def compare_run(loaded: LoadedRun) -> tuple[Comparison, ...]:
    """Compare every implementation of the run with the baseline of its variant."""
    return compare(loaded.measurements, baselines(loaded))


def declared_baseline(card: VariantCard, loaded: LoadedRun) -> str:
    """Return the baseline of a variant: of its card, else whom its placebo repeats, else the first."""
    own = [row for row in loaded.measurements if row.variant == card.name]
    repeated = (row.implementation for row in own if row.placebo)
    return card.baseline or next(repeated, own[0].implementation if own else "")


def grouped(measurements: Iterable[Measurement]) -> dict[tuple[object, ...], list[Measurement]]:
    """Return the rows of every cell and implementation, the last one of every process."""
    groups: dict[tuple[object, ...], dict[int, Measurement]] = {}
    for row in measurements:
        key = (*_cell(row), row.implementation, row.placebo)
        groups.setdefault(key, {})[row.process] = row
    return {key: list(rows.values()) for key, rows in groups.items()}


def row_anchor(row: Measurement | Comparison) -> str:
    """Return the id of the row of a cell and an implementation."""
    return anchor("row", *_cell(row), row.implementation, row.placebo)


def cells_frame(
    loaded: LoadedRun,
    comparisons: Iterable[Comparison],
    doubtful: Doubts | None = None,
    groups: Mapping[tuple[object, ...], list[Measurement]] | None = None,
) -> pd.DataFrame:
    """Return one row per cell and implementation, whatever became of it.

    Columns: the identity of the cell, `status`, `reason`, `proof`; medians, ratios and verdicts of
    the comparison; bytes and operations; the geometry of the case; `ratio_memory`; `replay` and
    `timing` lines; `doubt` and `baseline_doubt`, the outcomes that keep the implementation and its
    baseline from claiming, if any; `no_claim`, the same in words; `anchor`, a stable id of the row.
    """
    plugins = plugin_options(loaded.run.argv)
    compared = {(*_cell(row), row.implementation, row.placebo): row for row in comparisons}
    kinds = {
        (card.name, item.name): item.kind
        for card in loaded.run.catalogue
        for item in card.implementations
    }
    chosen = baselines(loaded) | {row.variant: row.baseline for row in compared.values()}
    labels = case_labels(loaded.measurements)
    records = []
    doubtful = doubtful or {}
    for key, rows in (groups or grouped(loaded.measurements)).items():
        row, comparison = deciding_row(rows), compared.get(key)
        refuted = row.status is Status.REFUTED
        middle = comparison.median_ns if comparison else median_ns(rows)
        doubt = _outcome(doubtful, row.variant, row.implementation)
        spoiled = _outcome(doubtful, row.variant, comparison.baseline) if comparison else ""
        records.append(
            {name: getattr(row, name) for name in CELL}
            | {
                "label": labels[_cell(row)],
                "implementation": row.implementation,
                "kind": kinds.get((row.variant, row.implementation), ""),
                "placebo": row.placebo,
                "baseline": chosen.get(row.variant, ""),
                "is_baseline": comparison is None,
                "status": str(row.status),
                "reason": row.reason,
                "proof": row.proof,
                "median_ns": None if refuted else middle,
                "processes": sum(bool(r.samples_ns) for r in rows),
                "samples": sum(len(r.samples_ns) for r in rows),
                "peak_bytes": peak_bytes(rows),
                "saved_bytes": max(
                    (r.saved_bytes for r in rows if r.saved_bytes is not None), default=None
                ),
            }
            | {name: getattr(row, name) for name in _COUNTS[9:]}
            | _compared_columns(comparison)
            | _geometry(row.case)
            | {
                "replay": replay_line(row) + plugins,
                "timing": timing_line(row) + plugins,
                "doubt": doubt,
                "baseline_doubt": spoiled,
                "no_claim": no_claim(doubt, spoiled),
                "anchor": anchor("row", *key),
            }
        )
    frame = pd.DataFrame.from_records(records, columns=None if records else list(CELL))
    if records:
        frame = frame.astype(dict.fromkeys(_COUNTS, "Int64"))
        frame["ratio_memory"] = _quotient(frame["peak_bytes"], frame["baseline_peak_bytes"])
    return frame


def process_ratios_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return one row per comparison and process: the ratio which that process found."""
    labels = case_labels(comparisons)
    records = [
        {name: getattr(row, name) for name in CELL}
        | {"label": labels[_cell(row)]}
        | {"implementation": row.implementation, "placebo": row.placebo, "process": process}
        | {"ratio": ratio}
        for row in comparisons
        for process, ratio in zip(row.process, row.process_ratios, strict=True)
    ]
    return pd.DataFrame.from_records(records)


def case_labels(rows: Iterable[Measurement | Comparison]) -> dict[tuple[object, ...], str]:
    """Return the shortest name per cell that tells it from the other cells of its variant.

    That is the name of the case, followed by whatever else differs among cells of that name.
    """
    named: dict[tuple[str, str], set[tuple[object, ...]]] = {}
    for row in rows:
        named.setdefault((row.variant, row.case_name), set()).add(_cell(row))
    labels = {}
    for (_, name), cells in named.items():
        places = {
            which: CELL.index(which) for which in ("dtype", "device", "threads", "flags", "case")
        }
        differing = [i for i in places.values() if len({cell[i] for cell in cells}) > 1]
        directions = {cell[CELL.index("direction")] for cell in cells}
        short = [i for i in differing if i != places["case"]]
        if len({tuple(cell[i] for i in short) for cell in cells}) * len(directions) >= len(cells):
            differing = short
        for cell in cells:
            extra = [
                f"{cell[i]} threads" if i == places["threads"] else str(cell[i]) for i in differing
            ]
            labels[cell] = " · ".join([name or str(cell[places["case"]]), *extra])
    return labels


def means_frame(means: Sequence[GeometricMean], doubtful: Doubts) -> pd.DataFrame:
    """Return one row per geometric mean; `label` is the variant and where it ran, if that differs.

    `no_claim` says in words why a mean claims nothing, empty where it may.
    """
    places = place_labels(row.place for row in means)
    return pd.DataFrame.from_records(
        [
            _record(row)
            | {"label": " · ".join(filter(None, (row.variant, places[row.place])))}
            | {"no_claim": unclaimed(row, doubtful)}
            for row in means
        ]
    )


def unclaimed(mean: GeometricMean, doubtful: Doubts) -> str:
    """Return in words why a mean claims nothing, empty where it may."""
    own, base = (
        _outcome(doubtful, mean.variant, name) for name in (mean.implementation, mean.baseline)
    )
    return no_claim(own, base)


def laws_frame(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """Return one row per law, variant and implementation: the worst outcome and the cases run."""
    groups: dict[tuple[str, str, str], list[Verdict]] = {}
    for row in verdicts:
        groups.setdefault((row.variant, row.law, row.implementation), []).append(row)
    records = []
    for rows in groups.values():
        worst = min(rows, key=lambda row: _OUTCOMES.index(row.status))
        records.append(_record(worst) | {"cases": sum(row.cases for row in rows)})
    return pd.DataFrame.from_records(records)


def anchor(kind: str, *parts: object) -> str:
    """Return an id for a link: stable between runs, safe whatever `parts` hold."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return f"{kind}-{hashlib.sha256(text).hexdigest()[:10]}"


def _outcome(doubtful: Doubts, variant: str, implementation: str) -> str:
    doubt = doubtful.get((variant, implementation))
    return str(doubt.outcome) if doubt else ""


def _cell(row: Measurement | Comparison) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in CELL)


def _compared_columns(row: Comparison | None) -> dict[str, object]:
    names = (
        "ratio", "ratio_low", "ratio_high", "p_value", "p_adjusted", "verdict", "why",
        "baseline_median_ns", "baseline_peak_bytes",
    )  # fmt: skip
    values = {name: getattr(row, name) if row else None for name in names}
    return values | {"verdict": str(row.verdict) if row else "", "why": row.why if row else ""}


def _geometry(line: str) -> dict[str, object]:
    """Return the columns of a case; empty ones where another version wrote it differently."""
    try:
        case = ConvCase.parse(line)
    except CaseError:
        return dict.fromkeys(_COUNTS[3:9], math.nan)
    return {
        "n": case.n,
        "c_in": case.c_in,
        "c_out": case.c_out,
        "spatial_dims": case.spatial_dims,
        "taps": case.taps,
        "macs": case.macs,
    }


def _record(row: GeometricMean | Verdict) -> dict[str, object]:
    record = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    key = "verdict" if isinstance(row, GeometricMean) else "status"
    return record | {key: str(record[key])}


def _quotient(above: pd.Series, below: pd.Series) -> pd.Series:
    upper, lower = (pd.to_numeric(side).astype("Float64").astype(float) for side in (above, below))
    return upper / lower.where(lower > 0)


def records(data: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values, with None wherever pandas holds a missing value."""
    columns = [
        [None if missing else value for value, missing in zip(column.tolist(), gaps, strict=True)]
        for column, gaps in ((c, c.isna().tolist()) for c in (data[name] for name in data.columns))
    ]
    names = [str(name) for name in data.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
