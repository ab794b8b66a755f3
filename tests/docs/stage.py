"""Runs the commands of a page, as a user would: the real program, in a shell, in an empty folder.

Two things are not as the page shows them, and are put back into its words before the two are compared. Places that a
page names (/dev/ttyUSB0, 10.0.0.1:5003, a socket) stand for a simulated machine's line. And lines of progress, of
which a slow machine prints more than a fast one, are left out.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.docs.pages import Command, File, Have, Page, Serve
from tests.docs.runner import Runner

__all__ = ["ENVIRONMENT", "PLACES", "Outcome", "Stage", "agree", "difference"]

PLACES = {"/dev/ttyUSB0": "pty", "10.0.0.1:5003": "tcp", "/run/vm/com1.sock": "unix"}
"""What a page may name, and which kind of line it stands for."""

_SIZE = r"[\d.]+ (?:bytes|[KMGT]iB)"
_PROGRESS = re.compile(rf"[^:]+: {_SIZE}(?: of {_SIZE})?(?: \(\d+ %\))?, {_SIZE}/s.*")
_LINE_URL = re.compile(r"^(?:(?:serial|tcp|unix):|the debugger connects to )", re.MULTILINE)
_SECONDS = 100
_QUOTED = re.compile(r"'[^']*'")
_FOR_SHELLS = re.compile(r"[|&;<>()$`\"\\*~#{}]")

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in {"KDBRIDGE_SHARED", "LINES"}},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "COLUMNS": "100",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
}
"""What a command sees of the world."""

_PROGRESS = re.compile(r"\(\d+ %\), \S+ \w+/s, .+ left$")
_ANYTHING = "…"
_INTERRUPT = "^C"
"""Shown where a user presses Ctrl-C."""


class Outcome:
    """What one command printed, in the page's words, and how it ended. None: it goes on in the background."""

    def __init__(self, command: Command, printed: Sequence[str], code: int | None) -> None:
        self.command = command
        self.printed = tuple(printed)
        self.code = code


