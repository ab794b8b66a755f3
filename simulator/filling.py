"""What else is in memory: devices that are mapped, data of no meaning, entries that map nothing, pages that fail."""

from __future__ import annotations

import hashlib
import random

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns

from .errors import SimulationError
from .image import PageBacking
from .paging import GIB, MIB2, PteFlag
from .space import KernelSpace

__all__ = ["choose_unreadable", "device_memory", "fill", "fill_unmapped", "lay_odd_entries", "map_devices"]

_LAPIC, _IOAPIC = 0xFEE00, 0xFEC00
_FRAME_BUFFER = PageRun(0xC0000, 0x800)
_VGA = PageRun(0xA0, 0x20)


def device_memory(runs: PageRuns) -> PageRuns:
    """Frames that belong to devices: what of them is no RAM."""
    return PageRuns([_VGA, PageRun(_LAPIC, 1), PageRun(_IOAPIC, 1), _FRAME_BUFFER]) - runs


def map_devices(space: KernelSpace, *, gigabyte_page: bool) -> None:
    """Leaves that point to what is not RAM, and one that points to both; and a 1 GiB page over RAM if wanted."""
    tables, base, runs = space.tables, space.addresses.devices, space.image.runs
    uncached = PteFlag.WRITE | PteFlag.NO_EXECUTE | PteFlag.CACHE_DISABLED | PteFlag.WRITE_THROUGH
    tables.map(base, _LAPIC << PAGE_SHIFT, PAGE_SIZE, uncached)
    tables.map(base + PAGE_SIZE, _IOAPIC << PAGE_SHIFT, PAGE_SIZE, uncached)
    for number in range(_FRAME_BUFFER.page_count // 512):
        physical = (_FRAME_BUFFER.base_page << PAGE_SHIFT) + number * MIB2
        if physical >> PAGE_SHIFT not in runs:
            tables.map(base + MIB2 + number * MIB2, physical, MIB2, uncached)
    # Low memory as the HAL keeps it: one large page over RAM, VGA memory and ROM.
    tables.map(base + 0x10000000, 0, MIB2)
    space.covered |= PageRuns([PageRun(0, 512)])
    if gigabyte_page:
        start = next(
            (
                at
                for run in reversed(list(runs))
                for at in range(-(-run.base_page // 0x40000) * 0x40000, run.end_page - 0x3FFFF, 0x40000)
            ),
            None,
        )
        if start is None:
            raise SimulationError("no run of memory holds a whole aligned 1 GiB page")
        tables.map(space.addresses.large_pool, start << PAGE_SHIFT, GIB)
        space.covered |= PageRuns([PageRun(start, GIB >> PAGE_SHIFT)])


def fill(space: KernelSpace, size: int, seed: int) -> PageRuns:
    """Data that is not zero: in large pool pages, in the system cache page by page, and in pages nobody maps."""
    cache = space.addresses.system_cache
    runs: list[PageRun] = []
    left = size >> PAGE_SHIFT
    pool = space.addresses.large_pool + 2 * GIB
    for number in range(left // 512 if space.large_pages else 0):
        block = space.frames.allocate_block(512, 512)
        if block is None:
            break
        runs.append(PageRun(block, 512))
        left -= 512
        if number % 4 in (0, 1):
            space.tables.map(pool, block << PAGE_SHIFT, MIB2)
            pool += MIB2
        elif number % 4 == 2:
            space.tables.map_run(cache, block << PAGE_SHIFT, 512)
            cache += MIB2
    cache += MIB2
    for number in range(left):
        pfn = space.frames.allocate()
        runs.append(PageRun(pfn, 1))
        if number % 2:
            space.tables.map(cache + number * PAGE_SIZE, pfn << PAGE_SHIFT)
    return _back(space, PageRuns(runs), seed)


def fill_unmapped(space: KernelSpace, count: int, seed: int) -> PageRuns:
    """Data in so many pages here and there that nobody maps."""
    return _back(space, PageRuns.from_pages(space.frames.allocate() for _ in range(count)), seed)


def _back(space: KernelSpace, content: PageRuns, seed: int) -> PageRuns:
    prefix = f"content {seed} ".encode()

    def make_page(pfn: int) -> bytes:
        return hashlib.shake_128(prefix + pfn.to_bytes(8, "little")).digest(PAGE_SIZE)

    space.image.add_backing(PageBacking(content, make_page))
    return content


def lay_odd_entries(space: KernelSpace, content: PageRuns) -> None:
    """Page table entries that are not valid: in transition, in the page file, prototypes."""
    base = space.addresses.system_cache + (1 << 38)
    frames = [run.base_page for run in content][:8]
    for number, pfn in enumerate(frames):
        flags = PteFlag.TRANSITION | PteFlag.WRITE
        space.tables.set_entry(base + number * PAGE_SIZE, pfn << PAGE_SHIFT | flags)
    place = base + 0x100 * PAGE_SIZE
    space.tables.set_entry(place, 0x1234 << 32 | 4 << 5)  # page file offset 1234, read and write
    space.tables.set_entry(place + PAGE_SIZE, space.paged.base >> 16 << 16 | PteFlag.PROTOTYPE)
    space.tables.set_entry(place + 2 * PAGE_SIZE, 4 << 5)  # demand zero


def choose_unreadable(rng: random.Random, content: PageRuns, count: int) -> set[int]:
    """Pages of the content that fail: no structure that a debugger walks lies in them."""
    if not count:
        return set()
    pages = list(content.pages())
    if len(pages) < count:
        raise SimulationError(f"{len(pages)} pages of content: too few to make so many unreadable")
    return set(rng.sample(pages, count))
