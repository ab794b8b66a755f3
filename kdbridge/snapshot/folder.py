"""The folder of a Snapshot: what its files are called, and what makes one usable."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from kdbridge.errors import DiskFullError, SnapshotError
from protocol.address import PAGE_SHIFT

from .coverage import Coverage, PageState
from .lock import lock

__all__ = [
    "CONSOLE",
    "COVERAGE",
    "MEMORY",
    "PIECES",
    "REACHED",
    "REQUESTS",
    "TARGET",
    "check_length",
    "close_all",
    "lock_or_refuse",
    "not_written",
    "parsed",
]

MEMORY, PIECES, COVERAGE, TARGET, CONSOLE, REQUESTS = (
    "memory.raw",
    "virtual.raw",
    "coverage",
    "target.json",
    "console.txt",
    "requests.log",
)
REACHED = "stage"
"""File names in the folder."""


def close_all(opened: Iterable[int]) -> None:
    """Give these files back."""
    for fd in opened:
        os.close(fd)


def lock_or_refuse(fd: int, path: Path) -> None:
    """Be the only writer. Raises SnapshotError where another one is."""
    if not lock(fd):
        raise SnapshotError(
            f"{path} is being written by another kdbridge; let it end, or stop it (Ctrl-C keeps all that it read). "
            "`kdbridge convert --partial` makes a dump of it even now"
        )


def check_length(size: int, states: Coverage, path: Path) -> None:
    """What coverage calls read must be in the file: a copy that stopped half way must not pass for zeros."""
    end = max(states.runs(state).end_page for state in (PageState.READ, PageState.INFERRED_IMAGE)) << PAGE_SHIFT
    if size < end:
        raise SnapshotError(f"{path} has {size} bytes, and pages up to {end} were read: the Snapshot is damaged")


def parsed(text: bytes, path: Path) -> Mapping[str, object]:
    """The document of target.json. Raises SnapshotError where it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise SnapshotError(f"{path} is not valid JSON: the Snapshot is damaged") from None
    if not isinstance(document, dict):
        raise SnapshotError(f"{path} is not a description of a target")
    return document


def not_written(path: Path, error: OSError) -> SnapshotError:
    """What to raise when something could not be written into the folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFullError(f"{path} cannot be written: {error.strerror or error}. What is in it stays")
    return SnapshotError(f"{path} cannot be written: {error.strerror or error}. See what became of that folder.")
