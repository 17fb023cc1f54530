"""The page: sections of a run rendered into one HTML file that needs nothing else."""

from __future__ import annotations

import contextlib
import gc
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from harness.comparison import (
    MARGIN,
    GeometricMean,
    Speed,
    summarize_placebo,
)
from harness.evidence import Evidence, load_evidence
from harness.results import LoadedRun, VariantCard, load_run
from reports import correctness, figures, frame, heat, ledger, relations, words
from reports.advice import case_by_case, knowledge
from reports.bounds import bounded
from reports.budget import Profile, budgets, read_profile
from reports.conditions import blocks_frame, curves, proofs, traces
from reports.doubt import Doubts
from reports.facts import Facts
from reports.headlines import headline, no_number
from reports.look import style
from reports.payload import packed
from reports.pictures import picture
from reports.rendering import environment
from reports.rivals import choices, rivals
from reports.summary import embedded, summary
from reports.vector import svg
from reports.work import work

# Columns of the downloads, in order; everything else can be derived from them.
EXPORTED = (
    "variant", "implementation", "kind", "placebo", "is_baseline", "case_name", "case", "direction",
    "dtype", "device", "threads", "flags", "status", "reason", "median_ns", "baseline",
    "baseline_median_ns", "ratio", "ratio_low", "ratio_high", "p_value", "p_adjusted", "verdict",
    "processes", "samples", "outliers", "peak_bytes", "saved_bytes", "ratio_memory", "macs", "doubt",
    "baseline_doubt", "proof", "replay", "timing", "label", "anchor",
)  # fmt: skip
MOST_CASES = 40
"""Columns of a heat map beyond which it cannot be read."""


def write_page(run_folder: Path, target: Path) -> Path:
    """Write the page of the run in `run_folder` to the file `target` and return its path.

    Raises:
        ResultsError: the folder cannot be read.
    """
    with _uncollected(), style():
        evidence = load_evidence(Path(run_folder) / "evidence")
        text = render(load_run(run_folder), read_profile(run_folder), evidence)
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return target


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Leave garbage for a moment: figures are all cycles, and looking for them takes a quarter."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def render(
    run: LoadedRun,
    profile: Profile = "This run was not profiled.",
    evidence: Sequence[Evidence] = (),
) -> str:
    """Return the page as HTML; the same rows give the same bytes."""
    run, evidence = bounded(run), bounded(tuple(evidence))
    facts = Facts.of(run)
    made = environment()
    strip = made.get_template("strip.html").module
    lines = relations.relations(facts.cards, run)
    errors = correctness.errors(run, facts.means, facts.doubtful)
    rates = ledger.rates(facts.cells)
    blocks = blocks_frame(run.measurements)
    pictures = {table.name: picture(table) for table in evidence}
    return made.get_template("page.html").render(
        run=run.run,
        command=shlex.join(run.run.argv),
        damage=run.damage,
        threads=facts.threads,
        by_process=_by_process(run.run.settings),
        placebo=summarize_placebo(facts.comparisons),
        headlines=[
            headline(card, facts.means, facts.cells, facts.doubtful, facts.places)
            for card in facts.cards
        ],
        knowledge={card.name: knowledge(card, facts.cells, facts.laws) for card in facts.cards},
        case_by_case={card.name: case_by_case(card, facts.cells) for card in facts.cards},
        directions=list(words.DIRECTIONS.values()),
        choices={
            card.name: choices(card, run.measurements, frame.declared_baseline(card, run))
            for card in facts.cards
        },
        overview=_overview(facts),
        maps=_maps(facts),
        traces=traces(blocks),
        curves=curves(blocks),
        proofs=proofs(run),
        variants=[_variant(card, facts) for card in facts.cards],
        cases_run=sum(row.cases for row in run.verdicts),
        counterexamples=correctness.counterexamples(run),
        relations=lines,
        relation_plot=_relation_plot(lines),
        errors=errors,
        error_plots=_error_plots(errors),
        ledger=ledger.ledger(facts.cells),
        rate_plot=_rate_plot(rates, run),
        roof=_roof(rates, run),
        work=work(run, facts.doubtful),
        evidence=sorted(evidence, key=lambda table: not pictures[table.name]),
        pictures=pictures,
        tallies={table.name: _tally(table) for table in evidence},
        profile=profile if isinstance(profile, str) else "",
        budgets=budgets(profile),
        rows=frame.records(facts.cells),
        data=packed(_payload(facts, lambda item: str(strip.said(item)))),  # type: ignore[attr-defined]
        summary=embedded(summary(run, len(facts.cells), facts.means, facts.doubtful)),
    )


