"""A page in a headless Chromium, driven by keys and clicks, as a person would.

Chromium is asked through a pair of pipes (its DevTools protocol), so no driver and no open port is needed. What
the page writes to the console, and what it cannot load, is kept. Every wait has an end.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

from tests.browser import _FLAGS

PATIENCE_S = 60
# The browser reads from descriptor 3 and writes to 4, whatever their numbers are here.
_LAUNCH = """
import fcntl, os, sys
there, back = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(there, 3)
os.dup2(back, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_CODES = {
    " ": ("Space", 32),
    "Backspace": ("Backspace", 8),
    "Tab": ("Tab", 9),
    "Enter": ("Enter", 13),
    "Escape": ("Escape", 27),
    "End": ("End", 35),
    "Home": ("Home", 36),
    "ArrowLeft": ("ArrowLeft", 37),
    "ArrowRight": ("ArrowRight", 39),
}


class DrivenPage:
    """A page that is driven; see the module.

    Attributes:
        complaints: what the page wrote to the console as warning or error, threw, or could not load.
        requests: addresses that the page asked for.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._numbers = itertools.count(1)
        self._unread = b""
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == number:
                assert "error" not in reply, (method, reply["error"])
                result: dict[str, Any] = reply["result"]
                return result

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser says nothing")
            got = os.read(self._from, 1 << 20)
            if not got:
                raise ConnectionError("the browser is gone")
            self._unread += got
        line, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._heard(message.get("method", ""), message.get("params", {}))
        return message

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif (method == "Runtime.consoleAPICalled" and params["type"] in ("warning", "error")) or (
            method == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error")
        ):
            self.complaints.append(str(params))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.wait("document.body && document.body.dataset.ready === 'true'")

    def reload(self) -> None:
        self.value("window.stale = true")
        self.call("Page.reload")
        self.wait("!window.stale && document.body && document.body.dataset.ready === 'true'")

    def value(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.value(f"Boolean({script})"):
            assert time.monotonic() < end, (script, self.complaints, self.value("document.body?.innerText"))
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return str(self.value(f"document.querySelector({json.dumps(selector)}).textContent"))

    def press(self, key: str, *, ctrl: bool = False) -> None:
        code, number = _CODES.get(key, (f"Key{key.upper()}" if key.isalpha() and len(key) == 1 else key, 0))
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 2 if ctrl else 0}
        text = {"text": key} if len(key) == 1 and not ctrl else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str) -> None:
        at = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({ behavior: 'instant' }); "
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def picture(self, save: Path | None = None) -> np.ndarray:
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if save is not None:
            save.write_bytes(png)
        pixels: np.ndarray = iio.imread(io.BytesIO(png))[..., :3]
        return pixels

    def dark(self, wanted: bool) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if wanted else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )


@contextmanager
def driven(program: str, profile: Path) -> Iterator[DrivenPage]:
    """Show an empty page in a browser of its own until the block ends."""
    (there, to_browser), (from_browser, back) = os.pipe(), os.pipe()
    flags = [flag for flag in _FLAGS if not flag.startswith("--window-size")]
    command = [program, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    launcher = [sys.executable, "-c", _LAUNCH, str(there), str(back), *command]
    with profile.with_suffix(".log").open("wb") as said:
        browser = subprocess.Popen(
            launcher, stdout=said, stderr=said, pass_fds=(there, back), start_new_session=True
        )
    os.close(there)
    os.close(back)
    try:
        page = DrivenPage(to_browser, from_browser)
        page.attach()
        page.size(1200, 800)
        yield page
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait(PATIENCE_S)
        os.close(to_browser)
        os.close(from_browser)
