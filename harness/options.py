"""What a benchmark run was asked for, and who may measure into its folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.plan import Selection
from harness.results import ResultsError

try:
    import fcntl
except ImportError:  # not a POSIX system: nobody is kept out
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a resumed run must take over unchanged."""

    selection: Selection
    processes: int
    blocks: int
    seed: int
    laws: str
    plugins: tuple[str, ...]
    budget_s: float | None

    def words(self) -> dict[str, str]:
        """Return every option as JSON, by name."""
        flat = dataclasses.asdict(self)
        flat |= flat.pop("selection")
        return {name: json.dumps(value) for name, value in flat.items()}

    @classmethod
    def from_words(cls, words: Mapping[str, str], folder: Path) -> Options:
        """Read what `words` gave.

        Raises:
            ResultsError: the run was not made by `bench`.
        """
        try:
            read = {f.name: json.loads(words[f.name]) for f in dataclasses.fields(cls)[1:]}
            chosen: dict[str, Any] = {
                f.name: json.loads(words[f.name]) for f in dataclasses.fields(Selection)
            }
        except (KeyError, ValueError) as error:
            raise ResultsError(f"{folder}: cannot be resumed: no setting {error}") from error
        chosen |= {k: tuple(v) for k, v in chosen.items() if isinstance(v, list)}
        if isinstance(chosen["threads"], int):  # as it was before several could be given
            chosen["threads"] = (chosen["threads"],)
        read["plugins"] = tuple(read["plugins"])
        return cls(selection=Selection(**chosen), **read)


@contextlib.contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keep every other process from measuring into `folder`; the system frees it after a kill.

    Raises:
        ResultsError: somebody does already, or the folder cannot be written.
    """
    try:
        file = (folder / "lock").open("a", encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error.strerror}") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ResultsError(f"{folder}: another process is measuring into it") from error
        yield