def _tally(table: Evidence) -> list[tuple[str, int]]:
    """Return how often every verdict of a table stands in it, where it has such a column."""
    if "verdict" not in table.columns:
        return []
    place = table.columns.index("verdict")
    kinds = Counter(words.word(str(row[place]).partition(":")[0]) for row in table.rows)
    return sorted(kinds.items())


def _by_process(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the settings that tell about one process each, in the order of their numbers."""
    own = [pair for pair in settings.items() if pair[0].startswith("process ")]
    return sorted(own, key=lambda pair: (len(pair[0]), pair[0]))


def _overview(facts: Facts) -> Markup | None:
    rows = frame.means_frame(facts.means, facts.doubtful)
    if not len(rows) or rows["ratio"].isna().all():
        return None
    rows["status"] = "MEASURED"
    rows["direction"] = rows["direction"].map(words.direction)
    drawn = figures.forest(rows, rows.iloc[:0], group="label", margin=MARGIN)
    text = "; ".join(_found(mean, facts.doubtful) for mean in facts.means)
    title = "Geometric mean of the ratios of time per implementation"
    return svg(drawn, "overview", title, text)


def _maps(facts: Facts) -> list[dict[str, Any]]:
    cells, parts = facts.cells, []
    if not len(cells):
        return []
    for direction, name in words.DIRECTIONS.items():
        contenders = ~cells["is_baseline"] & ~cells["placebo"]
        chosen = cells[(cells["direction"] == direction) & contenders]
        if not len(chosen) or chosen["ratio"].isna().all():
            continue
        title, plot = f"Ratio of time per case, {name}", None
        if chosen["label"].nunique() <= MOST_CASES:
            text = "The numbers of this map stand in the table of everything."
            plot = svg(heat.ratio_map(chosen), f"map-{direction}", title, text)
        parts.append({"title": title, "svg": plot, "cases": chosen["label"].nunique()})
    return parts


def _found(mean: GeometricMean, doubtful: Doubts) -> str:
    """Return a mean as the words that stand for its mark in the figure."""
    name = f"{mean.variant} / {mean.implementation}, {words.direction(mean.direction)}"
    if mean.ratio is None:
        return f"{name}: no ratio"
    low, high = words.format_ratio(mean.ratio_low), words.format_ratio(mean.ratio_high)
    ends = f" [{low}, {high}]" if low else ""
    spoiled = frame.unclaimed(mean, doubtful)
    said = f"no claim, {spoiled}" if spoiled else words.word(mean.verdict)
    return f"{name}: {words.format_ratio(mean.ratio)}{ends} {said}"


def _relation_plot(lines: Sequence[dict[str, Any]]) -> Markup | None:
    if not lines:
        return None
    pairs = Counter(f"{row['variant']} and {row['other']}" for row in lines)
    text = "; ".join(f"{pair}: {count} laws" for pair, count in pairs.items())
    title = "Which laws relate which variants"
    return svg(relations.relation_figure(lines), "relations", title, text)


def _error_plots(rows: Sequence[dict[str, Any]]) -> list[Markup]:
    plots = []
    for dtype in ("float32",):
        figure = correctness.error_figure(rows, dtype)
        if figure:
            title = f"Largest error over its bound against the ratio of time, {dtype}"
            text = "The table below has the numbers of every dot."
            plots.append(svg(figure, f"error-{dtype}", title, text))
    return plots


def _roof(rates: pd.DataFrame, run: LoadedRun) -> tuple[float, float] | None:
    dtypes = set(rates["dtype"]) if len(rates) else set()
    threads = set(rates["threads"]) if len(rates) else set()
    alone = len(dtypes) == 1 and threads == {run.run.threads}
    return ledger.roofs(run.run.ceilings, dtypes.pop()) if alone else None


def _rate_plot(rates: pd.DataFrame, run: LoadedRun) -> Markup | None:
    if not len(rates):
        return None
    best = rates["rate"].max()
    text = f"{len(rates)} rows; the fastest performs {best:.3g} useful operations a nanosecond."
    return svg(
        ledger.rate_figure(rates, _roof(rates, run)),
        "rates",
        "Rate against operations per byte, forward",
        text,
    )


def _variant(card: VariantCard, facts: Facts) -> dict[str, Any]:
    cells, processes = facts.cells, facts.processes
    own = cells[cells["variant"] == card.name] if len(cells) else cells
    rows = own[~own["is_baseline"]] if len(own) else own
    plot = None
    if len(rows) and rows["ratio"].notna().any():
        dots = processes[processes["variant"] == card.name] if len(processes) else processes
        rows, dots = _with_words(rows), _with_words(dots) if len(dots) else dots
        slug = frame.anchor("forest", card.name)
        counts = Counter(rows["verdict"].where(rows["no_claim"] == "", ""))
        said = ", ".join(f"{counts[v]} {words.word(v)}" for v in Speed)
        if spoiled := int((rows["no_claim"] != "").sum()):
            said += f", {spoiled} without a claim"
        title = (
            f"{card.name}: time of every implementation divided by that of the baseline, per case"
        )
        figure = figures.forest(rows, dots, group="label", margin=MARGIN)
        text = f"Of {len(rows)} rows: {said}. The table of everything has the numbers."
        plot = svg(figure, slug, title, text)
    return {
        "card": card,
        "plot": plot,
        "rows": len(own),
        "first": own["anchor"].iloc[0] if len(own) else "",
        "reason": "" if plot else no_number(card, own[~own["placebo"]] if len(own) else own),
        "laws": correctness.law_matrix(card, facts.laws, facts.run),
        "doubts": {
            name: doubt for (variant, name), doubt in facts.doubtful.items() if variant == card.name
        },
    }


def _with_words(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        direction=rows["direction"].map(words.direction),
        implementation=rows["implementation"].where(~rows["placebo"], "placebo"),
    )


def _payload(facts: Facts, render_strip: Any) -> dict[str, Any]:
    """Return what the scripts of the page work on."""
    run = facts.run
    columns = [name for name in EXPORTED if name in facts.cells]
    return {
        "run_id": run.run.id,
        "margin": MARGIN,
        "columns": columns,
        "rows": [[record[name] for name in columns] for record in frame.records(facts.cells)],
        "samples": {name: found for name, found in facts.samples.items() if found},
        "processes": {
            frame.row_anchor(row): [float(f"{ratio:.6g}") for ratio in row.process_ratios]
            for row in facts.comparisons
        },
        "means": [
            [mean.variant, mean.implementation, mean.direction, facts.places[mean.place],
             mean.ratio, mean.ratio_low, mean.ratio_high, mean.p_adjusted, str(mean.verdict)]
            for mean in facts.means
        ],
        "baselines": {mean.variant: mean.baseline for mean in facts.means},
        "doubts": [[*key, str(doubt.outcome)] for key, doubt in facts.doubtful.items()],
        "rivals": {
            card.name: rivals(card, run, facts.cells, facts.doubtful, facts.places, render_strip)
            for card in facts.cards
        },
    }  # fmt: skip
