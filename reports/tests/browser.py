"""A headless Chromium, driven over the pipe that it opens for its own developer tools.

No driver program and no package: the protocol is JSON, one message after another, each ended by a
zero byte, on file descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-extensions", "--mute-audio", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip


def find() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class BrowserError(Exception):
    """The browser did not answer, or answered with an error."""


class Browser:
    """One browser with one tab. `errors` holds what it logged as errors, `asked` every request."""

    def __init__(self, path: str, profile: Path) -> None:
        from_us, to_us = os.pipe(), os.pipe()
        command = [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        silence = os.open(os.devnull, os.O_RDWR)
        # dup2 clears close-on-exec: only these five reach the browser
        low = os.dup(from_us[0]), os.dup(to_us[1])
        actions = [
            (os.POSIX_SPAWN_DUP2, silence, 1), (os.POSIX_SPAWN_DUP2, silence, 2),
            (os.POSIX_SPAWN_DUP2, low[0], 3), (os.POSIX_SPAWN_DUP2, low[1], 4),
        ]  # fmt: skip
        self._pid = os.posix_spawn(path, command, os.environ, file_actions=actions, setpgroup=0)
        for end in (from_us[0], to_us[1], silence, *low):
            os.close(end)
        self._write, self._read = from_us[1], to_us[0]
        self._buffer, self._last = b"", 0
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.downloads: list[str] = []
        target = self.send("Target.createTarget", url="about:blank", session=None)["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True, session=None)
        self._session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, *, session: str | None = "", **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        limit = time.monotonic() + 60
        while (answer := self._next(limit)).get("id") != self._last:
            self._note(answer)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, page: Path, *, fragment: str = "", ready: bool = True) -> None:
        """Load a file and wait until its script is through."""
        self.errors.clear()
        self.asked.clear()
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=page.as_uri() + fragment)
        state = "document.readyState === 'complete'"
        self.wait(f"{state} && location.protocol === 'file:'")
        if ready:
            self.wait("document.documentElement.dataset.ready === 'yes'")

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; promises are awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True,
            userGesture=True,
        )  # fmt: skip
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 30.0) -> None:
        """Wait until a JavaScript expression is true."""
        limit = time.monotonic() + seconds
        while not self.run(condition):
            if time.monotonic() > limit:
                raise BrowserError(f"{condition} did not become true; errors: {self.errors}")
            time.sleep(0.02)

    def resize(self, width: int, height: int = 900) -> None:
        """Set the size of the window."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=width < 500,
        )  # fmt: skip

    def prefer(self, scheme: str) -> None:
        """Ask for a `light` or a `dark` page."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def scripts(self, *, run: bool) -> None:
        """Allow scripts, or not, from the next page on."""
        self.send("Emulation.setScriptExecutionDisabled", value=not run)

    def save_to(self, folder: Path) -> None:
        """Put downloads into `folder`."""
        self.send(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder),
            eventsEnabled=True, session=None,
        )  # fmt: skip

    def screenshot(self, path: Path, *, whole: bool = True) -> Path:
        """Write what is seen as PNG."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def close(self) -> None:
        """End the browser and everything that it started."""
        with contextlib.suppress(OSError, BrowserError):
            self.send("Browser.close", session=None)
        for end in (self._write, self._read):
            os.close(end)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _next(self, limit: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = limit - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise BrowserError("the browser does not answer")
            if not (more := os.read(self._read, 1 << 20)):
                raise BrowserError("the browser ended")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        method, data = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(data["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and data["type"] in {"error", "assert"}:
            self.errors.append(str(data["args"]))
        elif method == "Log.entryAdded" and data["entry"]["level"] == "error":
            self.errors.append(str(data["entry"]))
        elif method == "Network.requestWillBeSent":
            self.asked.append(data["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.errors.append(f"a dialog opened: {data['message']}")


@contextlib.contextmanager
def browser(profile: Path, names: Sequence[str] = ()) -> Iterator[Browser]:
    """Open a browser whose settings lie in `profile`, and close it afterwards."""
    path = next(iter(names), None) or find()
    if path is None:
        raise BrowserError("no Chromium on this machine")
    opened = Browser(path, profile)
    try:
        yield opened
    finally:
        opened.close()
