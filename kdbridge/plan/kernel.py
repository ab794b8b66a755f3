"""From a small dump to a kernel dump: lists and stacks, then what the kernel half of every process maps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from kdbridge.discovery.notes import try_read
from kdbridge.discovery.processes import ProcessEntry, find_processes, find_thread_links, threads_of
from kdbridge.errors import TargetRefusedError
from kdbridge.memory.translate import Translator
from kdbridge.source import PhysicalMemory, Source
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, PageRuns
from protocol.arch import Architecture, architecture_of
from protocol.layouts.kernel import KLDR_DATA_TABLE_ENTRY64, LARGEST_NAME
from protocol.layouts.pfn import PageLocation

from .pfn_database import PfnDatabase, find_pfn_database
from .places import Places
from .plan import PlannedPages, Stage, VirtualRange
from .tables import Mapped, TableWalk
from .threads import stack_of_thread

__all__ = ["KernelPages"]

_THREAD = 0x800
_IN_USE = (PageLocation.ACTIVE, PageLocation.MODIFIED, PageLocation.MODIFIED_NO_WRITE, PageLocation.TRANSITION)
"""Standby pages are a cache of files, but for those that an entry in transition names; free ones are nobody's."""


@dataclass(frozen=True, slots=True)
class _Walkable:
    """What walking page tables takes."""

    physical: PhysicalMemory
    architecture: Architecture
    root: int
    runs: PageRuns


def _walkable(source: Source, target: Target) -> _Walkable:
    """Raises TargetRefusedError where a target lacks what walking page tables takes."""
    architecture = architecture_of(target.version.machine_type)
    if architecture is None or target.directory_table_base is None or source.physical is None:
        raise TargetRefusedError(
            "a kernel dump needs page tables, and this target gives no directory table base",
            api="ReadControlSpace",
            status=0,
        )
    if target.runs is None:
        raise TargetRefusedError(
            "the physical memory runs are unknown, so pages of RAM and of devices cannot be told apart; "
            "nothing was read, because reading a device changes it",
            api="ReadVirtualMemory",
            status=0,
        )
    return _Walkable(source.physical, architecture, target.directory_table_base, target.runs)


