"""What kind of machine is wanted: everything that a seed does not decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protocol.address import PageRuns

__all__ = ["BugCheck", "KernelOptions", "StopKind"]

StopKind = Literal["bugcheck-first", "bugcheck-final", "breakpoint", "running"]
"""Where the machine stands: a bug check's first or last break (status 3, 4), an int3 in a driver, or a break-in."""


@dataclass(frozen=True, slots=True)
class BugCheck:
    """A bug check. Without parameters they are those that fit the stack that was made (D1 and A)."""

    code: int
    parameters: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """What kind of machine. Everything that is not told here is drawn from the seed."""

    seed: int = 1
    processors: int = 4
    memory_size: int = 256 << 20
    """Bytes of RAM, 16 MiB to 64 GiB and beyond."""
    runs: int | PageRuns | None = None
    """So many runs, or these; None: those of a PC of this size."""
    build: int = 19041
    kdbg_size: int | None = None
    """None: as long as this build's."""
    encoded_kdbg: bool = False
    foreign_block: bool = False
    """Another owner's block stands before the kernel's in the list of debugger data."""
    content_size: int | None = None
    """Bytes of RAM filled with data that is not zero; None: a sixteenth of memory, at most 4 MiB."""
    unreadable_pages: int = 0
    """So many pages of the runs cannot be read by anybody."""
    gigabyte_page: bool | None = None
    """A 1 GiB page maps RAM; None: on machines with 4 GiB and more."""
    stop: StopKind = "bugcheck-final"
    bug_check: BugCheck = BugCheck(0xD1)
    stopped_processor: int = 0
    debugger_attached: bool = False
    """A debugger has answered before (bit 1 of KdDebuggerEnabled)."""
    system_time: int = 133_546_012_134_567_890
    """FILETIME, UTC: 2024-03-11 05:20:13."""
    uptime: int = 3 * 3600 * 10_000_000 + 4_230_000_000
    """100 ns units since boot."""
