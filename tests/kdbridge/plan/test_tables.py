"""Walking whole tables: complete against the simulator's own list of mappings, and bounded whatever they say."""

from __future__ import annotations

import random

import pytest

from kdbridge.plan.tables import Mapped, TableWalk
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.arch import AMD64
from simulator.image import MemoryImage
from simulator.kernel import KernelOptions, build_kernel
from simulator.paging import GIB, KERNEL_SLOTS, MIB2, PageTables, PteFlag
from tests.kdbridge.simulated import ImageMemory

KERNEL = AMD64.paging.kernel_entries
WHOLE = range(512)


async def _walked(
    memory: ImageMemory, root: int, slots: range, runs: PageRuns | None = None
) -> tuple[list[PageRuns], Mapped]:
    """The tables of each level, and what they map."""
    walk = TableWalk(memory, AMD64.paging, memory.image.runs if runs is None else runs)
    levels = [tables async for tables in walk.levels([root], slots)]
    return levels, walk.take()


def _valid(mapped: Mapped) -> PageRuns:
    return mapped.writable | mapped.read_only


def _all(levels: list[PageRuns]) -> set[int]:
    return {pfn for tables in levels for pfn in tables.pages()}


@pytest.mark.parametrize(("slots", "build"), [(KERNEL, 19041), (WHOLE, 19041), (KERNEL, 3790), (WHOLE, 7601)])
async def test_every_leaf_and_every_table_of_a_machine(slots: range, build: int) -> None:
    kernel = build_kernel(KernelOptions(build=build, memory_size=6 << 30, gigabyte_page=build == 19041))
    process = kernel.processes[-1]
    memory = ImageMemory(kernel.image)
    levels, mapped = await _walked(memory, process.directory_table_base, slots)
    mappings = list(kernel.tables.mapped(process.directory_table_base, slots))
    leaves = PageRuns(PageRun(m.physical >> PAGE_SHIFT, m.size >> PAGE_SHIFT) for m in mappings)
    assert _valid(mapped) == leaves & kernel.image.runs
    own = process.tables.pages if slots == WHOLE else {process.directory_table_base >> PAGE_SHIFT}
    kernel_half = {
        pfn for pfn in kernel.tables.pages if pfn != kernel.directory_table_base >> PAGE_SHIFT
    }  # System has no user half
    assert _all(levels) == own | kernel_half
    assert memory.meter.reads == len(_all(levels)), "each is read once"


async def test_large_pages_are_runs() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 0x100000)]))
    free = iter(range(0x100, 0x1000))
    tables = PageTables(image, lambda: next(free), 0x1000)
    base = 0xFFFF8000_00000000
    tables.map(base, GIB, GIB)
    tables.map(base + GIB, 2 * MIB2, MIB2)
    tables.map(base + GIB + MIB2, 3 * MIB2, MIB2)
    tables.map_run(base + 2 * GIB, 0x5000, 3)
    tables.map(base + 2 * GIB + 3 * PAGE_SIZE, 0x20000)
    _, mapped = await _walked(ImageMemory(image), 0x1000, KERNEL)
    assert list(_valid(mapped)) == [PageRun(5, 3), PageRun(0x20, 1), PageRun(1024, 1024), PageRun(0x40000, 0x40000)]


async def test_what_can_be_written_to_is_told_from_what_cannot() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 0x100000)]))
    free = iter(range(0x100, 0x1000))
    tables = PageTables(image, lambda: next(free), 0x1000)
    base = 0xFFFF8000_00000000
    tables.map(base, 0x5000, PAGE_SIZE, PteFlag.WRITE)
    tables.map(base + PAGE_SIZE, 0x6000, PAGE_SIZE, PteFlag(0))
    _, mapped = await _walked(ImageMemory(image), 0x1000, KERNEL)
    assert (list(mapped.writable), list(mapped.read_only)) == ([PageRun(5, 1)], [PageRun(6, 1)])


async def test_pages_in_transition_are_told_apart() -> None:
    kernel = build_kernel()
    _, mapped = await _walked(ImageMemory(kernel.image), kernel.directory_table_base, KERNEL)
    # The builder lays eight of them, over the first frame of so many runs of content.
    assert mapped.transition == PageRuns.from_pages([run.base_page for run in kernel.content][:8])