class KernelPages:
    """The parts of the stages CORE and KERNEL; what they find of user memory is kept for ACTIVE."""

    def __init__(self, source: Source, target: Target) -> None:
        """Raises TargetRefusedError where there are no page tables to walk."""
        self._source = source
        self._target = target
        known = _walkable(source, target)
        self._root, self._runs = known.root, known.runs
        self._geometry = known.architecture.paging
        self._register = known.architecture.directory_table_base
        block = target.kdbg.block if target.kdbg is not None else None
        high = block["l1tf_high_physical_bit_index"] if block is not None and block.has("size_pcr") else 0
        self._walk = TableWalk(known.physical, self._geometry, known.runs, high)
        self._places = Places(Translator(known.physical, self._geometry, known.root, runs=known.runs), known.runs)
        self._system = Mapped(PageRuns(), PageRuns(), PageRuns())
        self.processes: tuple[ProcessEntry, ...] = ()
        self._database: PfnDatabase | None = None
        self.user = Mapped(PageRuns(), PageRuns(), PageRuns())
        """What user halves map; known when KERNEL has ended."""

    async def core(self) -> AsyncIterator[PlannedPages]:
        """Lists and stacks; then all page tables of System, and what the kernel can write to."""
        stage = Stage.CORE
        places = self._places
        modules = self._target.modules
        entries = [VirtualRange(module.entry_address, KLDR_DATA_TABLE_ENTRY64.size) for module in modules]
        yield PlannedPages(await places.frames(entries), "the list of modules", stage=stage)
        yield PlannedPages(await places.frames(await self._names(entries)), "the modules' names", stage=stage)
        self.processes = await find_processes(self._source, self._target)
        block = self._target.kdbg.block if self._target.kdbg is not None else None
        size = block["size_eprocess"] if block is not None else 0
        objects = [VirtualRange(process.address, size or PAGE_SIZE) for process in self.processes]
        yield PlannedPages(await places.frames(objects), "processes", stage=stage)
        threads, stacks = await self._threads(block["size_ethread"] if block is not None else 0)
        yield PlannedPages(await places.frames(threads), "threads", stage=stage)
        yield PlannedPages(await places.frames(stacks), "all kernel stacks", stage=stage)
        headers = [VirtualRange(module.base, PAGE_SIZE) for module in modules]
        yield PlannedPages(await places.frames(headers), "the modules' headers", stage=stage)
        async with aclosing(self._tables([self._root], self._geometry.kernel_entries, stage)) as parts:  # type: ignore[type-var]
            async for part in parts:
                yield part
        self._system = self._walk.take()
        yield PlannedPages(self._system.writable, "what the kernel writes to", stage=stage, ends=True)

    async def kernel(self) -> AsyncIterator[PlannedPages]:
        """The rest of what System's kernel half maps, what is different in each process's, and their page tables."""
        stage = Stage.KERNEL
        self._database = await find_pfn_database(
            self._source, self._target, self._walk.tables, self._system.writable, self._system.transition
        )
        if self._database is not None:
            # What is mapped a second time, to be written to, may have been written to by now.
            frames = self._database.unmodified(self._source, self._system.read_only - self._system.writable)
            clean = PageRuns([run async for run in frames])
            yield PlannedPages(clean, "code that nobody wrote to", stage=stage, unmodified=True)
        yield PlannedPages(self._system.all, "the kernel's code and transition pages", stage=stage)
        roots = self._roots()
        kernel = self._geometry.kernel_entries
        async with aclosing(self._tables(roots, kernel, stage)) as parts:  # type: ignore[type-var]
            async for part in parts:
                yield part
        yield PlannedPages(self._walk.take().all, "sessions and other processes' kernel memory", stage=stage)
        async with aclosing(self._tables(roots, range(kernel.start), stage)) as parts:  # type: ignore[type-var]
            async for part in parts:
                yield part
        self.user = self._walk.take()
        yield PlannedPages(PageRuns(), "a kernel dump", stage=stage, ends=True)

    async def active(self) -> AsyncIterator[PlannedPages]:
        """What is in use beside the kernel's pages. Which way it was found out is a part of the reason."""
        stage = Stage.ACTIVE
        yield PlannedPages(self.user.all, "what processes use, by their page tables", stage=stage)
        database = self._database or await find_pfn_database(
            self._source, self._target, self._walk.tables, self._system.writable,
            self._system.transition | self.user.transition,
        )  # fmt: skip
        self._database = database
        if database is not None:
            frames = database.frames(self._source, self._runs, *_IN_USE)
            used = PageRuns([run async for run in frames])
            yield PlannedPages(used, f"what is in use, by {database}", stage=stage)
        yield PlannedPages(PageRuns(), "an active dump", stage=stage, ends=True)

    async def zeroed(self) -> AsyncIterator[PlannedPages]:
        """Pages on the list of zeroed ones, if the PFN database is known; none of them is mapped by anything."""
        if self._database is not None:
            frames = self._database.frames(self._source, self._runs, PageLocation.ZEROED)
            pages = PageRuns([run async for run in frames]) - self._walk.tables - self._system.all - self.user.all
            yield PlannedPages(pages, f"zeroed pages, by {self._database}", stage=Stage.COMPLETE, zeroed=True)

    async def _tables(self, roots: list[int], slots: range, stage: Stage) -> AsyncIterator[PlannedPages]:
        async with aclosing(self._walk.levels(roots, slots)) as levels:  # type: ignore[type-var]
            async for tables in levels:
                yield PlannedPages(tables, "page tables", stage=stage)

    def _roots(self) -> list[int]:
        """Of System, of the processors (which may stand on a root that no process has), and of every process."""
        registers = [
            processor.special_registers[self._register]
            for processor in self._target.processors
            if processor.special_registers is not None and self._register
        ]
        return [self._root, *registers, *(process.directory_table_base for process in self.processes)]

    async def _names(self, entries: list[VirtualRange]) -> list[VirtualRange]:
        """The texts that the entries of the list of modules point to."""
        names: list[VirtualRange] = []
        for entry in entries:
            data = await try_read(self._source, entry.address, entry.size)
            if data is not None:
                fields = KLDR_DATA_TABLE_ENTRY64.decode(data)
                names += (
                    VirtualRange(fields[name], min(fields[f"{name}_length"], LARGEST_NAME))
                    for name in ("full_dll_name", "base_dll_name")
                )
        return names

    async def _threads(self, size: int) -> tuple[list[VirtualRange], list[VirtualRange]]:
        """Threads and their kernel stacks, as far as lists can be proven."""
        threads: list[VirtualRange] = []
        stacks: list[VirtualRange] = []
        links = await find_thread_links(self._source, self._target)
        if links is None:
            return threads, stacks
        for process in self.processes:
            for thread in await threads_of(self._source, self._target, process.address, links):
                threads.append(VirtualRange(thread, size or _THREAD))
                stack = await stack_of_thread(self._source, self._target, thread)
                if stack is not None:
                    stacks.append(stack)
        return threads, stacks
