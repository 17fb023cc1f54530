"""Counterexamples that were found once: replayed first in every run from then on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from harness.case import ConvCase
from harness.results import ResultsError

Entry = tuple[str, str, ConvCase]
"""Variant, id of the law, case."""


def load_corpus(folder: Path) -> tuple[Entry, ...]:
    """Read every `*.json` in `folder`: `{"variant", "law", "case", "found", "reason"}` each.

    Raises:
        ResultsError: which file, and what is wrong with it.
    """
    return tuple(_entries(folder))


def _entries(folder: Path) -> Iterator[Entry]:
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            yield data["variant"], data["law"], ConvCase.parse(data["case"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{path}: is no counterexample: {error!r}") from error
