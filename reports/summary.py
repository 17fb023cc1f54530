"""What a page tells the index of all pages: short, typed, read back with suspicion."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from harness.comparison import GeometricMean
from harness.results import LoadedRun, ResultsError, read_record
from reports.bounds import bounded
from reports.doubt import Doubts
from reports.frame import unclaimed
from reports.payload import plain
from reports.words import Place

_EMBEDDED = re.compile(r'<script type="application/json" id="summary">(.*?)</script>', re.DOTALL)
_LARGEST = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The ratio of one implementation over its cells; one that may not claim has none."""

    variant: str
    implementation: str
    direction: str
    device: str
    threads: int
    baseline: str
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    verdict: str
    doubt: str = ""
    flags: str = ""

    @property
    def place(self) -> Place:
        """Where and how it ran."""
        return self.device, self.threads, self.flags

    @property
    def key(self) -> tuple[str, str, str, str, int, str, str]:
        """What makes means of two runs comparable, the machine apart."""
        return (
            self.variant, self.implementation, self.direction, *self.place, self.baseline,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run as the index shows it."""

    id: str
    started: str
    commit: str
    dirty: bool
    device: str
    threads: int
    machine: str
    rows: int
    processes: int
    cases: int
    outcomes: Mapping[str, int]
    means: tuple[Mean, ...]


def summary(run: LoadedRun, rows: int, means: Sequence[GeometricMean], doubtful: Doubts) -> Summary:
    """Return the summary of a run; `rows` is how many its page shows."""
    told = []
    for mean in means:
        doubt = unclaimed(mean, doubtful)
        told.append(
            Mean(
                variant=mean.variant, implementation=mean.implementation, direction=mean.direction,
                device=mean.device, threads=mean.threads, flags=mean.flags, baseline=mean.baseline,
                ratio=None if doubt else mean.ratio,
                ratio_low=None if doubt else mean.ratio_low,
                ratio_high=None if doubt else mean.ratio_high,
                verdict="" if doubt else str(mean.verdict),
                doubt=doubt,
            )
        )  # fmt: skip
    on_gpu = run.run.device.startswith("cuda")
    return Summary(
        id=run.run.id, started=run.run.started, commit=run.run.commit, dirty=bool(run.run.dirty),
        device=run.run.device, threads=run.run.threads,
        machine=run.run.machine.gpu if on_gpu else run.run.machine.processor,
        rows=rows, processes=run.run.processes, cases=sum(row.cases for row in run.verdicts),
        outcomes=dict(Counter(str(row.status) for row in run.verdicts)), means=tuple(told),
    )  # fmt: skip


def embedded(told: Summary) -> Markup:
    """Return a summary as the text of a script element that is data."""
    return plain(dataclasses.asdict(told))


def read_summary(page: Path) -> Summary | str:
    """Return the summary that a page carries, or the sentence that says why there is none."""
    try:
        if page.stat().st_size > _LARGEST:
            return "is too large to be one of our pages"
        found = _EMBEDDED.search(page.read_text(encoding="utf-8"))
        if found is None:
            return "carries no summary: written by an older version, or not by us"
        return bounded(read_record(Summary, json.loads(found[1]), page.name))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError, ResultsError) as error:
        return f"carries a damaged summary: {str(error)[:300]}"
