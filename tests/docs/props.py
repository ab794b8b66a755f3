"""Files that pages speak of as if an earlier command had made them: server.dmp and server.snapshot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["COMMAND", "make_props"]

COMMAND = ("dump", "sim:bugcheck?memory=16M", "server.dmp", "--keep-snapshot", "server.snapshot")
"""What makes them: a complete dump of a small machine."""


def make_props(folder: Path) -> None:
    """Make the files in this folder. Raises CalledProcessError."""
    program = Path(sys.executable).with_name("kdbridge")
    subprocess.run([program, *COMMAND], cwd=folder, check=True, capture_output=True, timeout=100)
