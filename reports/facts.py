"""What every section of the page draws from, derived once from the rows of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.comparison import Comparison, GeometricMean, summarize
from harness.results import LoadedRun, VariantCard
from reports import frame
from reports.doubt import Doubts, doubts
from reports.headlines import Places
from reports.samples import outliers, series
from reports.words import place_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The rows of a run, and what is derived from them."""

    run: LoadedRun
    cards: list[VariantCard]
    comparisons: tuple[Comparison, ...]
    means: tuple[GeometricMean, ...]
    places: Places
    doubtful: Doubts
    cells: pd.DataFrame
    processes: pd.DataFrame
    laws: pd.DataFrame
    samples: Mapping[str, list[Any]]

    @property
    def threads(self) -> list[int]:
        """The numbers of threads of the rows; without rows that which was asked for."""
        return sorted({row.threads for row in self.run.measurements} or {self.run.run.threads})

    @classmethod
    def of(cls, run: LoadedRun) -> Facts:
        """Derive everything from the rows of `run`."""
        comparisons, cards = frame.compare_run(run), _cards(run)
        means, doubtful = summarize(comparisons), doubts(run)
        groups = frame.grouped(run.measurements)
        samples = {frame.row_anchor(rows[0]): series(rows) for rows in groups.values()}
        cells = frame.cells_frame(run, comparisons, doubtful, groups)
        if len(cells):
            counts = [outliers(samples[name]) for name in cells["anchor"]]
            cells = _sorted(cells.assign(outliers=counts), cards)
        return cls(
            run=run, cards=cards, comparisons=comparisons, means=means,
            places=place_labels(mean.place for mean in means), doubtful=doubtful, cells=cells,
            processes=frame.process_ratios_frame(comparisons),
            laws=frame.laws_frame(run.verdicts), samples=samples,
        )  # fmt: skip


def _cards(run: LoadedRun) -> list[VariantCard]:
    """Return the variants of the catalogue, then those that only rows know."""
    cards = {card.name: card for card in run.run.catalogue}
    for name in [*(r.variant for r in run.measurements), *(r.variant for r in run.verdicts)]:
        if name not in cards:
            cards[name] = VariantCard(
                name=name, equation="", source="", traits=(), baseline="", implementations=()
            )
    return list(cards.values())


def _sorted(cells: pd.DataFrame, cards: Sequence[VariantCard]) -> pd.DataFrame:
    """Return the rows variant by variant, those that were never tried last."""
    order = {card.name: number for number, card in enumerate(cards)}
    keys = pd.DataFrame({
        "variant": cells["variant"].map(order), "left": cells["status"].isin(["NOT_SELECTED", "UNSUPPORTED", "NO_TIME"]),
    })  # fmt: skip
    return cells.loc[keys.sort_values(["variant", "left"], kind="stable").index].reset_index(
        drop=True
    )
