"""Commands as a user would type them: each is shown before it runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["OUT", "machine", "step"]

OUT = Path(__file__).resolve().parent.parent / "out"
_BIN = Path(sys.executable).parent


def step(text: str, *command: str, inside: Sequence[str] = (), environment: dict[str, str] | None = None) -> None:
    """Show and run `kdbridge COMMAND`; end with its exit code if it fails. `inside` is a command to run it with."""
    print(f"\n# {text}\n$ kdbridge {shlex.join(command)}", flush=True)
    words = [*inside, str(_BIN / "kdbridge"), *command]
    done = subprocess.run(words, check=False, env={**os.environ, **(environment or {})})
    if done.returncode:
        print(f"that ended with exit code {done.returncode}", flush=True)
        sys.exit(done.returncode)


@contextmanager
def machine(*command: str, inside: Sequence[str] = (), environment: dict[str, str] | None = None) -> Iterator[None]:
    """A simulated machine in another process, until the block ends."""
    print(f"$ kdbridge simulate {shlex.join(command)} &", flush=True)
    words = [*inside, str(_BIN / "kdbridge"), "simulate", *command]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    try:
        if process.stdout is None or not process.stdout.readline():
            sys.exit("the simulated machine did not start")
        yield
    finally:
        process.terminate()
        process.wait(10)
