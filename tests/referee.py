"""Asking Microsoft's debugger engine, through the `kdexec` tool that drives it.

    text = kdexec("-z", dump, ".bugcheck", "r")          # the fixture `kdexec`; blocks until the engine has ended
    transcript = parse(text)
    transcript["r"].text

All calls on a machine share one Wine prefix, so they run one after the other, whatever the number of test processes.
Inside `with serving():`, as the fixture is, they also share one Wine server. From trio:
`await trio.to_thread.run_sync(partial(kdexec, "-k", …))`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Answer", "Kdexec", "RefereeError", "Transcript", "engine_home", "parse", "server_is_up", "serving"]

_SERVER_START = 20.0
"""Seconds a Wine server may take to come up."""

_COMMAND = re.compile(r"^\[kdexec\] > (.*)$")
_RESULT = re.compile(r"^\[kdexec\] ([0-9a-f]{8,16}) in \d+ ms$")


class RefereeError(Exception):
    """The engine did not carry out the call: it did not start, found nothing to open, or ran out of time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine printed for one command. `result` is its HRESULT, None where it never came back."""

    command: str
    text: str
    result: int | None

    @property
    def lines(self) -> list[str]:
        """The lines that hold something, without trailing blanks."""
        return [line.rstrip() for line in self.text.splitlines() if line.strip()]


@dataclass(frozen=True, slots=True)
class Transcript:
    """One call: what was printed while opening or attaching (warnings are there), then each command's answer."""

    opening: str
    answers: tuple[Answer, ...]

    def __getitem__(self, command: str) -> Answer:
        """The answer to this command, which must have been given exactly once."""
        found = [answer for answer in self.answers if answer.command == command]
        if len(found) != 1:
            asked = [answer.command for answer in self.answers]
            raise RefereeError(f"{command!r} was answered {len(found)} times; answered were {asked}")
        return found[0]


@dataclass(frozen=True, slots=True)
class Kdexec:
    """The engine as a callable. `tool` is the script that drives it."""

    tool: Path

    def __call__(self, *args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 120) -> str:
        """The whole output, decoded, with plain line ends. RefereeError when the engine gives up or takes too long.

        `args` begins with `-z DUMP` or `-k CONNECTION`, then one debugger command each. `env` adds to the environment.
        `timeout` (seconds) counts from the start of the engine, not from the start of waiting for it.
        """
        environment = {**os.environ, **(env or {}), "KDEXEC_TIMEOUT": str(round(timeout))}
        # To a file: what Wine leaves running for a moment holds a pipe open long after the engine has ended.
        with _alone(), tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [self.tool, *args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            try:
                status = process.wait(timeout + 15)
            except subprocess.TimeoutExpired:
                status = 124
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            output.seek(0)
            text = re.sub(r"\r+\n", "\n", output.read().decode("utf-8", "replace"))
        if status:
            why = f"took longer than {timeout:g} s" if status == 124 else f"ended with status {status}"
            raise RefereeError(f"kdexec {' '.join(map(str, args))} {why}; it printed:\n{text}")
        return text


def parse(text: str) -> Transcript:
    """The output of one call, taken apart by command."""
    opening: list[str] = []
    answers: list[Answer] = []
    command: str | None = None
    body, result = opening, None

    def close() -> None:
        if command is not None:
            answers.append(Answer(command, "\n".join(body).strip("\n"), result))

    for line in text.splitlines():
        if found := _COMMAND.match(line):
            close()
            command, body, result = found[1], [], None
        elif command is not None and (found := _RESULT.match(line)):
            result = int(found[1], 16) & 0xFFFF_FFFF
        else:
            body.append(line)
    close()
    return Transcript("\n".join(opening).strip("\n"), tuple(answers))


def engine_home() -> Path:
    """Where the engine is installed: KDENGINE_HOME, or a cache folder in the home directory."""
    return Path(os.environ.get("KDENGINE_HOME", Path.home() / ".cache/kdengine"))


@contextlib.contextmanager
def serving() -> Iterator[None]:
    """Keep one Wine server up over all calls made meanwhile. RefereeError when none comes up.

    Left to itself the server ends a second after each call, and an engine that starts in just that moment ends with
    it: status 1, and not a word printed. A server that somebody else keeps up is used, and left alone.
    """
    with _alone():
        server = subprocess.Popen(
            ["wineserver", "-f", "-p"],
            env=_wine(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _SERVER_START
        while not server_is_up():
            if time.monotonic() > deadline:
                server.kill()
                raise RefereeError(f"wineserver did not come up within {_SERVER_START:g} s")
            time.sleep(0.02)  # noqa: TID251  (for another program)
    try:
        yield
    finally:
        with _alone():  # another process may be in the middle of a call
            server.send_signal(signal.SIGINT)  # on which it takes Wine's services with it; not so on SIGTERM
            server.wait()


def server_is_up() -> bool:
    """Whether a Wine server serves the engine's prefix at this moment."""
    return not subprocess.run(["wineserver", "-k0"], env=_wine(), check=False).returncode  # signal 0: only asks


def _wine() -> dict[str, str]:
    return {**os.environ, "WINEPREFIX": str(engine_home() / "prefix")}


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One call at a time, over all processes of this machine. The lock ends with its holder, however that ends."""
    with (engine_home() / "referee.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
