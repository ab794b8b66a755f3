"""Runs `kdbridge …` without loading it anew each time: a process that has loaded it, and forks for each command.

What a command sees is what it sees otherwise: a process of its own, its arguments, its folder, its exit code.
python -m tests.docs.runner is that process; Runner is how it is asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from tests.house.tree import ROOT

__all__ = ["Runner"]


class Runner:
    """The process that forks. Close it when done."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.runner"], cwd=ROOT, env=dict(environment),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=20)

    def run(self, arguments: Sequence[str], folder: Path, output: Path) -> int:
        """Run kdbridge with these arguments; stdout and stderr go into one file. Gives the exit code."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([list(arguments), str(folder), str(output)]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


def _be(arguments: Sequence[str], folder: str, output: str) -> NoReturn:
    """Be kdbridge, in a process that was forked for it."""
    from kdbridge.cli import main

    os.chdir(folder)
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, number in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(fd, number)
    sys.argv = ["kdbridge", *arguments]
    code: object = 1
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _serve() -> None:
    import kdbridge.cli  # noqa: F401  (loaded here, for all)

    # click asks the main module what it is called.
    sys.modules["__main__"].__package__ = ""

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve()
