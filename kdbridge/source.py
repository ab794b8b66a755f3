"""What a reader sees: a live target, a snapshot, a dump file and a raw image are the same thing to it.

`Source` is the seam. Page walking, discovery, rendering and analysis are written once, over this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Protocol

from kdbridge.errors import TargetRefusedError
from protocol.address import PageRun, PhysicalAddress, VirtualAddress
from protocol.arch import ARCHITECTURES, Architecture, architecture_of
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

__all__ = ["PageRead", "PhysicalMemory", "Source", "StopEvent", "VirtualMemory", "require_architecture"]


@dataclass(frozen=True, slots=True)
class PageRead:
    """One page of physical memory as it came: 4,096 bytes, or None and why it could not be read."""

    pfn: int
    data: bytes | memoryview | None
    reason: str = ""


class PhysicalMemory(Protocol):
    """Memory by physical address."""

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        """Exactly `size` bytes, across pages. MemoryFault names the first byte that cannot be had."""
        ...

    def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        """Every page of these runs, in their order, each once. Unreadable pages are told, not raised."""
        ...


class VirtualMemory(Protocol):
    """Memory by virtual address, through the page tables of the stopped processor (or of the kernel)."""

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """Exactly `size` bytes, across pages. MemoryFault names the first byte that cannot be had."""
        ...


@dataclass(frozen=True, slots=True)
class StopEvent:
    """Why a target stands still: the exception it reported (kd-protocol 2.2)."""

    processor: int
    exception_code: int
    program_counter: int
    thread: int
    first_chance: bool
    number_processors: int


class Source(Protocol):
    """Somewhere registers and memory can be read from. Reading never changes what is read from."""

    @property
    def name(self) -> str:
        """What to call it in a sentence: the target's URL, the file's name."""
        ...

    @property
    def physical(self) -> PhysicalMemory | None:
        """None where physical addresses cannot be read at all (the target refuses)."""
        ...

    @property
    def virtual(self) -> VirtualMemory:
        """Memory by virtual address."""
        ...

    @property
    def stop(self) -> StopEvent | None:
        """None where nothing is known of the stop (a raw image)."""
        ...

    async def version(self) -> GetVersion64:
        """Who it is. From a dump file: what its header says."""
        ...

    async def context(self, processor: int) -> Structure:
        """The processor's CONTEXT. TargetRefusedError where there is none."""
        ...

    async def special_registers(self, processor: int) -> Structure:
        """The processor's KSPECIAL_REGISTERS. TargetRefusedError where there are none."""
        ...


def require_architecture(machine_type: int, whose: str = "the target", *, live: bool = False) -> Architecture:
    """The architecture of this machine type. TargetRefusedError, naming those known, where it is none of them.

    With `live` it must be one whose targets can be talked to: dump files are read of others, too.
    """
    architecture = architecture_of(machine_type)
    if architecture is None or (live and not architecture.live):
        known = ", ".join(
            f"{one.name} ({one.machine_type:x})" for one in ARCHITECTURES.values() if one.live or not live
        )
        raise TargetRefusedError(
            f"{whose} is a machine of type {machine_type:#x}; this version knows {known} only",
            api="GetVersion",
            status=0,
        )
    return architecture
