"""Bringing pages home: a plan says which, the source gives them, the Snapshot keeps them as they come."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

import trio

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, PhysicalAddress, VirtualAddress
from protocol.arch import architecture_of
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

from .budget import Budget
from .double_reading import DoubleReading
from .errors import MemoryFault
from .local_images import LocalImages
from .memory.virtual import PagedVirtualMemory
from .plan import Plan, PlannedPages, Stage, VirtualRange
from .progress import Meter, ProgressSink
from .rereading import Unread, reread
from .snapshot import PageState, Snapshot
from .source import PageRead, PhysicalMemory, Source, StopEvent, VirtualMemory

__all__ = ["Acquired", "Inference", "KeepingMemory", "KeepingSource", "KeepingVirtualMemory", "acquire"]

_SAMPLE_OF_IMAGE = 8
"""One of so many pages of an image is read and compared."""
_CHECKPOINT = 0.5
"""Seconds between two checkpoints. Each is durable when the next begins: a killed process loses a second at most."""


@dataclass(frozen=True, slots=True)
class Inference:
    """What may be taken for true without being read. Nothing, unless the user named it."""

    zeros: bool = False
    """Pages that the target's PFN database has on its list of zeroed ones."""
    images: LocalImages | None = None
    """Read-only parts of modules that nobody wrote to, from the files that they were loaded from."""
    strict: bool = False
    """Read everything, also what an earlier capture inferred."""


@dataclass(frozen=True, slots=True)
class Acquired:
    """What one capture brought."""

    pages: int
    unreadable: PageRuns
    seconds: float
    unread: Unread
    """What stayed unreadable, by reason."""
    reached: Stage | None = None
    """The last stage of the plan that was read to its end; None: not even the first."""
    spent: str = ""
    """Which budget ended it, in words; empty where the plan came to its end."""
    compared: tuple[str, ...] = ()
    """What reading twice came to, in words; empty where nothing was."""


class KeepingMemory:
    """Physical memory that puts every page it reads into a Snapshot, and reads none of them twice."""

    __slots__ = ("_budget", "_meter", "_next_checkpoint", "_physical", "_snapshot")

    def __init__(self, physical: PhysicalMemory, snapshot: Snapshot, meter: Meter, budget: Budget) -> None:
        self._physical = physical
        self._snapshot = snapshot
        self._meter = meter
        self._budget = budget
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
        self._went_on()

    def _went_on(self) -> None:
        self._budget.use(PAGE_SIZE)
        now = trio.current_time()
        self._meter.tell(now)
        if now >= self._next_checkpoint:
            self._snapshot.settle()
            self._snapshot.checkpoint_soon()
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

    async def compare_earlier(self) -> None:
        """What was read once before it turned out that once is not enough: a second time, and put right."""
        if not isinstance(self._physical, DoubleReading):
            return
        async with aclosing(self._physical.earlier(self._snapshot.page)) as pages:  # type: ignore[type-var]
            async for read in pages:
                self._meter.what = "what was read once before, a second time"
                if read.data is not None and read.data != self._snapshot.page(read.pfn):
                    self._snapshot.log(f"page {read.pfn:#x} had come wrong, and was put right")
                    self._snapshot.correct(read.pfn, read.data)
                self._went_on()


class KeepingVirtualMemory:
    """Virtual memory of a target whose page tables cannot be walked: what is read is kept by its addresses."""

    __slots__ = ("_budget", "_snapshot", "_virtual")

    def __init__(self, virtual: VirtualMemory, snapshot: Snapshot, budget: Budget) -> None:
        self._virtual = virtual
        self._snapshot = snapshot
        self._budget = budget

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """Exactly `size` bytes, from the Snapshot where it has them. MemoryFault where the target has none."""
        try:
            return await self._snapshot.blocks.read(address, size)
        except MemoryFault:
            pass
        data = b""
        try:
            data = await self._virtual.read(address, size)
        except MemoryFault as fault:
            # What came before the hole is as good as any.
            if fault.done:
                data = await self._virtual.read(address, fault.done)
            raise
        finally:
            if data:
                self._snapshot.put_virtual(address, data)
                self._budget.use(len(data))
        return data

    async def bring(self, ranges: Iterable[VirtualRange]) -> None:
        """Read these pieces, each as far as it goes, and again from the next page on."""
        for piece in ranges:
            at, end = piece.address, min(piece.address + piece.size, 1 << 64)
            while piece.address and at < end:
                try:
                    await self.read(VirtualAddress(at), end - at)
                    break
                except MemoryFault as fault:
                    at = (at + fault.done & ~(PAGE_SIZE - 1)) + PAGE_SIZE


class KeepingSource:
    """A Source of which everything that is read is kept; for plans: what they look at to find out, they bring home."""

    def __init__(self, source: Source, physical: KeepingMemory | None, virtual: VirtualMemory) -> None:
        self._source = source
        self._physical = physical
        self._virtual = virtual

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    @property
    def physical(self) -> KeepingMemory | None:
        """The source's, kept."""
        return self._physical

    @property
    def virtual(self) -> VirtualMemory:
        """Through page tables that are kept; where there are none to be had, the target's own."""
        return self._virtual

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
    physical: PhysicalMemory | None,
    snapshot: Snapshot,
    plan: Plan,
    progress: ProgressSink | None = None,
    budget: Budget | None = None,
    inference: Inference | None = None,
) -> Acquired:
    """Read what the plan says into the Snapshot, as far as the budget goes.

    Without `physical` memory is read by virtual address, and only plans that name ranges bring anything home.
    Cancelled or failed at any point, all that came is kept in the Snapshot.
    """
    capture = _Capture(source, physical, snapshot, budget or Budget(), progress, inference or Inference())
    try:
        with capture.budget.scope():
            await capture.run(plan)
    finally:
        snapshot.checkpoint()
        capture.meter.tell(trio.current_time(), always=True)
    return capture.acquired()


