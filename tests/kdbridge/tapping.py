"""`kdbridge tap` in a process of its own, between a debugger and a target."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.kdbridge.cli.calling import PROGRAM

__all__ = ["Tapping", "free_port", "tapping"]

_SECONDS = 60
_LOOK = 0.02


@dataclass
class Tapping:
    """A tap that runs. What it showed is there when it has ended."""

    place: str = ""
    """What the debugger connects to; over a network, the port that the target is to poke."""
    shown: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    code: int | None = None

    def wait_for(self, text: str, times: int) -> None:
        """Until it has said so, so many times; or long enough for whoever asks to see that it did not."""
        patience = threading.Event()
        for _ in range(int(_SECONDS / _LOOK)):
            if sum(text in line for line in self.said) >= times:
                return
            patience.wait(_LOOK)


def free_port() -> int:
    """A UDP port that nobody has just now: for those who cannot take port 0 and say which it became."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextlib.contextmanager
def tapping(*words: object) -> Iterator[Tapping]:
    """`kdbridge tap WORDS`, which is ready when the block begins and is ended, as by Ctrl-C, when the block ends."""
    process = subprocess.Popen(
        [PROGRAM, "tap", *map(str, words)], text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    tap = Tapping()
    assert process.stdout is not None and process.stderr is not None
    # Both are read all the time: a pipe that is full would stop the tap.
    shown = threading.Thread(target=lambda: tap.shown.extend(process.stdout or ()))
    said = threading.Thread(target=lambda: tap.said.extend(process.stderr or ()))
    try:
        shown.start()
        for line in process.stderr:
            tap.said.append(line)
            if found := re.match(r"the debugger connects to (\S+)$|targets poke port (\d+) ", line):
                tap.place = found[1] or found[2]
                break
        assert tap.place, tap.said
        said.start()
        yield tap
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            tap.code = process.wait(_SECONDS)
        finally:
            process.kill()
            process.wait()
            for thread in (shown, said):
                if thread.ident is not None:
                    thread.join(_SECONDS)
            process.stdout.close()
            process.stderr.close()
