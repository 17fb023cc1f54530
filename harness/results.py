"""The only place that touches result files: `run.json`, `measurements.jsonl`, `verdicts.jsonl`.

Rows are flat and typed, units stand in the names, every raw sample is kept, and rows are appended
as they come, so that a run that is killed keeps what it measured.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from harness.machine import Machine
from harness.records import ResultsError, read_record

__all__ = [
    "FAILED",
    "MOST_STEAL",
    "SAMPLED",
    "ImplementationCard",
    "LawCard",
    "LoadedRun",
    "Measurement",
    "Outcome",
    "Recorder",
    "ResultsError",
    "Run",
    "Status",
    "VariantCard",
    "Verdict",
    "load_run",
    "read_record",
]  # fmt: skip


class Status(StrEnum):
    """How the measuring of one cell ended."""

    MEASURED = "MEASURED"
    UNSUPPORTED = "UNSUPPORTED"
    NOT_SELECTED = "NOT_SELECTED"
    REFUTED = "REFUTED"
    CRASHED = "CRASHED"
    TIMED_OUT = "TIMED_OUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    THROTTLED = "THROTTLED"
    NO_TIME = "NO_TIME"


FAILED = (Status.REFUTED, Status.CRASHED, Status.TIMED_OUT, Status.OUT_OF_MEMORY)
"""Without a number, and through a fault of the implementation or of what the case asks of it."""
SAMPLED = (Status.MEASURED, Status.THROTTLED)
"""With samples; a process that was throttled is not compared, and is no fault of anybody."""
MOST_STEAL = 0.005
"""The share of stolen time beyond which a block is flagged."""


class Outcome(StrEnum):
    """How a law was judged over one implementation."""

    HOLDS = "HOLDS"
    REFUTED = "REFUTED"
    UNSUPPORTED = "UNSUPPORTED"
    MISTRUSTED = "MISTRUSTED"
    CRASHED = "CRASHED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one process measured of one cell (variant, implementation, case, direction).

    `block[i]` pairs `samples_ns[i]` with the samples that other implementations gave in the same
    block of the same process. `samples_ns` are nanoseconds per call: of the middle turn, at the usual
    pace, of a sample that was taken in turns; `mean_ns` is then that over all turns. They are empty unless `status` is
    MEASURED, or THROTTLED, which keeps samples that are not to be compared. `placebo` marks the
    baseline registered a second time.

    Lists named `block_...` are parallel to `block`, or empty where the machine does not tell: the
    share of processor time that was stolen, the load, involuntary context switches of the process,
    and the frequency of the processor, on a device that of its multiprocessors. Blocks of
    `off_clock_blocks` ran at another frequency than the run did. `processors` are those the process
    was pinned to. Per call: `instructions` in user space, `useful_...` what the definition asks
    for and `issued_...` what was called for (`harness.work`), and on a device `kernel_ns`, the sum
    of its `kernels`, which are named in their order. `wall_ns` is the time until the device was
    done and `enqueue_ns` until the host was, block by block, without a queue held up.
    """

    run_id: str
    variant: str
    implementation: str
    case: str
    case_name: str
    direction: str
    dtype: str
    device: str
    threads: int
    flags: str = ""
    placebo: bool = False
    process: int = 0
    block: tuple[int, ...] = ()
    samples_ns: tuple[int, ...] = ()
    mean_ns: tuple[int, ...] = ()
    calls_per_sample: int = 0
    peak_bytes: int | None = None
    saved_bytes: int | None = None
    status: Status
    reason: str = ""
    proof: str = ""
    processors: tuple[int, ...] = ()
    block_steal_share: tuple[float, ...] = ()
    block_load: tuple[float, ...] = ()
    block_involuntary_switches: tuple[int, ...] = ()
    block_clock_hz: tuple[int, ...] = ()
    block_power_w: tuple[float, ...] = ()
    off_clock_blocks: tuple[int, ...] = ()
    wall_ns: tuple[int, ...] = ()
    enqueue_ns: tuple[int, ...] = ()
    kernel_ns: int | None = None
    kernels: tuple[str, ...] = ()
    instructions: int | None = None
    useful_flop: int | None = None
    issued_flop: int | None = None
    useful_bytes: int | None = None
    issued_bytes: int | None = None

    def __post_init__(self) -> None:
        if len(self.block) != len(self.samples_ns):
            raise ValueError(
                f"block has {len(self.block)} entries, samples_ns {len(self.samples_ns)}"
            )
        if bool(self.samples_ns) != (self.status in SAMPLED):
            raise ValueError(f"status={self.status} with {len(self.samples_ns)} samples_ns")
        for name in PER_BLOCK:
            if (given := len(getattr(self, name))) not in {0, len(self.block)}:
                raise ValueError(f"{name} has {given} entries, block {len(self.block)}")

    @property
    def stolen_blocks(self) -> tuple[int, ...]:
        """The blocks in which more than `MOST_STEAL` of the processors' time was stolen."""
        pairs = zip(self.block, self.block_steal_share, strict=False)
        return tuple(block for block, share in pairs if share > MOST_STEAL)


