"""What the house rules look at: the files of this repository, read and parsed once."""

from __future__ import annotations

import ast
import functools
import subprocess
import tomllib
from pathlib import Path
from typing import Any

__all__ = ["HOUSE", "PACKAGES", "ROOT", "parsed", "sources", "table", "tracked"]

HOUSE = Path(__file__).resolve().parent
ROOT = HOUSE.parent.parent
PACKAGES = ("kdbridge", "protocol", "simulator")


@functools.cache
def tracked() -> tuple[str, ...]:
    """Every file under version control that is still here, as a path from the root."""
    # The folder may belong to another user than the one who runs the tests, as in a container.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(name for name in listing.split("\0") if name and (ROOT / name).is_file())


@functools.cache
def sources() -> tuple[str, ...]:
    """The source files of the three packages."""
    return tuple(name for name in tracked() if name.endswith(".py") and name.split("/")[0] in PACKAGES)


@functools.cache
def parsed(name: str) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def table(name: str) -> dict[str, Any]:
    """A table of named exceptions that lies beside the rules."""
    return tomllib.loads((HOUSE / name).read_text(encoding="utf-8"))
