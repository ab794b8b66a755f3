"""What would go wrong at the end of a long capture, told before anything is read."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

from kdbridge.dump import DumpKind, DumpLayoutChoice
from kdbridge.errors import DumpError, UsageError
from protocol.dumpfile.header_layout import COMMENT_SIZE, MOST_RUNS

__all__ = ["check_place", "check_rendering", "check_runs"]


def check_rendering(kind: DumpKind, layout: DumpLayoutChoice, comment: str) -> None:
    """Raises UsageError for options that no dump can be written with."""
    if kind is not DumpKind.COMPLETE and layout is DumpLayoutChoice.RUNS:
        how = "pieces (type 4)" if kind is DumpKind.SMALL else f"a bitmap (type {5 if kind is DumpKind.ACTIVE else 6})"
        raise UsageError(f"--layout runs is for complete dumps: {kind.words} is always {how}")
    if not comment.isascii() or len(comment) >= COMMENT_SIZE or not all(c.isprintable() for c in comment):
        raise UsageError(f"--comment: a dump has room for {COMMENT_SIZE - 1} characters of plain ASCII")


def check_runs(layout: DumpLayoutChoice, runs: int, bits: Literal[32, 64] = 64) -> None:
    """Raises UsageError where the machine has more runs of memory than the layout that was asked for has room for."""
    if layout is DumpLayoutChoice.RUNS and runs > MOST_RUNS[bits]:
        raise UsageError(
            f"--layout runs has room for {MOST_RUNS[bits]} runs of memory, and this machine has {runs}; "
            "--layout bitmap (or auto) takes them. No page was read."
        )


def check_place(out: Path, force: bool, source: Path | None = None) -> None:
    """Raises DumpError where no file can be made at this place, and where it is the `source`, whatever is forced."""
    with suppress(OSError):  # one of them is not there: they are not the same
        if source is not None and out.samefile(source):
            raise DumpError(f"{out} is the source itself")
    if out.is_dir():
        raise DumpError(f"{out} is a folder; name the file that is to be written")
    if out.exists() and not force:
        raise DumpError(f"{out} exists already; --force overwrites it")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except FileNotFoundError:
        raise DumpError(f"{out} cannot be written: there is no folder {out.parent}") from None
    except OSError as error:
        raise DumpError(f"{out} cannot be written: {error.strerror or error}") from None
