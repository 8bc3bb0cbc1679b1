"""A headless Chromium for tests, driven through a pipe by the DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--remote-debugging-pipe",
)  # fmt: skip

# Chromium reads 3 and writes 4; what lies there at first may be the other one's.
_EXEC = """
import os, sys
reads, writes = os.dup2(int(sys.argv[1]), 103), os.dup2(int(sys.argv[2]), 104)
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Left(Exception):
    """The page that was asked is being left."""


class Browser:
    """One page of a browser.

    Args:
        profile: An empty folder for it.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
    """

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        assert CHROMIUM is not None
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _EXEC, str(theirs_in), str(theirs_out), CHROMIUM, *_OPTIONS,
             f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._buffer, self._count = b"", 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")
        # Else what is focused is so only while some window system says that the window is.
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)
        self.resize(width, height)

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        """Sends a command and returns its result; events that come meanwhile are kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": values}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(60)
            if answer.get("id") == self._count:
                if "context" in (said := answer.get("error", {}).get("message", "")):
                    raise Left(said)
                assert not said, f"{method}: {said}"
                return answer["result"]
            self.events.append(answer)

    def _read(self, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            left = until - time.monotonic()
            assert left > 0, "the browser says nothing"
            if select.select([self._in], [], [], left)[0]:
                piece = os.read(self._in, 1 << 20)
                assert piece, "the browser has ended"
                self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def resize(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """Sets the size of the page, and its colours."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=phone)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Goes to an address and waits until the page is there."""
        self.send("Page.bringToFront")
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def reload(self) -> None:
        """Loads the page anew and waits until it is there."""
        self.run("window.isOld = true")
        self.send("Page.reload")
        self.wait("!window.isOld && document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """Returns the value of an expression in the page."""
        answer = self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, f"{code}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = 30.0) -> None:
        """Waits until an expression is true."""
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Left):
                if self.run(f"Boolean({code})"):
                    return
                if time.monotonic() > until:
                    break
            time.sleep(0.05)
        raise AssertionError(f"in vain: {code}\n{self.text()}\n{self.problems()}")

    def text(self) -> str:
        """Returns what can be read on the page."""
        return self.run("document.body?.innerText ?? ''")

    def click(self, selector: str) -> None:
        """Clicks an element that can be seen."""
        self.wait(f"document.querySelector({json.dumps(selector)})?.offsetParent")
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def click_text(self, text: str) -> None:
        """Clicks the first button, link or label whose text this is."""
        found = (
            "[...document.querySelectorAll('button, a, label, summary')].find(each => "
            "each.offsetParent && !each.disabled && each.textContent.trim() === "
            f"{json.dumps(text)})"
        )
        self.wait(found + " !== undefined")
        self.run(found + ".click()")

    def choose(self, selector: str, *paths: Path) -> None:
        """Chooses files as a person does in the dialog of the browser."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def press(self, key: str, times: int = 1) -> None:
        """Presses a key."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                more = {"text": text} if text and kind == "keyDown" else {}
                self.send("Input.dispatchKeyEvent", type=kind, key=key,
                          windowsVirtualKeyCode=codes.get(key, ord(key[0])), **more)  # fmt: skip

    def picture(self, path: Path | None = None, *, whole: bool = False) -> bytes:
        """Returns a PNG of what is seen, or of the whole page, and writes it where one is named."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        image = base64.b64decode(data)
        if path is not None:
            path.write_bytes(image)
        return image

    def problems(self) -> list[str]:
        """Returns what the page complained of: exceptions, errors, and what its policy blocked."""
        found = []
        for event in self.events:
            values = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                details = values["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif event.get("method") == "Log.entryAdded" and values["entry"]["level"] == "error":
                entry = values["entry"]
                found.append(f"{entry['text']} {entry.get('url', '')}")
        return found

    def close(self) -> None:
        """Ends the browser and all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._in)
        os.close(self._out)


@contextlib.contextmanager
def browsing(profile: Path, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Yields a browser and ends it."""
    browser = Browser(profile, width, height)
    try:
        yield browser
    finally:
        browser.close()
