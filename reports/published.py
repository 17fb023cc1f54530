"""The runs that are kept in docs/: `python3 -m reports.published [RUN NAME]` writes their pages again.

A run is a folder of docs/runs/ as the benchmark wrote it; its page stands beside it. Given the
folder of a run and a name, that run is kept first, in place of one of that name.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from harness.results import load_run
from reports.index import write_index
from reports.page import write_page
from reports.payload import unpacked

RUNS = Path(__file__).parents[1] / "docs" / "runs"
KEPT = ("run.json", "measurements.jsonl", "verdicts.jsonl", "profile.json", "evidence/*.json")
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

    Raises:
        ResultsError: the run cannot be read.
    """
    load_run(run)
    target = folder / name
    if target.exists():
        shutil.rmtree(target)
    (target / "evidence").mkdir(parents=True)
    for path in sorted(path for kind in KEPT for path in run.glob(kind)):
        shutil.copyfile(path, target / path.relative_to(run))


def main(arguments: list[str]) -> int:
    """Keep a run, if one is named, and write all pages; return the exit code."""
    if len(arguments) not in (0, 2):
        sys.stderr.write("usage: python3 -m reports.published [RUN NAME]\n")
        return 2
    if arguments:
        keep(Path(arguments[0]), arguments[1])
    for page in write_pages():
        sys.stdout.write(f"{page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
