"""The kernel's virtual memory while it is made: where each region lies, heaps that grow, stacks, writes by address."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRuns

from .errors import SimulationError
from .frames import FrameAllocator
from .image import MemoryImage
from .paging import MIB2, PageTables, PteFlag

__all__ = ["SHARED_DATA_ADDRESS", "SYSTEM_RANGE_START", "AddressPlan", "Heap", "KernelSpace", "plan_addresses"]

SHARED_DATA_ADDRESS = 0xFFFFF780_00000000
"""KUSER_SHARED_DATA: the only address of the kernel half that never moves (dump-formats 3.2)."""

SYSTEM_RANGE_START = 0xFFFF8000_00000000

_LARGE_PAGES_FROM = 64 << 20
"""Machines with less memory than this use small pages everywhere."""


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """Where the regions of the kernel half begin."""

    self_map_slot: int
    nonpaged_pool: int
    paged_pool: int
    system_ptes: int
    pfn_database: int
    system_cache: int
    large_pool: int
    devices: int
    kernel: int
    drivers: int


def plan_addresses(rng: random.Random, randomized: bool, kernel: int | None) -> AddressPlan:
    """The regions at one boot. Since Windows 10 each has a PML4 slot of its own, drawn by lot."""
    fixed_kernel = kernel
    if randomized:
        slots = [SYSTEM_RANGE_START + (slot - 0x100 << 39) for slot in rng.sample(range(0x101, 0x1EE), 8)]
        base = 0xFFFFF800_00000000 + rng.randrange(0x80, 0x3F80) * MIB2
        return AddressPlan(
            self_map_slot=slots[0] >> 39 & 511,
            nonpaged_pool=slots[1],
            paged_pool=slots[2],
            system_ptes=slots[3] + rng.randrange(1 << 18) * PAGE_SIZE,
            pfn_database=slots[4],
            system_cache=slots[5],
            large_pool=slots[6],
            devices=slots[7],
            kernel=base,
            drivers=base + 0x1000000 + rng.randrange(256) * PAGE_SIZE,
        )
    # Until 1607 regions were fixed; the kernel moved by whole pages, or not at all.
    base = fixed_kernel or 0xFFFFF800_00000000 + rng.randrange(0x2000, 0x80000) * PAGE_SIZE
    return AddressPlan(
        self_map_slot=0x1ED,
        nonpaged_pool=0xFFFFE000_00000000 + rng.randrange(0x400) * MIB2,
        paged_pool=0xFFFFC000_00000000 + rng.randrange(0x400) * MIB2,
        system_ptes=0xFFFFD000_20000000 + rng.randrange(1 << 12) * PAGE_SIZE,
        pfn_database=0xFFFFFA80_00000000,
        system_cache=0xFFFFF980_00000000,
        large_pool=0xFFFFE800_00000000,
        devices=0xFFFFFFFF_C0000000,
        kernel=base,
        drivers=base + 0x1000000 + rng.randrange(256) * PAGE_SIZE,
    )


class Heap:
    """A region that grows at its end, by 2 MiB pages or by 4 KiB pages; every block has a pool header before it."""

    __slots__ = ("_large", "_next", "_pool_type", "_space", "_top", "base")

    def __init__(self, space: KernelSpace, base: int, *, large: bool, pool_type: int) -> None:
        self.base = base
        self._space = space
        self._large = large
        self._pool_type = pool_type
        self._next = self._top = base

    @property
    def end(self) -> int:
        """The first address that is not mapped yet."""
        return self._top

    def allocate(self, size: int, tag: bytes = b"Ntff", align: int = 16, offset: int = 0) -> int:
        """A zeroed block; its address is `offset` behind a multiple of `align`, and 16 bytes of header lie before."""
        start = -(-(self._next + 16 - offset) // align) * align + offset
        while start + size > self._top:
            self._grow()
        units = min(-(-(size + 16) // 16), 0xFF)
        self._space.write(start - 16, struct.pack("<BBBB4sQ", 0, 0, units, self._pool_type, tag, 0))
        self._next = start + size
        return start

    def place(self, data: bytes, tag: bytes = b"Ntff", align: int = 16) -> int:
        """A block with this content."""
        address = self.allocate(len(data), tag, align)
        self._space.write(address, data)
        return address

    def _grow(self) -> None:
        block = self._space.frames.allocate_block(512, 512) if self._large and self._top % MIB2 == 0 else None
        if block is not None:
            self._space.tables.map(self._top, block << PAGE_SHIFT, MIB2)
            self._top += MIB2
        else:
            self._space.map_fresh(self._top)
            self._top += PAGE_SIZE


class KernelSpace:
    """Memory, tables and allocators of a machine that is being made."""

    __slots__ = (
        "_stack_next",
        "addresses",
        "covered",
        "frames",
        "image",
        "large_pages",
        "nonpaged",
        "paged",
        "rng",
        "tables",
    )

    def __init__(
        self,
        image: MemoryImage,
        frames: FrameAllocator,
        tables: PageTables,
        addresses: AddressPlan,
        rng: random.Random,
    ) -> None:
        self.image = image
        self.frames = frames
        self.tables = tables
        self.addresses = addresses
        self.rng = rng
        self.large_pages = image.runs.page_count << PAGE_SHIFT >= _LARGE_PAGES_FROM
        self.nonpaged = Heap(self, addresses.nonpaged_pool, large=self.large_pages, pool_type=2)
        self.paged = Heap(self, addresses.paged_pool, large=False, pool_type=3)
        self._stack_next = addresses.system_ptes
        self.covered = PageRuns()
        """Frames that large pages show whoever owns them: the HAL's view of low memory, a 1 GiB page over RAM."""

    def map_fresh(self, address: int, flags: PteFlag = PteFlag.WRITE | PteFlag.NO_EXECUTE) -> int:
        """Map one fresh page there; returns its physical address."""
        physical = self.frames.allocate() << PAGE_SHIFT
        self.tables.map(address, physical, PAGE_SIZE, flags)
        return physical

    def write(self, address: int, data: bytes, root: int | None = None) -> None:
        """Write through the page tables. Raises SimulationError where nothing is mapped."""
        at = 0
        while at < len(data):
            length = min(len(data) - at, PAGE_SIZE - (address + at & PAGE_SIZE - 1))
            physical = self.tables.translate(address + at, root)
            if physical is None or not self.image.write(physical, data[at : at + length]):
                raise SimulationError(f"{address + at:#x} is not mapped")
            at += length

    def write_qwords(self, address: int, *values: int) -> None:
        """Write 64-bit values one behind the other."""
        self.write(address, struct.pack(f"<{len(values)}Q", *values))

    def allocate_stack(self, pages: int = 6) -> tuple[int, int]:
        """A kernel stack: (base, limit), the base being above. Pages that are not mapped guard both ends."""
        limit = self._stack_next + PAGE_SIZE
        for page in range(pages):
            self.map_fresh(limit + page * PAGE_SIZE)
        base = limit + pages * PAGE_SIZE
        self._stack_next = base
        return base, limit

    def unicode_string(self, text: str, tag: bytes = b"MmLd") -> tuple[int, int, int]:
        """A name in paged pool: (Length, MaximumLength, Buffer) of the UNICODE_STRING that points to it."""
        data = text.encode("utf-16-le")
        return len(data), len(data) + 2, self.paged.place(data + b"\0\0", tag)

    def link_list(self, head: int, entries: list[int]) -> None:
        """Write the LIST_ENTRYs of a circular list: the head and each entry in this order."""
        ring = [head, *entries]
        for at, address in enumerate(ring):
            self.write_qwords(address, ring[(at + 1) % len(ring)], ring[at - 1])
