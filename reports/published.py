"""The runs that are kept in docs/: `python3 -m reports.published [RUN NAME]` writes their pages again.

A run is a folder of docs/runs/ with what its page is made from, rows packed by gzip where they are
long; its page stands beside it. Given the folder of a run and a name, that run is kept first, in
place of one of that name.
"""

from __future__ import annotations

import gzip
import re
import shutil
import sys
from pathlib import Path

from harness.results import ResultsError, load_run
from reports.index import write_index
from reports.page import write_page
from reports.payload import unpacked

RUNS = Path(__file__).parents[1] / "docs" / "runs"
KEPT = (
    "run.json", "measurements.jsonl", "measurements.jsonl.gz", "verdicts.jsonl",
    "verdicts.jsonl.gz", "profile.json", "evidence/*.json",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_-]+")
LONG = 100_000
"""Bytes from which on a file of rows is packed."""
_DATA = re.compile(r'(<script type="text/plain" id="data">)([^<]*)(</script>)')


def published(folder: Path = RUNS) -> list[Path]:
    """Return the folders of the runs that are kept in `folder`."""
    return sorted(path.parent for path in folder.glob("*/run.json"))


def write_pages(source: Path = RUNS, target: Path = RUNS) -> list[Path]:
    """Write the page of every run in `source`, and the index over them, to `target`."""
    pages = [write_page(run, target / f"{run.name}.html") for run in published(source)]
    return [*pages, write_index(target)] if pages else []


def decompressed(page: str) -> tuple[str, object]:
    """Return a page without what it carries compressed, and that.

    How well the same data are compressed depends on the build of zlib: these bytes, and no others,
    may differ between machines.
    """
    found = _DATA.search(page)
    return (_DATA.sub(r"\1\3", page), unpacked(found[2])) if found else (page, None)


def keep(run: Path, name: str, folder: Path = RUNS) -> None:
    """Copy what the page of `run` is made from to `folder`, in place of what has that name.

    Rows that are long are packed, into the same bytes for the same rows and build of zlib.

    Raises:
        ResultsError: the run cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise ResultsError(f"name={name!r} is no name of a folder: letters, digits, - and _ are")
    load_run(run)
    target = folder / name
    if target.resolve() == run.resolve():
        raise ResultsError(f"{run}: lies where it is to be kept; name another run, or another name")
    if target.exists():
        shutil.rmtree(target)
    (target / "evidence").mkdir(parents=True)
    for path in sorted(path for kind in KEPT for path in run.glob(kind)):
        copy = target / path.relative_to(run)
        if path.suffix == ".jsonl" and path.stat().st_size >= LONG:
            packed = gzip.compress(path.read_bytes(), compresslevel=9, mtime=0)
            copy.with_name(f"{copy.name}.gz").write_bytes(packed)
        else:
            shutil.copyfile(path, copy)


def main(arguments: list[str]) -> int:
    """Keep a run, if one is named, and write all pages; return the exit code."""
    if len(arguments) not in (0, 2):
        sys.stderr.write("usage: python3 -m reports.published [RUN NAME]\n")
        return 2
    try:
        if arguments:
            run = Path(arguments[0])
            keep(run if run.exists() else Path("results") / run, arguments[1])
        pages = write_pages()
    except ResultsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for page in pages:
        sys.stdout.write(f"{page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
