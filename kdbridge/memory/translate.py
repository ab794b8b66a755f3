"""From a virtual to a physical address, by page tables read from any physical memory. Knows no architecture."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from kdbridge.errors import MemoryFault
from kdbridge.source import PhysicalMemory
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRuns, PhysicalAddress
from protocol.arch import PagingGeometry

from .cache import BoundedCache

__all__ = ["Presence", "Translation", "Translator", "classify", "transition_frame"]

_CACHED_TABLES = 2048

_TRANSITION_FRAME = (1 << 48) - 1
"""An entry in transition has its frame in bits 12 to 47 (dump-formats 3.2)."""


class Presence(enum.Enum):
    """What an entry says of its page (dump-formats 3.2): the value completes "the page …"."""

    PRESENT = "is present"
    NOT_MAPPED = "is not mapped"
    TRANSITION = "is in transition: in memory, but not valid"
    PROTOTYPE = "is shared, and its prototype says where it is"
    PAGE_FILE = "is in a page file"
    DEMAND_ZERO = "does not exist until it is touched"
    NO_TABLE = "cannot be found: a page table is not there"
    NO_ADDRESS = "cannot exist: this is no address of the architecture"


def classify(entry: int, geometry: PagingGeometry) -> Presence:
    """What an entry of the lowest level says."""
    if entry & geometry.valid_bit:
        return Presence.PRESENT
    if not entry:
        return Presence.NOT_MAPPED
    if entry & geometry.prototype_bit:
        return Presence.PROTOTYPE
    if entry & geometry.transition_bit:
        return Presence.TRANSITION
    # Windows keeps the offset in the page file in the upper half of an entry of 8 bytes, and in 20 bits of one of 4.
    return Presence.PAGE_FILE if entry >> (32 if geometry.entry_size == 8 else 12) else Presence.DEMAND_ZERO


def transition_frame(entry: int, geometry: PagingGeometry) -> int:
    """The frame that an entry in transition names.

    Since 2018 some processors' kernels change it (L1TF): the KDBG's l1tf_… fields are not 0 there, and this is wrong.
    """
    return (entry & geometry.frame_mask & _TRANSITION_FRAME) >> PAGE_SHIFT


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
    presence: Presence = Presence.PRESENT
    entry: int = 0
    """The entry that decided: a leaf's has the page's attributes as the processor defines them."""
    transition: int | None = None
    """Physical address of a page in transition: likely still what it was, but nobody promises it."""


class Translator:
    """Walks page tables below one root. Whole tables are read once and kept, at most 8 MiB of them."""

    __slots__ = ("_geometry", "_physical", "_root", "_runs", "_tables", "_whole")

    def __init__(
        self,
        physical: PhysicalMemory,
        geometry: PagingGeometry,
        root: int,
        *,
        runs: PageRuns | None = None,
        whole: bool = True,
    ) -> None:
        """`root` is the directory table base; bits outside of its frame do not matter.

        `runs` are the frames of RAM: a table that should lie elsewhere is not read, as a device may be there.
        With `whole` off only single entries are read and nothing is kept: for a few addresses over a slow line.
        """
        self._physical = physical
        self._geometry = geometry
        self._root = root & geometry.root_mask
        self._runs = runs
        self._whole = whole
        self._tables: BoundedCache[int, bytes | None] = BoundedCache(_CACHED_TABLES)

    @property
    def geometry(self) -> PagingGeometry:
        """How the tables are built."""
        return self._geometry

    @property
    def root(self) -> int:
        """Physical address of the top table."""
        return self._root

    async def table(self, pfn: int) -> bytes | None:
        """A page table as bytes; None where it cannot be read, or is not RAM."""
        if pfn in self._tables:
            return self._tables.get(pfn)
        data = await self._read(pfn, 0, PAGE_SIZE)
        self._tables.put(pfn, data)
        return data

    async def translate(self, address: int) -> Translation:
        """The physical address behind a virtual one."""
        geometry = self._geometry
        if not geometry.is_canonical(address):
            return Translation(address, None, 0, (), "no address of this architecture", Presence.NO_ADDRESS)
        address = geometry.canonical(address)
        pfn = self._root >> PAGE_SHIFT
        first = (self._root & PAGE_SIZE - 1) // geometry.entry_size  # of the top table, in its page
        tables: tuple[int, ...] = ()
        last = len(geometry.shifts) - 1
        for level in range(last + 1):
            entry = await self._entry(pfn, geometry.index(address, level) + first)
            first = 0
            if entry is None:
                problem = f"the page table in frame {pfn:#x} is not there"
                return Translation(address, None, 0, tables, problem, Presence.NO_TABLE)
            tables = (*tables, pfn)
            if not entry & geometry.valid_bit:
                return self._absent(address, tables, entry, level)
            if level == last or geometry.is_large(entry, level):
                size = geometry.page_size(level)
                physical = entry & geometry.frame_mask & ~(size - 1) | address & size - 1
                return Translation(address, physical, size, tables, entry=entry)
            pfn = (entry & geometry.frame_mask) >> PAGE_SHIFT
        raise AssertionError("the last level is always a leaf")

    def _absent(self, address: int, tables: tuple[int, ...], entry: int, level: int) -> Translation:
        geometry = self._geometry
        presence = classify(entry, geometry)
        transition = None
        if level < len(geometry.shifts) - 1:
            reason = f"not present (entry {entry:#x} at level {level})"
        else:
            reason = f"not present (entry {entry:#x} at level {level}): the page {presence.value}"
            if presence is Presence.TRANSITION:
                transition = transition_frame(entry, geometry) << PAGE_SHIFT | address & PAGE_SIZE - 1
        return Translation(address, None, 0, tables, reason, presence, entry, transition)

    async def _entry(self, pfn: int, index: int) -> int | None:
        size = self._geometry.entry_size
        if self._whole:
            table = await self.table(pfn)
            data = None if table is None else table[index * size : (index + 1) * size]
        else:
            data = await self._read(pfn, index * size, size)
        return None if data is None else int.from_bytes(data, "little")

    async def _read(self, pfn: int, offset: int, size: int) -> bytes | None:
        if self._runs is not None and pfn not in self._runs:
            return None
        try:
            return await self._physical.read(PhysicalAddress((pfn << PAGE_SHIFT) + offset), size)
        except MemoryFault:
            return None