async def test_a_frame_that_the_l1tf_fix_moved_out_of_memory_is_found() -> None:
    high = 45
    image = MemoryImage(PageRuns([PageRun(0, 0x1000)]))
    free = iter(range(0x100, 0x1000))
    tables = PageTables(image, lambda: next(free), 0x1000)
    entry = 0x7000 | 1 << high | PteFlag.TRANSITION | PteFlag.WRITE
    tables.set_entry(0xFFFF8000_00000000, entry)
    for bit, expected in ((high, [PageRun(7, 1)]), (0, [])):
        walk = TableWalk(ImageMemory(image), AMD64.paging, image.runs, bit)
        assert [tables async for tables in walk.levels([0x1000], KERNEL)]
        assert list(walk.take().transition) == expected


async def test_the_self_map_is_not_descended() -> None:
    kernel = build_kernel()
    root = kernel.directory_table_base >> PAGE_SHIFT
    assert kernel.pte_base >> 39 & 511 in KERNEL_SLOTS
    levels, mapped = await _walked(ImageMemory(kernel.image), kernel.directory_table_base, KERNEL)
    assert [root in tables for tables in levels] == [True, False, False, False]
    assert _valid(mapped).page_count < kernel.image.runs.page_count


async def test_tables_that_processes_share_are_told_once() -> None:
    kernel = build_kernel()
    memory = ImageMemory(kernel.image)
    walk = TableWalk(memory, AMD64.paging, kernel.image.runs)
    roots = [process.directory_table_base for process in kernel.processes]
    first = [tables async for tables in walk.levels(roots[:1], KERNEL)]
    more = [tables async for tables in walk.levels(roots, KERNEL)]
    assert _all(more) == {root >> PAGE_SHIFT for root in roots}, "nothing but their own top tables"
    assert memory.meter.reads == len(_all(first)) + len(roots)


async def test_a_table_that_maps_itself_everywhere_ends() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 16)]))
    image.write(0x1000, (0x1000 | 3).to_bytes(8, "little") * 512)
    levels, _ = await _walked(ImageMemory(image), 0x1000, WHOLE)
    assert len(levels) == 1
    image.write(0x1000, (0x2000 | 3).to_bytes(8, "little") * 512)
    image.write(0x2000, (0x2000 | 3).to_bytes(8, "little") * 512)
    levels, mapped = await _walked(ImageMemory(image), 0x1000, WHOLE)
    assert [list(tables.pages()) for tables in levels] == [[1], [2], [2], [2]]
    assert _valid(mapped) == PageRuns([PageRun(2, 1)])


async def test_random_tables_end_and_touch_nothing_outside_of_ram() -> None:
    frames = 64
    rng = random.Random(11)
    device = PageRuns([PageRun(frames, 1 << 40)])
    image = MemoryImage(PageRuns([PageRun(0, frames)]), device=device)
    for pfn in range(frames):
        entries = ((rng.randrange(2 * frames) << PAGE_SHIFT | 3 | rng.choice((0, 0, 0, 0x80))) for _ in range(512))
        image.write(pfn << PAGE_SHIFT, b"".join(entry.to_bytes(8, "little") for entry in entries))
    memory = ImageMemory(image)
    levels, mapped = await _walked(memory, 0, WHOLE)
    assert image.device_accesses == []
    assert memory.meter.reads <= 4 * frames
    assert _all(levels) <= set(range(frames))
    assert mapped.all.end_page <= frames


async def test_a_table_that_cannot_be_read_is_told_and_the_rest_is_walked() -> None:
    kernel = build_kernel()
    memory = ImageMemory(kernel.image)
    levels, before = await _walked(memory, kernel.directory_table_base, KERNEL)
    lost = next(iter(levels[3].pages()))
    kernel.image.unreadable.add(lost)
    walk = TableWalk(memory, AMD64.paging, kernel.image.runs)
    assert [tables async for tables in walk.levels([kernel.directory_table_base], KERNEL)] == levels
    assert walk.unreadable == {lost}
    after = walk.take()
    gone = _valid(before) - _valid(after)
    assert 0 < gone.page_count <= 512
    assert _valid(after) - _valid(before) == PageRuns()


async def test_no_table_at_all() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 1)]))
    levels, mapped = await _walked(ImageMemory(image), 0x5000, KERNEL)
    assert (levels, mapped.all) == ([], PageRuns())


async def test_flags_do_not_leak_into_frames() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 0x1000)]))
    free = iter(range(0x100, 0x1000))
    tables = PageTables(image, lambda: next(free), 0x1000)
    tables.set_entry(0xFFFF8000_00000000, 0xFFF0_0000_0001_2000 | PteFlag.VALID | 0xE60)
    _, mapped = await _walked(ImageMemory(image), 0x1000, KERNEL)
    assert _valid(mapped) == PageRuns([PageRun(0x12, 1)])
