"""A headless Chromium for tests, driven over the DevTools protocol through two pipes; nothing to install but it."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from time import monotonic
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser_program() -> str | None:
    """The path of a Chromium, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Page:
    """A tab. `events` are what it said: its log, its requests, its exceptions."""

    to: int
    back: int
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _last: int = 0
    _held: bytes = b""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, path: Path, width: int, theme: str) -> None:
        """Show a file at a width in CSS pixels, in the theme `light` or `dark`, and wait until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is, as plain values."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _read(self, deadline: float = 60) -> dict[str, Any]:
        end = monotonic() + deadline
        while b"\0" not in self._held:
            assert select([self.back], [], [], max(end - monotonic(), 0))[0], "Chromium does not answer"
            read = os.read(self.back, 1 << 20)
            assert read, "Chromium has ended"
            self._held += read
        message, _, self._held = self._held.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def opened_page(program: str, profile: Path) -> Iterator[Page]:
    """A tab of a new headless Chromium, which ends with it; `profile` is a folder for what it keeps."""
    its_input, ours_to = os.pipe()
    ours_back, its_output = os.pipe()

    def place_pipes() -> None:  # it reads from 3 and writes to 4
        spare = os.dup(its_input), os.dup(its_output)
        os.dup2(spare[0], 3)
        os.dup2(spare[1], 4)

    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
    quiet = [
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={profile}",
    ]
    process = subprocess.Popen(
        [program, *arguments, *quiet, "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=place_pipes,
        close_fds=False,
        start_new_session=True,
    )
    os.close(its_input)
    os.close(its_output)
    try:
        page = Page(ours_to, ours_back)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        yield page
    finally:
        os.close(ours_to)  # it ends when nobody can talk to it any more
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_back)