class _Capture:
    def __init__(
        self,
        source: Source,
        physical: PhysicalMemory | None,
        snapshot: Snapshot,
        budget: Budget,
        progress: ProgressSink | None,
        inference: Inference,
    ) -> None:
        self._inference = inference
        self.started = trio.current_time()
        self.snapshot = snapshot
        self.budget = budget
        self.meter = Meter(progress, "reading", None)
        self.meter.done = snapshot.held.page_count << PAGE_SHIFT
        self.memory = None if physical is None else KeepingMemory(physical, snapshot, self.meter, budget)
        self.reached: Stage | None = None
        self.unread = Unread()
        target = snapshot.target
        architecture = architecture_of(target.version.machine_type)
        self.by_address = KeepingVirtualMemory(source.virtual, snapshot, budget)
        virtual: VirtualMemory = self.by_address
        if self.memory is not None and architecture is not None and target.directory_table_base is not None:
            virtual = PagedVirtualMemory(self.memory, architecture.paging, target.directory_table_base, target.runs)
        self._source = KeepingSource(source, self.memory, virtual)

    async def run(self, plan: Plan) -> None:
        async with aclosing(plan(self._source, self.snapshot.target)) as planned:  # type: ignore[type-var]
            async for part in planned:
                await self._bring(part)
                if part.ends:
                    self.reached = part.stage
                    self.snapshot.checkpoint()
                    self.snapshot.reach(part.stage)
                    self.snapshot.log(f"plan: the end of the stage {part.stage.title}")
        self.meter.what = "what failed before, in small pieces"
        if self.memory is not None:
            self.unread = await self.memory.read_again(self.snapshot.coverage.runs(PageState.UNREADABLE))
            await self.memory.compare_earlier()

    async def _bring(self, part: PlannedPages) -> None:
        coverage = self.snapshot.coverage
        wanted = part.pages - coverage.runs(PageState.READ) - coverage.runs(PageState.UNREADABLE)
        if not self._inference.strict:
            wanted -= self.snapshot.inferred
        if part.unmodified:
            await self._infer_images(wanted)
            return
        if part.zeroed:
            if self._inference.zeros:
                self.snapshot.log(f"inferred: {wanted.page_count} {part.reason}")
                self.snapshot.infer_zeros(wanted)
            return
        meter = self.meter
        meter.what = f"{part.stage.title}: {part.reason}"
        if part.known_total is not None:
            meter.total = part.known_total << PAGE_SHIFT
        elif wanted:
            meter.total = meter.done + (wanted.page_count << PAGE_SHIFT)
        ahead = meter.done + (wanted.page_count << PAGE_SHIFT)
        meter.next, meter.next_total = ("", None) if ahead == meter.total else (part.stage.brings, ahead)
        if part.pages:
            self.snapshot.log(f"plan: {wanted.page_count} of {part.pages.page_count} pages for {part.reason}")
        if self.memory is not None:
            async with aclosing(self.memory.read_pages(wanted)) as pages:  # type: ignore[type-var]
                async for _ in pages:
                    pass
            # At once: a page table that came wrong would mislead the plan.
            await self.memory.compare_earlier()
        if part.ranges:
            self.snapshot.log(f"plan: {len(part.ranges)} pieces for {part.reason}")
            await self.by_address.bring(part.ranges)

    async def _infer_images(self, clean: PageRuns) -> None:
        """What of these pages belongs to modules whose files are here and pass for theirs."""
        images, virtual = self._inference.images, self._source.virtual
        if images is None or self.memory is None or not isinstance(virtual, PagedVirtualMemory):
            return
        for module in self.snapshot.target.modules:
            image, why = images.of(module)
            if image is None:
                self.snapshot.log(f"image {module.name}: {why}")
                continue
            places: dict[int, bytes] = {}
            differing = 0
            for rva, data in image.pages.items():
                physical = (await virtual.translator.translate(module.base + rva)).physical
                pfn = -1 if physical is None else physical >> PAGE_SHIFT
                known = self.snapshot.page(pfn) if pfn >= 0 else None
                differing += known is not None and known != data
                if pfn in clean:
                    places[pfn] = data
            outcome = "its file is not believed: pages that were read before differ"
            if not differing:
                outcome = await self._believe(module.base, places)
            self.snapshot.log(f"image {module.name}: {outcome}")

    async def _believe(self, seed: int, places: dict[int, bytes]) -> str:
        """Read a sample, and take the rest for what the file says if all of it is; what came of it, in words."""
        if len(places) < 2 or self.memory is None:
            return "too few pages that nobody wrote to"
        count = max(len(places) // _SAMPLE_OF_IMAGE, 1)
        sample = PageRuns.from_pages(random.Random(seed).sample(sorted(places), count))
        async with aclosing(self.memory.read_pages(sample)) as pages:  # type: ignore[type-var]
            async for read in pages:
                if read.data is None or bytes(read.data) != places[read.pfn]:
                    return f"its file is not believed: page {read.pfn:#x} of the sample differs"
        for pfn in sorted(set(places) - set(sample.pages())):
            self.snapshot.infer(pfn, places[pfn])
        return f"{len(places) - count} pages inferred, after {count} were the same"

    def acquired(self) -> Acquired:
        coverage = self.snapshot.coverage
        return Acquired(
            coverage.runs(PageState.READ).page_count,
            coverage.runs(PageState.UNREADABLE),
            trio.current_time() - self.started,
            self.unread,
            self.reached,
            self.budget.spent,
        )
