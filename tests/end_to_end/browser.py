"""A real browser without a window: Chromium, asked over its DevTools pipe what became of a page."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Browser", "Seen", "chromium"]

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
_MOST = 64 << 20


def chromium() -> str | None:
    """The program, where there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Seen:
    """What became of a page at one width."""

    scroll_width: int = 0
    """How wide its content is, in CSS pixels: more than the window means scrolling sideways."""
    wide: list[str] = field(default_factory=list)
    """Elements that reach beyond the window without a box of their own to scroll in."""
    requests: list[str] = field(default_factory=list)
    """Every address that was asked for, the page's own included, whether it was let through or not."""
    complaints: list[str] = field(default_factory=list)
    """The console's errors and warnings, and scripts' exceptions."""
    text: str = ""
    """What a person reads, folded parts included."""
    result: Any = None
    """Of the script that was asked for."""


class Browser:
    """One browser. Close it when done (it is a context manager)."""

    def __init__(self, program: str, profile: Path) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", program, *_FLAGS,
             f"--user-data-dir={profile}"],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._buffer = bytearray()
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ask("Browser.close")
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)

    def _receive(self) -> dict[str, Any]:
        while (end := self._buffer.find(b"\0")) < 0:
            data = os.read(self._in, 1 << 16)
            assert data, "the browser went away"
            self._buffer += data
            assert len(self._buffer) < _MOST
        message: dict[str, Any] = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        return message

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command, and its result. Events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def look(self, url: str, width: int, picture: Path | None = None, script: str = "null", dark: bool = False,
             media: str = "screen") -> Seen:  # fmt: skip
        """Open a page in a window of this width, and see."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable", session)
        self.ask("Emulation.setDeviceMetricsOverride", session, width=width, height=900, deviceScaleFactor=1,
                 mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", session, media=media, features=[scheme])
        self._events.clear()
        self.ask("Page.navigate", session, url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())
        seen = Seen()
        for expression, name in ((_WIDTH, "scroll_width"), (_WIDE, "wide"), (script, "result"), (_TEXT, "text")):
            answer = self.ask("Runtime.evaluate", session, expression=expression, returnByValue=True)
            setattr(seen, name, answer["result"].get("value"))
        if picture is not None:
            height = self.ask("Runtime.evaluate", session, expression="document.documentElement.scrollHeight")
            clip = {"x": 0, "y": 0, "width": width, "height": min(height["result"]["value"], 12000), "scale": 1}
            image = self.ask("Page.captureScreenshot", session, format="png", captureBeyondViewport=True, clip=clip)
            picture.write_bytes(base64.b64decode(image["data"]))
        for event in self._events:
            _take(event, seen)
        self.ask("Target.closeTarget", targetId=target)
        return seen


_WIDTH = "document.documentElement.scrollWidth"
_TEXT = "document.querySelectorAll('details').forEach(one => one.open = true), document.body.innerText"
_WIDE = """
[...document.querySelectorAll('body *')].filter(one => {
  if (one.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let box = one.parentElement; box; box = box.parentElement)
    if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
  return true;
}).map(one => one.tagName + '.' + one.className)
"""


def _take(event: dict[str, Any], seen: Seen) -> None:
    about = event.get("params", {})
    match event["method"]:
        case "Network.requestWillBeSent":
            seen.requests.append(about["request"]["url"])
        case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
            seen.complaints.append(about["entry"]["text"])
        case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
            seen.complaints.append(str(about["args"]))
        case "Runtime.exceptionThrown":
            seen.complaints.append(str(about["exceptionDetails"]))
        case _:
            pass