PER_BLOCK = (
    "block_steal_share", "block_load", "block_involuntary_switches", "block_clock_hz",
    "block_power_w", "wall_ns", "enqueue_ns",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One law judged over one implementation: how many cases ran, and what was found.

    `case` and `replay` are the minimal counterexample and the line that replays it (empty where
    the law holds); `detail` is the counterexample screen or the reason. `counts` are the executed
    cases by dtype and rank, `gaps` the reasons where there are none; `script` shows
    the counterexample in Python. `tightness` is the largest error over its bound by dtype,
    `vacuous` the cases by dtype that could not have failed.
    """

    run_id: str
    law: str
    law_name: str
    variant: str
    implementation: str
    status: Outcome
    cases: int
    case: str = ""
    detail: str = ""
    replay: str = ""
    error_over_bound: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)
    script: str = ""
    tightness: Mapping[str, float] = field(default_factory=dict)
    vacuous: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplementationCard:
    """An implementation as the table listed it when the run started; `limits` is what it declines."""

    name: str
    kind: str
    needs: tuple[str, ...]
    available: bool
    reason: str | None
    origin: str = ""
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantCard:
    """A variant as the table listed it when the run started."""

    name: str
    equation: str
    source: str
    traits: tuple[str, ...]
    baseline: str
    implementations: tuple[ImplementationCard, ...]
    domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LawCard:
    """A law as it stood when the run started; `relates` names the other variants it speaks of."""

    id: str
    name: str
    statement: str
    requires: tuple[str, ...]
    domain: str = ""
    sharp: bool = False
    relates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One invocation: where, when, with which code and arguments, and what the table held.

    `threads` is the first number of threads where several were asked for; rows have their own.
    `ceilings` are the rates that the machine was seen to reach with so many, as `harness.ceilings`
    names them; those with other numbers of threads end in `_with_2_threads`.
    """

    id: str
    started: str
    commit: str
    dirty: str
    machine: Machine
    versions: Mapping[str, str]
    argv: tuple[str, ...]
    seed: int
    device: str
    threads: int
    processes: int
    blocks: int
    catalogue: tuple[VariantCard, ...]
    laws: tuple[LawCard, ...] = ()
    notes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """A run and all of its rows. `damage` says what a killed run left unfinished."""

    run: Run
    measurements: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]
    damage: tuple[str, ...] = ()


