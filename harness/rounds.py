"""Rounds of timing processes: what they say, and who ended one.

Processes come in rounds: every cell has its first process before any has its second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness import clock
from harness.contender import Sampled
from harness.isolation import End, Job, Pool, Report
from harness.plan import Cell, GroupKey
from harness.processors import environment_for
from harness.proof import Proof
from harness.results import Status
from harness.sampling import Ending, Fingerprints, Group, Setting

HANG_S = 30.0
STATUSES = {End.TIMED_OUT: Status.TIMED_OUT, End.OUT_OF_MEMORY: Status.OUT_OF_MEMORY}
"""What the end of a process is in a row; any other is a crash."""


def sample_process(
    setting: Setting, groups: Sequence[Group], scratch: Path, deadline_s: float | None
) -> Iterator[list[Sampled] | Ending]:
    """Time groups in one fresh process; yield the rows of each, at last how it ended.

    A contender that ends or hangs the process is left out, and the rest of its group is timed again
    in a new process, as are the groups after it.
    """
    waiting = list(groups)
    while waiting:
        units: list[Group | Fingerprints] = [*waiting, _fingerprints(setting, waiting)]
        job = Job(
            session="harness.sampling:timing_session",
            common=setting.loading(waiting),
            units=units,
            timeout_s=lambda unit: HANG_S + 5 * unit.expected_s,
        )
        environment = environment_for(setting.common.threads)
        pool = Pool(
            method="spawn", parallel=1, scratch=scratch, environment=environment,
            deadline_s=deadline_s,
        )  # fmt: skip
        retry: list[Group] = []
        for report in pool.run([job]):
            group = units[report.unit]
            if isinstance(group, Fingerprints):
                if report.end is End.DONE:
                    yield report.result
            elif report.end is End.DONE:
                if rows := _believed(report):
                    yield rows
                known = {row.cell for row in rows}
                others = tuple(cell for cell in group.cells if cell not in known)
                # who spoiled the process is not known where nobody has failed
                apart = group.apart or not known
                retry += [group._replace(cells=others, apart=apart)] if others else []
            elif report.end is not End.OUT_OF_TIME:
                strangers = setting.strangers(group.cells)
                failed, rest = _without_culprit(
                    group, report.end, report.cursor, report.text, strangers
                )
                yield failed
                retry += rest
        waiting = retry


def _fingerprints(setting: Setting, groups: Sequence[Group]) -> Fingerprints:
    """Return what is asked at the end: on a device, which kernels every contender runs."""
    if not setting.common.device.startswith("cuda"):
        return Fingerprints(())
    cells = (cell for group in groups for cell in group.cells)
    return Fingerprints(tuple(dict.fromkeys(cell.proved_as for cell in cells)))


def _believed(report: Report) -> list[Sampled]:
    """Return the rows of a group, without samples where its clock cannot have been right."""
    rows: list[Sampled] = report.result.rows
    spent_s = sum(sum(row.mean_ns or row.samples_ns) * row.calls_per_sample for row in rows) / 1e9
    shown_s = report.result.shown_s
    reason = clock.disagreement(shown_s, report.waited_s, report.alive_s)
    if not reason and spent_s > report.alive_s:
        reason = clock.disagreement(spent_s, 0.0, report.alive_s)
    if not reason:
        return rows
    return [Sampled(row.cell, row.process, Status.REFUTED, reason=reason) for row in rows]


def _without_culprit(
    group: Group, end: End, cursor: int, text: str, strangers: tuple[Cell, ...] = ()
) -> tuple[list[Sampled], list[Group]]:
    """Return the rows of who is to blame, and the group of the others.

    Where that is not known, strangers are tried apart from the table's own.
    """
    status = STATUSES.get(end, Status.CRASHED)
    known = end is not End.RAISED and 0 <= cursor < len(group.cells)
    guilty = (group.cells[cursor],) if known else strangers or group.cells
    rest = tuple(cell for cell in group.cells if cell not in guilty)
    rows = [Sampled(cell, group.process, status, reason=text) for cell in guilty]
    return rows, [group._replace(cells=rest)] if rest else []


def calls_of(
    groups: Mapping[GroupKey, Sequence[Cell]], proofs: Mapping[Cell, Proof]
) -> dict[GroupKey, list[int]]:
    """Return the nanoseconds per call of every contender of every group."""
    return {key: [proofs[cell].call_ns for cell in cells] for key, cells in groups.items()}
