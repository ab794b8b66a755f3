"""Page tables, level by level: whole tables, each read once however many processes share it.

Level by level, because then all tables of a level are known before the first is read: they are asked for in one go.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import trio

from kdbridge.errors import MemoryFault
from kdbridge.source import PhysicalMemory
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, PhysicalAddress
from protocol.arch import PagingGeometry

__all__ = ["Mapped", "TableWalk"]

_WRITABLE = 2
_DIRTY = 0x40
"""x86 and x64: the processor sets it at every write, also one that went around write protection."""
_MOST_LOOSE = 1 << 16
_TRANSITION_FRAME = (1 << 48) - 1


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a part of the tables maps: frames in RAM."""

    writable: PageRuns
    """Pages that can be written to, or were."""
    read_only: PageRuns
    transition: PageRuns
    """In memory, but not valid: what a process had and was taken from it."""

    @property
    def all(self) -> PageRuns:
        """All of it."""
        return self.writable | self.read_only | self.transition


class _Frames:
    """A growing set of frames, merged now and then, so that a million neighbours stay one run."""

    __slots__ = ("_loose", "_runs", "_within")

    def __init__(self, within: PageRuns) -> None:
        self._within = within
        self._runs = PageRuns()
        self._loose: list[PageRun] = []

    def add(self, start: int, pages: int) -> None:
        loose = self._loose
        if loose and loose[-1].end_page == start:
            loose[-1] = PageRun(loose[-1].base_page, loose[-1].page_count + pages)
            return
        loose.append(PageRun(start, pages))
        if len(loose) >= _MOST_LOOSE:
            self.merged()

    def merged(self) -> PageRuns:
        if self._loose:
            self._runs = self._runs | (PageRuns(self._loose) & self._within)
            self._loose.clear()
        return self._runs


class TableWalk:
    """Walks below any number of roots, and remembers which tables it has seen."""

    def __init__(self, physical: PhysicalMemory, geometry: PagingGeometry, runs: PageRuns, high_bit: int = 0) -> None:
        """`runs` are the frames of RAM: nothing else is read, nor told. `high_bit`: the physical address bit that a
        kernel with the L1TF fix sets in entries that are not valid; 0 for none (KDBG 2C2)."""
        self._physical = physical
        self._geometry = geometry
        self._runs = runs
        self._flip = 1 << high_bit - PAGE_SHIFT if high_bit > PAGE_SHIFT else 0
        self._seen: set[tuple[int, int]] = set()
        self._mapped = self._nothing()
        self.unreadable: set[int] = set()

    def _nothing(self) -> tuple[_Frames, _Frames, _Frames]:
        return _Frames(self._runs), _Frames(self._runs), _Frames(self._runs)

    @property
    def tables(self) -> PageRuns:
        """The frames of all tables that were looked into."""
        return PageRuns.from_pages(pfn for pfn, _ in self._seen)

    def take(self) -> Mapped:
        """What was found to be mapped since this was asked last."""
        writable, read_only, transition = self._mapped
        self._mapped = self._nothing()
        return Mapped(writable.merged(), read_only.merged(), transition.merged())

    async def levels(self, roots: Iterable[int], slots: range) -> AsyncIterator[PageRuns]:
        """The tables below these entries of top tables, one level at a time: told first, then read and looked into.

        Tables that were seen before are left out; so are entries that lead back to their own top table (the self
        map). Tables that point in circles end after levels x frames steps at most.
        """
        geometry = self._geometry
        level_of_roots = [(root & geometry.root_mask) >> PAGE_SHIFT for root in roots]
        tops = [pfn for pfn in dict.fromkeys(level_of_roots) if pfn in self._runs]
        self._seen.update((pfn, 0) for pfn in tops)
        frontier = [(pfn, pfn) for pfn in tops]
        for level in range(len(geometry.shifts)):
            if not frontier:
                return
            yield PageRuns.from_pages(pfn for pfn, _ in frontier)
            frontier = await self._look_into(sorted(frontier), level, slots)

    async def _look_into(self, frontier: list[tuple[int, int]], level: int, slots: range) -> list[tuple[int, int]]:
        """The tables of the next level. Each comes with its top table, which it must not lead back to."""
        geometry = self._geometry
        last = len(geometry.shifts) - 1
        unpack = struct.Struct(f"<{geometry.entries}{'Q' if geometry.entry_size == 8 else 'I'}").unpack_from
        pages = 1 << geometry.shifts[level] - PAGE_SHIFT
        valid, large, mask = geometry.valid_bit, geometry.large_bit, geometry.frame_mask
        if_large = 0 if geometry.large_bit_clear else large
        may_be_large, written_to = level in geometry.large_levels, _WRITABLE | _DIRTY
        below: list[tuple[int, int]] = []
        writable, read_only, _ = self._mapped
        for pfn, top in frontier:
            data = await self._table(pfn)
            if data is None or data.count(0) == PAGE_SIZE:
                continue
            entries = unpack(data)
            for entry in entries if level else entries[slots.start : slots.stop]:
                if not entry:
                    continue
                if not entry & valid:
                    if level == last:
                        self._take_transition(entry)
                    continue
                frame = (entry & mask) >> PAGE_SHIFT
                if level == last or (may_be_large and entry & large == if_large):
                    (writable if entry & written_to else read_only).add(frame & ~(pages - 1), pages)
                elif frame != top and (frame, level + 1) not in self._seen and frame in self._runs:
                    self._seen.add((frame, level + 1))
                    below.append((frame, top))
        return below

    def _take_transition(self, entry: int) -> None:
        geometry = self._geometry
        if not entry & geometry.transition_bit or entry & geometry.prototype_bit:
            return
        frame = (entry & geometry.frame_mask & _TRANSITION_FRAME) >> PAGE_SHIFT
        if self._flip and frame not in self._runs:
            frame ^= self._flip
        self._mapped[2].add(frame, 1)

    async def _table(self, pfn: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        try:
            return await self._physical.read(PhysicalAddress(pfn << PAGE_SHIFT), PAGE_SIZE)
        except MemoryFault:
            self.unreadable.add(pfn)
            return None
