"""A run against an earlier one: the old commit timed again beside the present checkout.

Times of two runs are never compared: between two runs of the same code they differ by up to half.
Where the old commit is at hand it is taken out of git into a folder of its own and timed again,
block by block beside this checkout; where it is not, the ratios of both runs are shown as history,
which decides nothing. A cell is a regression when it is slower by more than the margin, the whole
interval beyond it, and is so again in fresh processes.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from harness import clock
from harness.comparison import MARGIN, Comparison, Speed, compare
from harness.conclusion import HISTORY
from harness.contest import Rules
from harness.duel import NO_TIME, Lost, Row, fight
from harness.evidence import Cell as Entry
from harness.evidence import Evidence, Made
from harness.plan import Cell
from harness.proving import plugins_of
from harness.results import LoadedRun, Measurement, ResultsError, Run, Status, load_run
from harness.table import Table

ROOT = Path(__file__).resolve().parent.parent
SHARE = 0.4
"""Which share of a budget the comparison with an earlier run gets."""
FIRST_LOOK = 0.7
"""Which share of that is the first look's; the second is at few cells."""
REGRESSION, ONCE = "REGRESSION", "SLOWER once, not again"
SHAKY = "UNRESOLVED: the placebo differs, too"


class Finding(NamedTuple):
    """A cell against its earlier self, a verdict, and the second look where there was one."""

    row: Row
    verdict: str
    again: Comparison | None = None


Fight = Callable[..., list[Row]]
Key = tuple[str, str, str, str]


def load_past(word: str, out: Path) -> LoadedRun:
    """Read an earlier run, given by its folder, or by its id among the results of `out`.

    Raises:
        ResultsError: there is none, or it cannot be read.
    """
    folder = Path(word) if Path(word).exists() else out / word
    if not (folder / "run.json").is_file():
        raise ResultsError(
            f"--against {word}: expected the folder of an earlier run or its id in {out}: "
            f"there is no {folder / 'run.json'}"
        )
    return load_run(folder)


def why_not_again(run: Run, root: Path = ROOT) -> str:
    """Return why the code of an earlier run cannot be timed again here; empty where it can."""
    if run.dirty:
        return f"run {run.id} was of a checkout with uncommitted changes"
    if _git(root, "cat-file", "-e", f"{run.commit}^{{commit}}") is None:
        return f"commit {run.commit} of run {run.id} is not in the repository at {root}"
    return ""


