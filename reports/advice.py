"""What to use, what was checked and what is not known: a variant in sentences, and case by case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.comparison import Speed
from harness.results import FAILED, Outcome, VariantCard
from reports import frame, words

_SHOWN = (
    "label", "direction", "implementation", "ratio", "ratio_low", "ratio_high", "verdict",
    "baseline_median_ns", "anchor",
)  # fmt: skip


def use(entries: Sequence[Mapping[str, Any]], ways: int) -> list[dict[str, Any]]:
    """Return whom to use for what: an implementation that is faster for sure, else the baseline.

    Each has `name`, `is_baseline`, and `where`, the directions and places, empty where it is all.

    Args:
        entries: The lines of the verdict strip, best implementation per direction and place.
        ways: How many directions and places there are: an answer for fewer names them.
    """
    chosen: dict[tuple[str, bool], list[str]] = {}
    for entry in entries:
        mean = entry["mean"]
        faster = entry["verdict"] is Speed.FASTER
        name = mean.implementation if faster else mean.baseline
        where = ", ".join(filter(None, (words.direction(mean.direction), entry["place"])))
        chosen.setdefault((name, not faster), []).append(where)
    alone = len(chosen) == 1 and len(entries) == ways
    return [
        {"name": name, "is_baseline": is_baseline, "where": "" if alone else " and ".join(places)}
        for (name, is_baseline), places in chosen.items()
    ]


def knowledge(card: VariantCard, cells: pd.DataFrame, laws: pd.DataFrame) -> dict[str, list[str]]:
    """Return what was `checked` of a variant in this run, and what is `unknown`, as sentences."""
    own = cells[(cells["variant"] == card.name) & ~cells["placebo"]] if len(cells) else cells
    timed = own[own["samples"] > 0] if len(own) else own
    proved = len(timed[(timed["proof"] != "") & ~timed["status"].isin(FAILED)]) if len(timed) else 0
    judged = laws[laws["variant"] == card.name] if len(laws) else laws
    counts = Counter(judged["status"]) if len(judged) else Counter[str]()
    checked: list[str] = []
    unknown = [] if len(judged) else ["no law was judged in this run"]
    if len(timed):
        checked.append(
            f"{proved} of {len(timed)} timed results, gradients too where they were timed, agree "
            "with the oracle on exactly their cases"
        )
    if holds := counts[Outcome.HOLDS]:
        holding = judged[judged["status"] == Outcome.HOLDS]
        failing = judged[judged["status"].isin((Outcome.REFUTED, Outcome.CRASHED))]
        laws_that_hold = set(holding["law"]) - set(failing["law"])
        checked.append(
            f"{len(laws_that_hold)} laws hold wherever they were judged, "
            f"{holds} pairs of law and implementation in {int(holding['cases'].sum()):,} cases"
        )
    for bad in (Outcome.REFUTED, Outcome.CRASHED, Outcome.MISTRUSTED):
        if counts[bad]:
            checked.append(f"{counts[bad]} {words.word(bad)}, law by implementation")
    if len(own):
        unsure = own[(own["verdict"] == Speed.UNRESOLVED) & own["ratio"].notna()]
        if len(unsure):
            unknown.append(
                f"not resolved: {len(unsure)} of {int(own['ratio'].notna().sum())} ratios"
            )
        left = own[own["samples"] == 0]
        for (name, status), rows in left.groupby(["implementation", "status"], sort=False):
            reasons = rows["reason"].value_counts()
            why = f" ({reasons.index[0]})" if len(reasons) and reasons.index[0] else ""
            times = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
            unknown.append(f"{name}: {words.word(str(status))} in {times}{why}")
    timed_names = set(own["implementation"]) if len(own) else set()
    unknown += [
        f"{item.name} is not available: {item.reason}"
        for item in card.implementations
        if item.reason and item.name not in timed_names
    ]
    return {"checked": checked, "unknown": unknown}


def case_by_case(card: VariantCard, cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Return per case and direction the fastest implementation that may claim, beside the baseline.

    Each line has `label`, the directions in `cells`, and per direction the `row` of the table of
    everything, None where there is no ratio.
    """
    if not len(cells):
        return []
    own = cells[
        (cells["variant"] == card.name) & ~cells["placebo"] & ~cells["is_baseline"]
        & (cells["no_claim"] == "") & cells["ratio"].notna()
    ]  # fmt: skip
    oracles = {item.name for item in card.implementations if item.kind == "oracle"}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in frame.records(own[list(_SHOWN)]):
        line = found.setdefault(row["label"], {})
        best = line.get(row["direction"])
        better = best is None or _rank(row) < _rank(best)
        if better and row["implementation"] not in oracles:
            line[row["direction"]] = row
    return [
        {"label": label, "cells": [line.get(direction) for direction in words.DIRECTIONS]}
        for label, line in found.items()
        if line
    ]


def _rank(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Return what orders rows: who is faster for sure comes before who may be."""
    return row["verdict"] != Speed.FASTER, row["ratio"]
