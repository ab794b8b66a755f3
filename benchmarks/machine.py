"""A simulated machine in another process, for what is measured against it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

__all__ = ["machine"]


@contextlib.contextmanager
def machine(where: str, *options: str) -> Iterator[str]:
    """A simulated machine in another process; gives the URL of its line."""
    options = options or ("--memory", "128M", "--processors", "1")
    command = [sys.executable, "-m", "simulator", "bugcheck", "--on", where, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline().strip() if process.stdout else ""
        assert line, "the simulator did not start"
        yield line
    finally:
        process.terminate()
        process.wait(10)
