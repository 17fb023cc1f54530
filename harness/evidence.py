"""Evidence: dated tables that explicit commands produce, kept as files, shown in docs and the page.

What a run of the benchmark measures is in `harness.results`; evidence is what is measured now and
then and committed: who made it, when, of which code, on which machine, by which command.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from harness.machine import describe_code, describe_machine
from harness.results import ResultsError, read_record

EVIDENCE = Path(__file__).parents[1] / "properties" / "evidence"
"""Where the tables are kept."""

Cell: TypeAlias = str | float
"""An entry of a table; whole numbers stay whole."""

ROOT = Path(__file__).parent.parent

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """How a table came about; `dirty` is the hash of uncommitted changes, empty if none."""

    date: str
    commit: str
    machine: str
    command: str
    dirty: str = ""

    def __post_init__(self) -> None:
        for name in ("date", "commit", "machine", "command"):
            if not getattr(self, name):
                raise ValueError(f"{name}='' must not be empty")

    @classmethod
    def here(cls, command: str, date: datetime, root: Path = ROOT) -> Made:
        """Return what describes `command` run now, on this machine, in the checkout at `root`."""
        code = describe_code(root)
        return cls(
            date=date.strftime("%Y-%m-%d"), commit=code.commit, dirty=code.dirty,
            machine=machine_in_words(), command=command,
        )  # fmt: skip


def machine_in_words() -> str:
    """Return the processor, how many cores of it there are, and the accelerator if any."""
    machine = describe_machine()
    cores = f"{machine.cores} {'core' if machine.cores == 1 else 'cores'}"
    return ", ".join(filter(None, (machine.processor, cores, machine.gpu)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    r"""One table.

    Args:
        name: Its file's name without `.json`.
        title: A heading.
        about: What the table shows and how to read it, in a sentence or two.
        made: How it came about.
        columns: Headings.
        rows: As many entries each as there are columns: text, or finite numbers.

    Raises:
        ValueError: a name that is no file's, no columns, or a row that does not fit them.

    >>> made = Made(date="2026-01-31", commit="c0ffee", machine="a core", command="make coffee")
    >>> table = Evidence(
    ...     name="coffee", title="Coffee", about="Cups.", made=made, columns=("who", "cups"),
    ...     rows=(("a|b", 2),),
    ... )
    >>> print(table.table())
    | who | cups |
    | --- | ---: |
    | a\|b | 2 |
    """

    name: str
    title: str
    about: str
    made: Made
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r} must be small letters, digits and underscores")
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns={self.columns} must be one or more different headings")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"rows[{number}] has {len(row)} entries, columns {len(self.columns)}"
                )
            for cell in row:
                if isinstance(cell, bool) or not isinstance(cell, str | int | float):
                    raise ValueError(f"rows[{number}]: {cell!r} must be text or a number")  # noqa: TRY004 - one class for what does not fit
                if isinstance(cell, float) and not math.isfinite(cell):
                    raise ValueError(f"rows[{number}]: {cell!r} must be finite")

    def save(self, folder: str | Path) -> Path:
        """Write `<name>.json` into `folder`, whole or not at all; equal tables give equal bytes."""
        path = Path(folder) / f"{self.name}.json"
        text = json.dumps(
            dataclasses.asdict(self), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".json.partial")
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise ResultsError(f"{path}: cannot be written: {error.strerror}") from error
        return path

    def column(self, name: str) -> tuple[Cell, ...]:
        """Return the entries of the column called `name`."""
        place = self.columns.index(name)
        return tuple(row[place] for row in self.rows)

    def table(self) -> str:
        """Return the rows as a Markdown table, numbers to the right."""
        numeric = [
            bool(self.rows) and all(not isinstance(cell, str) for cell in self.column(name))
            for name in self.columns
        ]
        lines = [
            map(escaped, self.columns),
            ("---:" if right else "---" for right in numeric),
            *(map(escaped, row) for row in self.rows),
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def load_evidence(folder: str | Path) -> tuple[Evidence, ...]:
    """Read every table of `folder`, sorted by name; none where there is no such folder.

    Raises:
        ResultsError: a file is missing, foreign or damaged, or its name is not its table's.
    """
    return tuple(read_evidence(path) for path in sorted(Path(folder).glob("*.json")))


def read_evidence(path: str | Path) -> Evidence:
    """Read one table.

    Raises:
        ResultsError: as `load_evidence`.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path}: is not JSON: {error}") from error
    evidence = read_record(Evidence, data, str(path))
    if evidence.name != path.stem:
        raise ResultsError(f"{path}: holds the table {evidence.name!r}, not {path.stem!r}")
    return evidence


def markdown(evidence: Evidence) -> str:
    """Return a page: the heading, what it is about, the table, and how it was made."""
    made = evidence.made
    state = f"{made.commit[:12]}{' with changes' if made.dirty else ''}"
    origin = f"Made on {made.date} of {state} ({made.machine}) by `{made.command}`."
    parts = (f"# {escaped(evidence.title)}", escaped(evidence.about), evidence.table(), origin)
    return "\n\n".join(parts) + "\n"


def escaped(cell: Cell) -> str:
    """Return `cell` as Markdown that shows exactly its text, on one line."""
    if not isinstance(cell, str):
        return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
    return _SPECIAL.sub(r"\\\1", " ".join(cell.split()))