@contextlib.contextmanager
def taken_out(commit: str, root: Path = ROOT) -> Iterator[Path]:
    """Give the files of `commit` in a folder of their own, while this lasts.

    Raises:
        ResultsError: git does not give them.
    """
    # an archive, not a worktree: nothing is written into the repository
    archive = _git(root, "archive", "--format=tar", commit)
    if archive is None:
        raise ResultsError(f"{root}: git gives no archive of {commit}")
    with tempfile.TemporaryDirectory(prefix="convharness-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            # our own files; Python 3.11 knows filters from its fourth release on
            safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            files.extractall(folder, **safely)
        yield Path(folder)


def shared_cells(past: LoadedRun, present: LoadedRun) -> list[Cell]:
    """Return the cells that both runs have measured, on the same device and with as many threads."""
    if (past.run.device, past.run.threads) != (present.run.device, present.run.threads):
        return []
    known = _measured(past)
    return [cell for key, cell in _measured(present).items() if key in known]


def rerun(
    table: Table, past: LoadedRun, cells: Sequence[Cell], deadline_s: float | None = None, *,
    root: Path = ROOT, rules: Rules, fighting: Fight = fight, plugins: Sequence[str] = (),
) -> list[Finding]:  # fmt: skip
    """Time the code of an earlier run again beside this checkout; look twice where it is slower.

    Who comes from one of the `plugins` is timed in processes of its own; where a side cannot load
    it, its rows say so.

    Raises:
        Lost: the earlier code does not run.
        ResultsError: git does not give it.
    """
    with taken_out(past.run.commit, root) as then:

        def timed(some: Sequence[Cell], seed: int, end_s: float | None) -> list[Row]:
            found: dict[Cell, Row] = {}
            groups: dict[tuple[str, ...], list[Cell]] = {}
            for cell in some:
                groups.setdefault(plugins_of(table, plugins, cell), []).append(cell)
            for words, own in sorted(groups.items()):
                moment = clock.monotonic_s()
                share = len(own) / (len(some) - len(found))
                try:
                    rows = fighting(
                        table, own, then, root, rules, device=past.run.device, seed=seed,
                        deadline_s=None if end_s is None else moment + share * (end_s - moment),
                        plugins=words,
                    )  # fmt: skip
                except Lost as error:
                    if not words:
                        raise
                    rows = [Row(cell, None, None, f"left out: {error}") for cell in own]
                found |= {row.cell: row for row in rows}
            return [found[cell] for cell in some]

        now, seed = clock.monotonic_s(), past.run.seed
        end_s = None if deadline_s is None else now + FIRST_LOOK * (deadline_s - now)
        first = timed(cells, seed, end_s)
        doubtful = [row.cell for row in first if is_slower(row)]
        again = timed(doubtful, seed + 1, deadline_s) if doubtful else []
        second = {row.cell: row for row in again}
    return [_finding(row, second.get(row.cell)) for row in first]


def is_slower(row: Row, margin: float = MARGIN) -> bool:
    """Return whether a whole interval is beyond the margin, and the placebo's is not."""
    return _beyond(row.now, margin) and not _beyond(row.placebo, margin)


def _beyond(found: Comparison | None, margin: float) -> bool:
    return found is not None and found.ratio_low is not None and found.ratio_low > 1 + margin


def _finding(row: Row, again: Row | None) -> Finding:
    if row.now is None:
        return Finding(row, row.reason)
    if again is None:
        shaky = row.placebo is not None and row.placebo.verdict in (Speed.FASTER, Speed.SLOWER)
        differs = row.now.verdict in (Speed.FASTER, Speed.SLOWER)
        return Finding(row, SHAKY if shaky and differs else row.now.verdict.value)
    if again.now is None:
        return Finding(row, f"SLOWER once; a second look failed: {again.reason}")
    return Finding(row, REGRESSION if is_slower(again) else ONCE, again.now)


# -- the end of `bench --against` --------------------------------------------------------------


def against(
    table: Table, past: LoadedRun, folder: Path, deadline_s: float | None,
    say: Callable[[str], None], *, root: Path = ROOT, fighting: Fight = fight,
) -> int:  # fmt: skip
    """Compare the run in `folder` with an earlier one; keep the table with it; 1 = a regression."""
    present, started = load_run(folder), clock.utc_now()
    rules = Rules(present.run.processes, present.run.blocks, present.run.threads)
    cells, reason = shared_cells(past, present), why_not_again(past.run, root)
    if not cells:
        reason = (
            f"run {past.run.id} measured no cell of this run on {present.run.device} with "
            f"{_threads(present.run.threads)}"
        )
    findings: list[Finding] = []
    if not reason:
        try:
            findings = rerun(
                table, past, cells, deadline_s, root=root, rules=rules, fighting=fighting,
                plugins=json.loads(present.run.settings.get("plugins", "[]")),
            )  # fmt: skip
        except Lost as error:
            reason = f"no comparison with run {past.run.id}: {error}"
    if reason:
        evidence = _as_history(past, present, cells, reason, started)
        say(f"history only: {reason}")
    else:
        evidence = _as_duel(past, findings, rules, present, started)
    for line in evidence.rows:
        say(" ".join(map(str, line)))
    evidence.save(folder / "evidence")
    found = [one for one in findings if one.verdict == REGRESSION]
    if not reason:
        late = sum(one.verdict == NO_TIME for one in findings)
        lost = sum(one.row.now is None for one in findings) - late
        said = f"; no time was left for {late}: raise --budget-s" * (late > 0)
        said += f"; {lost} could not be compared" * (lost > 0)
        if new := len(_measured(present)) - len(cells):
            said += f"; {new} cells of this run are not in that one"
        say(f"against {past.run.id}: {len(found)} regressions in {len(cells)} cells{said}")
    return int(bool(found))


def _as_duel(
    past: LoadedRun,
    findings: Sequence[Finding],
    rules: Rules,
    present: LoadedRun,
    started: datetime,
) -> Evidence:
    return Evidence(
        name=HISTORY,
        title=f"Against the run {past.run.id}",
        about=(
            f"Time of this checkout over that of commit {past.run.commit[:12]}, which was timed "
            f"again beside it: {rules.processes} sets of fresh processes, {rules.blocks} blocks "
            f"each in random order, {_threads(rules.threads)}. Placebo: a second process of the "
            f"old commit over the first. {REGRESSION}: the whole interval beyond {MARGIN:.0%}, in "
            "two runs."
        ),
        made=_made(present, started),
        columns=("variant", "implementation", "case", "direction", "ratio", "placebo", "verdict",
                 "second run"),
        rows=tuple(
            (
                *_words(one.row.cell), _interval(one.row.now), _interval(one.row.placebo),
                one.verdict, _interval(one.again),
            )
            for one in findings
        ),
    )  # fmt: skip


def _as_history(
    past: LoadedRun, present: LoadedRun, cells: Sequence[Cell], reason: str, started: datetime
) -> Evidence:
    then, now = _ratios(past), _ratios(present)
    rows: list[tuple[Entry, ...]] = [
        (*_words(cell), _interval(then.get(_key(cell))), _interval(now.get(_key(cell))))
        for cell in cells
        if _key(cell) in now
    ]
    return Evidence(
        name=HISTORY,
        title=f"The run {past.run.id}, as history only",
        about=(
            f"It could not be timed again: {reason}. Ratios to the baseline as either run found "
            "them; two runs differ by more than code, so that nothing follows from a difference."
        ),
        made=_made(present, started),
        columns=("variant", "implementation", "case", "direction", "ratio then", "ratio now"),
        rows=tuple(rows),
    )


def _made(present: LoadedRun, started: datetime) -> Made:
    return Made.here(shlex.join(present.run.argv) or "python3 -m harness bench", started)


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}"


