"""Bringing pages home: a plan says which, the source gives them, the Snapshot keeps them as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

import trio

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, PhysicalAddress
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

from .errors import MemoryFault
from .plan import Plan
from .progress import Meter, ProgressSink
from .rereading import Unread, reread
from .snapshot import PageState, Snapshot
from .source import PageRead, PhysicalMemory, Source, StopEvent, VirtualMemory

__all__ = ["Acquired", "KeepingMemory", "KeepingSource", "acquire"]

_CHECKPOINT = 1.0
"""Seconds between two checkpoints: what a killed process loses at most."""


@dataclass(frozen=True, slots=True)
class Acquired:
    """What one capture brought."""

    pages: int
    unreadable: PageRuns
    seconds: float
    unread: Unread
    """What stayed unreadable, by reason."""
    compared: tuple[str, ...] = ()
    """What reading twice came to, in words; empty where nothing was."""


class KeepingMemory:
    """Physical memory that puts every page it reads into a Snapshot, and reads none of them twice."""

    __slots__ = ("_meter", "_next_checkpoint", "_physical", "_snapshot")

    def __init__(self, physical: PhysicalMemory, snapshot: Snapshot, meter: Meter) -> None:
        self._physical = physical
        self._snapshot = snapshot
        self._meter = meter
        self._next_checkpoint = trio.current_time() + _CHECKPOINT

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        """Exactly `size` bytes, from the Snapshot where it has them. MemoryFault where the target has none."""
        first, last = address >> PAGE_SHIFT, (address + size - 1) >> PAGE_SHIFT
        parts: list[bytes] = []
        for pfn in range(first, last + 1):
            page: bytes | memoryview | None = self._snapshot.page(pfn)
            if page is None:
                async with aclosing(self.read_pages([PageRun(pfn, 1)])) as pages:  # type: ignore[type-var]
                    async for read in pages:
                        page = read.data
            if page is None:
                at = max(address, pfn << PAGE_SHIFT)
                raise MemoryFault(
                    f"the target cannot read physical address {at:#x}",
                    address=at, size=size, done=at - address, virtual=False,
                )  # fmt: skip
            parts.append(bytes(page))
        start = address - (first << PAGE_SHIFT)
        return b"".join(parts)[start : start + size]

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        """The pages, kept before they are handed on."""
        meter = self._meter
        async with aclosing(self._physical.read_pages(runs)) as pages:  # type: ignore[type-var]
            async for read in pages:
                meter.done += PAGE_SIZE
                if read.data is None:
                    meter.unreadable += 1
                    self._snapshot.log(f"page {read.pfn:#x} is unreadable: {read.reason}")
                self._keep(read)
                yield read

    def _keep(self, read: PageRead) -> None:
        self._snapshot.put(read.pfn, read.data)
        now = trio.current_time()
        self._meter.tell(now)
        if now >= self._next_checkpoint:
            self._snapshot.checkpoint()
            self._next_checkpoint = trio.current_time() + _CHECKPOINT

    async def read_again(self, runs: PageRuns) -> Unread:
        """Pages that failed, once more and in small pieces. Those that fail again, and why."""
        unread = Unread()
        async with aclosing(reread(self._physical, runs)) as pages:  # type: ignore[type-var]
            async for read in pages:
                if read.data is None:
                    unread.add(read)
                else:
                    self._meter.unreadable = max(self._meter.unreadable - 1, 0)
                self._keep(read)
        for line in unread.lines():
            self._snapshot.log(f"unreadable to the end: {line}")
        return unread


class KeepingSource:
    """A Source whose physical memory is kept; for plans, so that the page tables they walk are brought home too."""

    def __init__(self, source: Source, physical: KeepingMemory) -> None:
        self._source = source
        self._physical = physical

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    @property
    def physical(self) -> KeepingMemory:
        """The source's, kept."""
        return self._physical

    @property
    def virtual(self) -> VirtualMemory:
        """The source's own: translated by the target, not kept."""
        return self._source.virtual

    @property
    def stop(self) -> StopEvent | None:
        """The source's."""
        return self._source.stop

    async def version(self) -> GetVersion64:
        """The source's."""
        return await self._source.version()

    async def context(self, processor: int) -> Structure:
        """The source's."""
        return await self._source.context(processor)

    async def special_registers(self, processor: int) -> Structure:
        """The source's."""
        return await self._source.special_registers(processor)


async def acquire(
    source: Source,
    physical: PhysicalMemory,
    snapshot: Snapshot,
    plan: Plan,
    progress: ProgressSink | None = None,
) -> Acquired:
    """Read what the plan says into the Snapshot. Cancelled or failed at any point, all that came is kept there."""
    started = trio.current_time()
    meter = Meter(progress, "reading", None)
    meter.done = snapshot.held.page_count << PAGE_SHIFT
    memory = KeepingMemory(physical, snapshot, meter)
    keeping = KeepingSource(source, memory)
    try:
        async with aclosing(plan(keeping, snapshot.target)) as planned:  # type: ignore[type-var]
            async for part in planned:
                known = snapshot.coverage.runs(PageState.READ) | snapshot.coverage.runs(PageState.UNREADABLE)
                wanted = part.pages - known
                meter.what = part.reason
                if part.known_total is not None:
                    meter.total = part.known_total << PAGE_SHIFT
                elif wanted:
                    meter.total = meter.done + (wanted.page_count << PAGE_SHIFT)
                snapshot.log(f"plan: {wanted.page_count} of {part.pages.page_count} pages for {part.reason}")
                async with aclosing(memory.read_pages(wanted)) as pages:  # type: ignore[type-var]
                    async for _ in pages:
                        pass
        meter.what = "what failed before, in small pieces"
        unread = await memory.read_again(snapshot.coverage.runs(PageState.UNREADABLE))
    finally:
        snapshot.checkpoint()
        meter.tell(trio.current_time(), always=True)
    return Acquired(
        snapshot.coverage.runs(PageState.READ).page_count,
        snapshot.coverage.runs(PageState.UNREADABLE),
        trio.current_time() - started,
        unread,
    )
