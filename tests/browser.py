"""A headless Chromium, driven through the pipe of its DevTools protocol (https://chromedevtools.github.io)."""

import json
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)
START = """
import fcntl, os, sys
told, telling = (fcntl.fcntl(int(descriptor), fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in sys.argv[1:3])
os.dup2(told, 3)
os.dup2(telling, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Puts the pipe where a browser looks for it, whatever descriptors this process had left, and becomes the browser."""


def find_browser() -> str | None:
    """The path of an installed Chromium."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One browser with one page; messages are JSON texts that end with a zero byte, on descriptors 3 and 4."""

    def __init__(self, path: str, profile: Path):
        told, self._to = os.pipe()
        self._from, telling = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(told), str(telling), path, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(told, telling),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(told)
        os.close(telling)
        self._numbers, self._buffer, self._session = count(1), b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.problems: list[str] = []
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; errors that the page logs meanwhile go to ``problems``."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def open(self, url: str, width: int, height: int = 800) -> None:
        """Show a page in a window of so many CSS pixels, and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700
        )
        self.call("Page.navigate", url=url)
        self.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited, as if a user had caused it."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._from, 1 << 16)
            assert part, "the browser ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.problems.append(event["params"]["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(event["params"]["exceptionDetails"]["text"])
