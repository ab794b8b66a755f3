"""Physical memory of a target that refuses physical reads: what its kernel maps, read through virtual addresses.

The page tables of Windows map themselves: entry `slot` of the top table points to the top table, so every table
lies at a virtual address that can be worked out. Walking them there tells which frame lies where.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable

from kdbridge.errors import MemoryFault
from kdbridge.source import PageRead, VirtualMemory
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, PhysicalAddress, VirtualAddress
from protocol.arch import PagingGeometry

__all__ = ["MappedPhysicalMemory"]


class MappedPhysicalMemory:
    """Frames that the kernel half maps, by the first address that maps each. Made by `build`."""

    def __init__(self, virtual: VirtualMemory) -> None:
        self._virtual = virtual
        self._where: dict[int, int] = {}
        """A frame, to the virtual address of its page."""
        self._large: dict[int, dict[int, int]] = {}
        """Frames that a large page has, to its first frame, to its virtual address."""
        self._tables: dict[int, bytes] = {}
        self._runs: PageRuns | None = None

    @classmethod
    async def build(
        cls,
        virtual: VirtualMemory,
        geometry: PagingGeometry,
        root: int,
        pte_base: int,
        runs: PageRuns | None = None,
    ) -> MappedPhysicalMemory:
        """Walk the kernel half through the self map at `pte_base`. MemoryFault when no such top table is there.

        `root` is the stopped processor's: virtual addresses are read through its tables, and no other's.
        `runs` are the frames of RAM: what is mapped elsewhere is a device, and is not read here.
        """
        memory = cls(virtual)
        memory._runs = runs
        top_slot = geometry.index(pte_base, 0)
        unpack = struct.Struct(f"<{geometry.entries}Q").unpack
        last = len(geometry.shifts) - 1
        frame_of_root = (root & geometry.root_mask) >> PAGE_SHIFT

        def table_address(address: int, level: int) -> int:
            """Where the table of `level` that covers `address` lies: the self map, taken once for each level above."""
            indices = [top_slot] * (len(geometry.shifts) - level)
            indices += [geometry.index(address, upper) for upper in range(level)]
            where = 0
            for index, shift in zip(indices, geometry.shifts, strict=True):
                where |= index << shift
            return geometry.canonical(where)

        pending: list[tuple[int, int, int]] = [(frame_of_root, 0, 0)]
        seen: set[tuple[int, int]] = {(frame_of_root, 0)}
        while pending:
            pfn, level, base = pending.pop()
            address = table_address(base, level)
            try:
                data = await virtual.read(VirtualAddress(address), PAGE_SIZE)
            except MemoryFault:
                if level == 0:
                    raise
                continue
            if level == 0 and (unpack(data)[top_slot] & geometry.frame_mask) >> PAGE_SHIFT != frame_of_root:
                raise MemoryFault(
                    f"the page tables in frame {frame_of_root:#x} do not map themselves at {pte_base:#x}",
                    address=address, size=PAGE_SIZE, done=0, virtual=True,
                )  # fmt: skip
            memory._where.setdefault(pfn, address)
            memory._tables[pfn] = data
            below: list[tuple[int, int, int]] = []
            for index, entry in enumerate(unpack(data)):
                if not entry & geometry.valid_bit or (level == 0 and index not in geometry.kernel_entries):
                    continue
                frame = (entry & geometry.frame_mask) >> PAGE_SHIFT
                covered = base | index << geometry.shifts[level]
                if geometry.is_large(entry, level):
                    pages = geometry.page_size(level) >> PAGE_SHIFT
                    large = memory._large.setdefault(pages, {})
                    large.setdefault(frame & ~(pages - 1), geometry.canonical(covered))
                elif runs is not None and frame not in runs:
                    continue
                elif level == last:
                    memory._where.setdefault(frame, geometry.canonical(covered))
                elif frame != frame_of_root and (frame, level + 1) not in seen:
                    seen.add((frame, level + 1))
                    below.append((frame, level + 1, covered))
            pending.extend(reversed(below))
        return memory

    @property
    def pages(self) -> PageRuns:
        """Frames that can be read this way."""
        large = (PageRun(start, pages) for pages, starts in self._large.items() for start in starts)
        pages = PageRuns([*PageRuns.from_pages(self._where), *large])
        return pages if self._runs is None else pages & self._runs

    def address_of(self, pfn: int) -> int | None:
        """A virtual address of this frame; None where nothing maps it."""
        if self._runs is not None and pfn not in self._runs:
            return None
        if pfn in self._where:
            return self._where[pfn]
        for pages, starts in self._large.items():
            start = pfn & ~(pages - 1)
            if start in starts:
                return starts[start] + (pfn - start << PAGE_SHIFT)
        return None

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault where nothing maps the page, or it cannot be read."""
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            length = min(size - done, PAGE_SIZE - (at & PAGE_SIZE - 1))
            pfn, offset = at >> PAGE_SHIFT, at & PAGE_SIZE - 1
            if pfn in self._tables:
                parts.append(self._tables[pfn][offset : offset + length])
            else:
                where = self.address_of(pfn)
                if where is None:
                    raise MemoryFault(
                        f"physical address {at:#x} is mapped nowhere, and the target refuses physical reads",
                        address=at, size=size, done=done, virtual=False,
                    )  # fmt: skip
                parts.append(await self._virtual.read(VirtualAddress(where + offset), length))
            done += length
        return b"".join(parts)

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        """Every page of the runs; what nothing maps is told as unreadable."""
        for run in runs:
            for pfn in range(run.base_page, run.end_page):
                try:
                    yield PageRead(pfn, await self.read(PhysicalAddress(pfn << PAGE_SHIFT), PAGE_SIZE))
                except MemoryFault as fault:
                    yield PageRead(pfn, None, str(fault))