class Stage:
    """A folder in which the commands of one page run, one after another."""

    def __init__(self, folder: Path, files: Path, runner: Runner | None = None) -> None:
        """`files` is where the files are that `have` puts into the folder. Without a runner all goes by the shell."""
        self.folder = folder
        self._files = files
        self._runner = runner
        self._places: list[tuple[str, str]] = []
        self._background: list[subprocess.Popen[str]] = []
        self._last = 0
        self._run = folder / "here"
        self._run.mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._background:
            process.terminate()
        for process in self._background:
            process.wait(20)
            if process.stdout is not None:
                process.stdout.close()

    def play(self, page: Page) -> Iterable[Outcome]:
        """Run all that a page shows, in its order."""
        # First who is at a place, then who names it.
        for step in sorted(page.steps, key=lambda step: not isinstance(step, Serve)):
            if isinstance(step, Have):
                self._have(step.names)
            elif isinstance(step, File):
                text = "".join(f"{line}\n" for line in step.lines)
                (self._run / step.name).write_text(self._real(text), encoding="utf-8")
            elif isinstance(step, Serve):
                self._serve(step)
            elif step.text.startswith(("kdbridge simulate ", "kdbridge tap ")) and "--help" not in step.text:
                yield self._start(step)
            elif _INTERRUPT in step.shown:
                yield self._interrupt(step)
            else:
                yield self._carry_out(step)

    def _have(self, names: Iterable[str]) -> None:
        for name in names:
            source, place = self._files / name, self._run / name
            if source.is_dir():
                shutil.copytree(source, place)
            else:
                shutil.copyfile(source, place)

    def _serve(self, step: Serve) -> None:
        kind = PLACES[step.place]
        name = self.folder / Path(step.place).name
        on = {"pty": f"pty:{name}", "tcp": "tcp:127.0.0.1:0", "unix": f"unix:{name}"}[kind]
        process = self._launch(f"kdbridge simulate {step.what} --on {on}")
        printed = _until_url(process.stdout)
        url = next(line for line in printed.splitlines() if _LINE_URL.match(line))
        real = url.partition(":")[2]
        if kind == "tcp":
            (host, port), (shown_host, shown_port) = real.split(":"), step.place.split(":")
            # WinDbg's own strings name the port first.
            self._places.append((f"ipport={shown_port},port={shown_host}", f"ipport={port},port={host}"))
        self._places.append((step.place, real))

    def _launch(self, text: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {self._real(text)}"], cwd=self._run, env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._background.append(process)
        return process

    def _start(self, command: Command) -> Outcome:
        """A machine, or a tap, that goes on being one: what it printed until a debugger can come."""
        process = self._launch(command.text)
        printed = _until_url(process.stdout)
        if _LINE_URL.search(printed):
            return Outcome(command, self._shown(printed), None)
        self._last = process.wait(20)
        return Outcome(command, self._shown(printed), self._last)

    def _interrupt(self, command: Command) -> Outcome:
        """A capture that is interrupted as soon as a page of it is on the disk."""
        process = self._launch(command.text)
        assert process.stdout is not None
        printed: list[str] = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("reading "):
                break
        while process.poll() is None:
            if any(path.stat().st_size for path in self._run.glob("*.snapshot/memory.raw")):
                process.send_signal(signal.SIGINT)
                printed.append(f"{_INTERRUPT}\n")
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        printed += process.stdout
        self._last = process.wait(_SECONDS)
        return Outcome(command, self._shown("".join(printed)), self._last)

    def _carry_out(self, command: Command) -> Outcome:
        text = self._real(command.text)
        if self._runner is not None and text.startswith("kdbridge ") and not _FOR_SHELLS.search(_QUOTED.sub("", text)):
            output = self.folder / "output"
            self._last = self._runner.run(shlex.split(text)[1:], self._run, output)
            printed = output.read_text(encoding="utf-8", errors="replace")
            return Outcome(command, self._shown(printed), self._last)
        # The exit code of the command before is there to be asked for.
        script = f"(exit {self._last}); {text}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self._run, env=ENVIRONMENT, check=False, timeout=_SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._last = done.returncode
        return Outcome(command, self._shown(done.stdout.decode("utf-8", "replace")), done.returncode)

    def _real(self, text: str) -> str:
        for shown, real in self._places:
            text = text.replace(shown, real)
        return text

    def _shown(self, text: str) -> list[str]:
        for shown, real in self._places:
            text = text.replace(real, shown)
        return [line.rstrip() for line in text.rstrip("\n").split("\n") if not _PROGRESS.fullmatch(line)]


def _until_url(stream: IO[str] | None) -> str:
    """Lines, up to the one that names the line that is served, or the end."""
    lines: list[str] = []
    for line in stream or ():
        lines.append(line)
        if _LINE_URL.match(line):
            break
    return "".join(lines)


def agree(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether a page tells what a command printed. A line that is … stands for any lines, … in a line for any text.

    Progress, which a command shows when it takes longer than on the machine where the page was made, need not be there.
    """
    pattern = "".join(
        r"(?:.*\n)*?"
        if line.strip() == _ANYTHING
        else ".*?".join(map(re.escape, line.rstrip().split(_ANYTHING))) + r"\n"
        for line in _trimmed(shown)
    )
    lines = _trimmed(printed)
    without_progress = [line for line in lines if not _PROGRESS.search(line)]
    return any(re.fullmatch(pattern, "".join(f"{line}\n" for line in text)) for text in (lines, without_progress))


def difference(shown: Sequence[str], printed: Sequence[str]) -> str:
    """Both side by side, for a person."""
    return "\n".join(difflib.unified_diff(_trimmed(shown), _trimmed(printed), "page", "printed", lineterm="", n=2))


def _trimmed(lines: Sequence[str]) -> list[str]:
    kept = [line.rstrip() for line in lines]
    while kept and not kept[-1]:
        kept.pop()
    return kept
