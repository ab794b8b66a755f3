"""What was found out about a target: plain values, made by discovery, kept in snapshots, shown by `info`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.address import PageRuns
from protocol.arch import pointer_size_of
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

from .source import StopEvent

__all__ = [
    "NAME_NOT_READ",
    "Finding",
    "Kdbg",
    "Module",
    "Processor",
    "SharedData",
    "Target",
    "UnloadedModule",
    "image_of",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One step of discovery: what was looked for, how it was found, or what is missing and what that costs."""

    step: str
    found: bool
    text: str


@dataclass(frozen=True, slots=True)
class Kdbg:
    """The KDDEBUGGER_DATA64 block, plain. `encoded` tells that the target's memory holds it encoded."""

    address: int
    block: Structure
    encoded: bool


@dataclass(frozen=True, slots=True)
class Processor:
    """One processor: where its KPRCB is and what its registers are. None where the target gave none."""

    number: int
    prcb: int | None
    context_address: int | None
    """Where readers of a dump look for this processor's CONTEXT."""
    context: Structure | None
    special_registers: Structure | None


NAME_NOT_READ = "<name not read>"
"""In place of the name of a module of which a first look read only where it lies."""


@dataclass(frozen=True, slots=True)
class Module:
    """A loaded image. Timestamp and checksum as in its PE header; 0 as long as its name is NAME_NOT_READ."""

    name: str
    path: str
    base: int
    size: int
    entry_point: int
    time_date_stamp: int
    check_sum: int
    entry_address: int


def image_of(modules: Sequence[Module], address: int) -> Module | None:
    """The image that an address lies in."""
    return next((one for one in modules if one.base <= address < one.base + one.size), None)


@dataclass(frozen=True, slots=True)
class UnloadedModule:
    """An image that was unloaded. `time` is a FILETIME."""

    name: str
    start: int
    end: int
    time: int


@dataclass(frozen=True, slots=True)
class SharedData:
    """What KUSER_SHARED_DATA says of the system. Times in 100 ns; system_time is a FILETIME (UTC)."""

    system_time: int
    interrupt_time: int
    nt_major_version: int
    nt_minor_version: int
    nt_build_number: int
    product_type: int
    suite_mask: int
    system_root: str
    active_processor_count: int


@dataclass(frozen=True, slots=True)
class Target:
    """A machine as discovery left it. What is None or empty has a Finding that says why."""

    version: GetVersion64
    stop: StopEvent | None
    kdbg: Kdbg | None
    processors: tuple[Processor, ...]
    directory_table_base: int | None
    runs: PageRuns | None
    bug_check_code: int | None
    bug_check_parameters: tuple[int, int, int, int]
    modules: tuple[Module, ...]
    unloaded_modules: tuple[UnloadedModule, ...]
    shared_data: SharedData | None
    build_lab: str
    break_status: int | None
    """First argument of DbgBreakPointWithStatus, when the machine stands on it (kd-protocol 7.1)."""
    findings: tuple[Finding, ...]

    @property
    def pointer_size(self) -> int:
        """Bytes of its pointers."""
        return pointer_size_of(self.version.machine_type)

    @property
    def kernel_base(self) -> int:
        """Where the kernel's image begins; 0 where nobody says it."""
        return self.version.kern_base or (self.kdbg.block["kern_base"] if self.kdbg is not None else 0)

    @property
    def shortcomings(self) -> tuple[Finding, ...]:
        """The findings that tell what is missing."""
        return tuple(finding for finding in self.findings if not finding.found)
