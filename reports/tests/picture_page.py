"""`python3 -m reports.tests.picture_page [PAGE]`: the head of a page as docs/page.png.

Without a page that of the newest run in docs/runs. It takes a Chromium.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from harness.results import ResultsError, load_run
from harness.terminal import write_lines
from reports.published import RUNS, published
from reports.tests.browser import BrowserError, browser

PICTURE = RUNS.parent / "page.png"
WIDTH, HIGHEST = 1280, 2400


def take(page: Path, target: Path) -> Path:
    """Write what a reader sees first, up to the end of the verdicts, as PNG to `target`.

    Raises:
        BrowserError: there is no browser, or it does not answer.
        ResultsError: `page` is no file.
    """
    if not page.is_file():
        raise ResultsError(f"{page}: is no page")
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as tab:
        tab.resize(WIDTH)
        tab.prefer("light")
        tab.open(page.resolve())
        end = tab.run('document.querySelector("main > section").getBoundingClientRect().bottom')
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": min(end + 24, HIGHEST), "scale": 1}
        shot = tab.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    target.write_bytes(base64.b64decode(shot["data"]))
    return target


def newest_page() -> Path:
    """Return the page of the newest kept run.

    Raises:
        ResultsError: none is kept, or one is damaged.
    """
    kept = published()
    if not kept:
        raise ResultsError(f"{RUNS}: no run is kept there; name a page")
    newest = max(kept, key=lambda run: load_run(run).run.started)
    return RUNS / f"{newest.name}.html"


def main(arguments: list[str]) -> int:
    """Take the picture; return the exit code."""
    try:
        page = Path(arguments[0]) if arguments else newest_page()
        write_lines([str(take(page, PICTURE))])
    except (BrowserError, ResultsError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