class Recorder:
    """Appends the rows of one run to `folder`, each flushed to the disk before the next is taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_run(self, run: Run) -> None:
        """Write `run.json` whole or not at all."""
        text = json.dumps(dataclasses.asdict(run), indent=1, sort_keys=True) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / "run.json.partial"
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.folder / "run.json")
        except OSError as error:
            raise ResultsError(f"{self.folder}: cannot write run.json: {error.strerror}") from error

    def add(self, row: Measurement | Verdict) -> None:
        """Append one row to the file of its kind."""
        name = "measurements.jsonl" if isinstance(row, Measurement) else "verdicts.jsonl"
        line = json.dumps(dataclasses.asdict(row)) + "\n"
        try:
            with (self.folder / name).open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if isinstance(row, Verdict) and row.case:
                self.keep(row)
        except OSError as error:
            kept = "all earlier rows are kept"
            raise ResultsError(
                f"{self.folder / name}: cannot append: {error.strerror}; {kept}"
            ) from error

    def keep(self, row: Verdict) -> None:
        """Write a counterexample to a file of its own, which `properties/corpus` takes as it is."""
        folder = self.folder / "counterexamples"
        data = {
            "variant": row.variant, "implementation": row.implementation, "law": row.law,
            "case": row.case, "found": f"{row.run_id[:4]}-{row.run_id[4:6]}-{row.run_id[6:8]}",
            "reason": f"{row.status} {row.law_name}", "replay": row.replay, "script": row.script,
            "screen": row.detail,
        }  # fmt: skip
        path = folder / f"{row.variant}-{row.implementation}-{row.law}.json"
        try:
            folder.mkdir(exist_ok=True)
            path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ResultsError(f"{path}: cannot be written: {error.strerror}") from error

    def write_profile(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Write the operator tables of `harness.profile` to `profile.json`."""
        path = self.folder / "profile.json"
        try:
            path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ResultsError(f"{path}: cannot be written: {error.strerror}") from error

    def mend(self) -> None:
        """Unpack rows, and cut off unfinished last lines that a killed run left: rows can follow."""
        for name in ("measurements.jsonl", "verdicts.jsonl"):
            path = self.folder / name
            packed = path.with_name(f"{name}.gz")
            try:
                if packed.exists():
                    partial = path.with_name(f"{name}.partial")
                    partial.write_bytes(gzip.decompress(packed.read_bytes()))
                    partial.replace(path)
                    packed.unlink()
                if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
                    os.truncate(path, text.rfind(b"\n") + 1)
            except OSError as error:
                raise ResultsError(f"{path}: cannot be mended: {error.strerror}") from error


def load_run(folder: str | Path) -> LoadedRun:
    """Read a results folder.

    Rows may lie packed, in `measurements.jsonl.gz` and `verdicts.jsonl.gz`, as kept runs do. A last
    line cut short by a kill is left out and named in `damage`; any other damage raises.

    Raises:
        ResultsError: the folder, a file or a row is missing, foreign or damaged.
    """
    folder = Path(folder)
    path = folder / "run.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: is not JSON: {error}") from error
    damage: list[str] = []
    run = read_record(Run, data, str(path))
    return LoadedRun(
        run=run,
        measurements=tuple(_rows(Measurement, folder / "measurements.jsonl", run.id, damage)),
        verdicts=tuple(_rows(Verdict, folder / "verdicts.jsonl", run.id, damage)),
        damage=tuple(damage),
    )


Row = TypeVar("Row", Measurement, Verdict)


def _rows(kind: type[Row], path: Path, run_id: str, damage: list[str]) -> list[Row]:
    packed = path.with_name(f"{path.name}.gz")
    if path.exists() and packed.exists():
        raise ResultsError(
            f"{packed}: {path.name} lies beside it; only one of them can be the rows"
        )
    path = packed if packed.exists() else path
    if not path.exists():
        return []
    try:
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path == packed else data).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    *whole, rest = lines
    if rest:
        damage.append(f"{path.name}: the last line was cut short and is left out")
    rows = []
    for number, line in enumerate(whole, start=1):
        place = f"{path}:{number}"
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ResultsError(f"{place}: is not JSON: {error}") from error
        row = read_record(kind, data, place)
        if row.run_id != run_id:
            raise ResultsError(
                f"{place}: run_id={row.run_id!r} belongs to another run than {run_id!r}"
            )
        rows.append(row)
    return rows
