"""From a virtual to a physical address, by page tables read from any physical memory. Knows no architecture."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from kdbridge.errors import MemoryFault
from kdbridge.source import PhysicalMemory
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PhysicalAddress
from protocol.arch import PagingGeometry

__all__ = ["Translation", "Translator"]

_CACHED_TABLES = 2048


@dataclass(frozen=True, slots=True)
class Translation:
    """Where a virtual address leads."""

    address: int
    physical: int | None
    """None: not present; `reason` says at which level, or that a table could not be read."""
    page_size: int
    tables: tuple[int, ...]
    """Frames of the page tables on the way, top level first."""
    reason: str = ""


class Translator:
    """Walks page tables below one root. Whole tables are read once and kept, at most 8 MiB of them."""

    __slots__ = ("_geometry", "_physical", "_root", "_tables")

    def __init__(self, physical: PhysicalMemory, geometry: PagingGeometry, root: int) -> None:
        """`root` is the directory table base; bits outside of its frame do not matter."""
        self._physical = physical
        self._geometry = geometry
        self._root = root & geometry.root_mask
        self._tables: OrderedDict[int, bytes | None] = OrderedDict()

    @property
    def geometry(self) -> PagingGeometry:
        """How the tables are built."""
        return self._geometry

    @property
    def root(self) -> int:
        """Physical address of the top table."""
        return self._root

    async def table(self, pfn: int) -> bytes | None:
        """A page table as bytes; None where it cannot be read."""
        if pfn in self._tables:
            self._tables.move_to_end(pfn)
            return self._tables[pfn]
        try:
            data: bytes | None = await self._physical.read(PhysicalAddress(pfn << PAGE_SHIFT), PAGE_SIZE)
        except MemoryFault:
            data = None
        self._tables[pfn] = data
        if len(self._tables) > _CACHED_TABLES:
            self._tables.popitem(last=False)
        return data

    async def translate(self, address: int) -> Translation:
        """The physical address behind a virtual one."""
        geometry = self._geometry
        if not geometry.is_canonical(address):
            return Translation(address, None, 0, (), "no address of this architecture")
        pfn = self._root >> PAGE_SHIFT
        tables: list[int] = []
        last = len(geometry.shifts) - 1
        for level in range(last + 1):
            table = await self.table(pfn)
            if table is None:
                return Translation(address, None, 0, tuple(tables), f"the page table in frame {pfn:#x} is not there")
            tables.append(pfn)
            at = geometry.index(address, level) * geometry.entry_size
            entry = int.from_bytes(table[at : at + geometry.entry_size], "little")
            if not entry & geometry.valid_bit:
                return Translation(address, None, 0, tuple(tables), f"not present (entry {entry:#x} at level {level})")
            if level == last or (level in geometry.large_levels and entry & geometry.large_bit):
                size = geometry.page_size(level)
                physical = entry & geometry.frame_mask & ~(size - 1) | address & size - 1
                return Translation(address, physical, size, tuple(tables))
            pfn = (entry & geometry.frame_mask) >> PAGE_SHIFT
        return Translation(address, None, 0, tuple(tables), "no leaf")
