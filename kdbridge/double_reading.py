"""Reading twice: KD's checksum lets some damage through, and what two reads agree on is not damaged.

A share of the pages, chosen by a seed, is read a second time and compared; or all of them, from the moment on at
which the line's errors make it likely that damage gets through unseen (`silent_errors`), or at which some did. What
was read once before that moment waits for its second reading (`earlier`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass

import trio

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, PhysicalAddress

from .errors import MemoryFault
from .silent_errors import LIKELY, LineRecord, expected_silent_errors, warning
from .source import PageRead, PhysicalMemory

__all__ = ["DoubleReading", "ReadTwice"]

_BATCH_PAGES = 64
_BATCH_SECONDS = 0.5
_LOOK_PAGES = 64
_WHOLE_TRIES, _PIECE_TRIES = 4, 16
_PIECE = 256
_ENOUGH = 3
"""Fewer damaged packets than this are an accident, and no rate."""
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class ReadTwice:
    """What a user wishes: the share of pages that is read twice (0 to 1), and the seed that chooses them."""

    share: float = 0.0
    seed: int = 1
    automatic: bool = True
    """Read all of them twice once the line's errors make silent ones likely."""


class DoubleReading:
    """Physical memory that makes sure of what it reads."""

    __slots__ = (
        "_batch", "_line", "_once_read", "_physical", "_report", "_wish", "differed", "everything", "unsettled",
        "verified",
    )  # fmt: skip

    def __init__(
        self,
        physical: PhysicalMemory,
        wish: ReadTwice,
        line: Callable[[], LineRecord] | None = None,
        report: Callable[[str], None] | None = None,
        once: PageRuns | None = None,
    ) -> None:
        """`line` gives what the line did so far; without it, or unless the wish is automatic, only the share counts.

        `once`: frames that are known to have been read once, over another connection.
        """
        self._physical = physical
        self._wish = wish
        self._line = line if wish.automatic else None
        self._report = report or (lambda text: None)
        self._batch = 1
        self._once_read = [[run.base_page, run.end_page] for run in once or ()]
        self.everything = False
        """Every page is read twice by now, whatever the share."""
        self.verified = 0
        """Pages that were read at least twice, and of which two reads agreed."""
        self.differed: list[int] = []
        """Frames of which two reads did not agree at first."""
        self.unsettled: list[int] = []
        """Frames of which no two reads agreed, in pieces neither: their contents change while they are read."""

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first byte that cannot be had."""
        data = await self._physical.read(address, size)
        pages = range(address >> PAGE_SHIFT, (address + max(size, 1) - 1 >> PAGE_SHIFT) + 1)
        if any(self._chosen(pfn) for pfn in pages):
            settled = await self._agreed(address, size, [data])
            if settled is None:
                self.differed.append(pages[0])
                settled = await self._in_pieces(address, size)
            return settled
        self._note_once(pages[0], pages[-1] + 1)
        return data

    @property
    def once(self) -> PageRuns:
        """Frames that were read once, and wait for a second reading in case that everything is to be read twice."""
        return PageRuns([PageRun(base, end - base) for base, end in self._once_read])

    async def earlier(self, kept: Callable[[int], bytes | None]) -> AsyncIterator[PageRead]:
        """If everything is to be read twice: what had been read once before, a second time, as two readings have it.

        `kept` gives what the first reading brought; frames of which it has nothing are left out. A page that cannot
        be read any more has no data.
        """
        self._look_at_line(0)
        while self.everything and self._once_read:
            base, end = self._once_read[0]
            started = trio.current_time()
            again = await self._all([PageRun(base, min(end - base, self._batch))])
            self._pace(len(again), trio.current_time() - started)
            for page in again:
                first = kept(page.pfn)
                if first is not None and first == page.data:
                    self.verified += 1
                    yield page
                elif first is not None:
                    yield await self._settle(page.pfn, [first, page.data])
            self._once_read[0][0] = base + len(again)
            if self._once_read[0][0] == end:
                del self._once_read[0]

    def _note_once(self, base: int, end: int) -> None:
        if not self._wish.automatic or self.everything:
            return
        last = self._once_read[-1] if self._once_read else [-1, -1]
        if last[0] <= base <= last[1]:
            last[1] = max(last[1], end)
        else:
            self._once_read.append([base, end])

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        """Every page of the runs, in their order; those that are chosen after their second reading."""
        left = [*runs]
        to_come = sum(run.page_count for run in left)
        for run in left:
            start = run.base_page
            while start < run.end_page:
                self._look_at_line(to_come)
                count = 0
                part = self._part(PageRun(start, run.end_page - start))
                reading = self._twice(part) if self._chosen(start) else self._once(part, to_come)
                async with aclosing(reading) as pages:  # type: ignore[type-var]
                    async for page in pages:
                        yield page
                        count += 1
                start += count
                to_come -= count

    def _part(self, run: PageRun) -> PageRun:
        """The first pages of this run, of which all are chosen or none is."""
        if self.everything or not self._wish.share:
            chosen, count = self.everything, run.page_count
        else:
            chosen, count = self._chosen(run.base_page), 1
            while count < run.page_count and self._chosen(run.base_page + count) == chosen:
                count += 1
        return PageRun(run.base_page, min(count, self._batch) if chosen else count)

    def _chosen(self, pfn: int) -> bool:
        return self.everything or (self._wish.share > 0 and _chance(self._wish.seed, pfn) < self._wish.share)

    def _look_at_line(self, pages: int) -> None:
        if self.everything or self._line is None:
            return
        record = self._line()
        if record.damaged < _ENOUGH:
            return
        amount = (pages + sum(end - base for base, end in self._once_read)) * PAGE_SIZE
        if (expected := expected_silent_errors(record, amount)) >= LIKELY:
            self.everything = True
            self._report(warning(record, amount, expected))

    async def _once(self, run: PageRun, to_come: int) -> AsyncIterator[PageRead]:
        """These pages, or the first of them, if the line turns out to be one on which once is not enough."""
        async with aclosing(self._physical.read_pages([run])) as pages:  # type: ignore[type-var]
            async for page in pages:
                if page.data is not None:
                    self._note_once(page.pfn, page.pfn + 1)
                yield page
                to_come -= 1
                if not to_come % _LOOK_PAGES:
                    self._look_at_line(to_come)
                    if self.everything:
                        return

    async def _twice(self, run: PageRun) -> AsyncIterator[PageRead]:
        started = trio.current_time()
        first = await self._all([run])
        self._pace(run.page_count, trio.current_time() - started)
        again = await self._all([PageRun(page.pfn, 1) for page in first if page.data is not None])
        second = {page.pfn: page.data for page in again}
        for page in first:
            if page.data is None:
                yield page
            elif page.data == second.get(page.pfn):
                self.verified += 1
                if self._once_read and self._once_read[-1][1] == page.pfn:
                    # A page of a sample does not tear a run that may be as long as the memory.
                    self._note_once(page.pfn, page.pfn + 1)
                yield page
            else:
                yield await self._settle(page.pfn, [page.data, second.get(page.pfn)])

    def _pace(self, pages: int, seconds: float) -> None:
        # They wait for their second reading, and what waits is lost with a killed process.
        self._batch = min(max(int(pages * _BATCH_SECONDS / max(seconds, 1e-6)), 1), _BATCH_PAGES)

    async def _settle(self, pfn: int, reads: list[bytes | memoryview | None]) -> PageRead:
        self.differed.append(pfn)
        address = PhysicalAddress(pfn << PAGE_SHIFT)
        try:
            data = await self._agreed(address, PAGE_SIZE, [bytes(read) for read in reads if read is not None])
            if data is None:
                data = await self._in_pieces(address, PAGE_SIZE)
            else:
                self.verified += 1
                self._found_wrong(pfn)
        except MemoryFault as fault:
            return PageRead(pfn, None, f"two reads of it differed; then {fault}")
        return PageRead(pfn, data)

    def _found_wrong(self, pfn: int) -> None:
        """One reading was wrong, so others may be, among the pages that are read once."""
        if self._wish.automatic and self._wish.share < 1 and not self.everything:
            self.everything = True
            self._report(
                f"page {pfn:#x} came wrong, and nothing said so but its second reading: others that were read once may "
                "be wrong too. All is read twice from here on, and what was read before a second time"
            )

    async def _agreed(self, address: int, size: int, reads: list[bytes], tries: int = _WHOLE_TRIES) -> bytes | None:
        """What two reads have in common; None after so many more without."""
        for _ in range(tries):
            data = await self._physical.read(PhysicalAddress(address), size)
            if data in reads:
                return data
            reads.append(data)
        return None

    async def _in_pieces(self, address: int, size: int) -> bytes:
        parts: list[bytes] = []
        settled = True
        for at in range(address, address + size, _PIECE):
            reads: list[bytes] = []
            part = await self._agreed(at, min(_PIECE, address + size - at), reads, _PIECE_TRIES)
            settled = settled and part is not None
            parts.append(reads[-1] if part is None else part)
        if settled:
            self.verified += 1
        else:
            self.unsettled.append(address >> PAGE_SHIFT)
        return b"".join(parts)

    async def _all(self, runs: Iterable[PageRun]) -> list[PageRead]:
        async with aclosing(self._physical.read_pages(PageRuns(runs))) as pages:  # type: ignore[type-var]
            return [page async for page in pages]


def _chance(seed: int, pfn: int) -> float:
    """A number from 0 to 1 that belongs to this frame and seed (splitmix64)."""
    mixed = (pfn + seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return (mixed ^ mixed >> 31) / (_MASK + 1)