def _ratios(run: LoadedRun) -> dict[Key, Comparison]:
    baselines = {card.name: card.baseline for card in run.run.catalogue}
    rows = [row for row in run.measurements if row.threads == run.run.threads]
    # rows of one cell under several flags: the first of them
    found = reversed([row for row in compare(rows, baselines) if not row.placebo])
    return {_key(row): row for row in found}


def _words(cell: Cell) -> tuple[str, str, str, str]:
    return cell.variant, cell.implementation, cell.case_name or cell.case, cell.direction


def _interval(row: Comparison | None) -> str:
    if row is None or row.ratio is None:
        return ""
    if row.ratio_low is None or row.ratio_high is None:
        return f"{row.ratio:.3f}"
    return f"{row.ratio:.3f} [{row.ratio_low:.3f}, {row.ratio_high:.3f}]"


def _measured(run: LoadedRun) -> dict[Key, Cell]:
    return {
        _key(row): Cell(row.variant, row.implementation, row.case, row.case_name, row.direction)
        for row in run.measurements
        if row.status is Status.MEASURED and not row.placebo and row.threads == run.run.threads
    }


def _key(one: Cell | Measurement | Comparison) -> Key:
    return one.variant, one.implementation, one.case, one.direction


def _git(root: Path, *arguments: str) -> bytes | None:
    """Return what git says, None where it fails or is not there."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, check=False, timeout=60
        )
        return done.stdout if done.returncode == 0 else None
    return None
