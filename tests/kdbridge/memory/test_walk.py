"""Walking whole tables: complete against the simulator's own list of mappings, and bounded whatever they say."""

from __future__ import annotations

import random

import pytest

from kdbridge.memory.translate import Translator
from kdbridge.memory.walk import WalkedTable, walk
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.arch import AMD64
from simulator.image import MemoryImage
from simulator.kernel import KernelOptions, build_kernel
from simulator.paging import GIB, KERNEL_SLOTS, MIB2, PageTables, PteFlag
from tests.kdbridge.simulated import ImageMemory

KERNEL = AMD64.paging.kernel_entries
WHOLE = range(512)


async def _walked(memory: ImageMemory, root: int, slots: range, runs: PageRuns | None = None) -> list[WalkedTable]:
    translator = Translator(memory, AMD64.paging, root, runs=runs)
    return [table async for table in walk(translator, slots)]


def _leaves(tables: list[WalkedTable]) -> PageRuns:
    return PageRuns(run for table in tables for run in table.leaves)


@pytest.mark.parametrize(("slots", "build"), [(KERNEL, 19041), (WHOLE, 19041), (KERNEL, 3790), (WHOLE, 7601)])
async def test_every_leaf_and_every_table_of_a_machine(slots: range, build: int) -> None:
    kernel = build_kernel(KernelOptions(build=build, memory_size=6 << 30, gigabyte_page=build == 19041))
    process = kernel.processes[-1]
    memory = ImageMemory(kernel.image)
    tables = await _walked(memory, process.directory_table_base, slots)
    mappings = list(kernel.tables.mapped(process.directory_table_base, slots))
    assert _leaves(tables) == PageRuns(PageRun(m.physical >> PAGE_SHIFT, m.size >> PAGE_SHIFT) for m in mappings)
    own = process.tables.pages if slots == WHOLE else {process.directory_table_base >> PAGE_SHIFT}
    kernel_half = {
        pfn for pfn in kernel.tables.pages if pfn != kernel.directory_table_base >> PAGE_SHIFT
    }  # System has no user half
    assert {table.pfn for table in tables} == own | kernel_half
    assert all(table.readable for table in tables)
    assert memory.meter.reads == len({table.pfn for table in tables}), "each is read once"
    assert [t.address for t in tables if t.level == 1] == sorted(t.address for t in tables if t.level == 1)


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
    walked = await _walked(ImageMemory(image), 0x1000, KERNEL)
    leaves = [run for table in walked for run in table.leaves]
    assert leaves == [PageRun(0x40000, 0x40000), PageRun(1024, 1024), PageRun(5, 3), PageRun(0x20, 1)]


async def test_pages_in_transition_are_told_apart() -> None:
    kernel = build_kernel()
    tables = await _walked(ImageMemory(kernel.image), kernel.directory_table_base, KERNEL)
    found = PageRuns(run for table in tables for run in table.transition)
    # The builder lays eight of them, over the first frame of so many runs of content.
    expected = PageRuns.from_pages([run.base_page for run in kernel.content][:8])
    assert found == expected


async def test_the_self_map_is_not_descended() -> None:
    kernel = build_kernel()
    root = kernel.directory_table_base >> PAGE_SHIFT
    tables = await _walked(ImageMemory(kernel.image), kernel.directory_table_base, KERNEL)
    assert [table.level for table in tables if table.pfn == root] == [0]
    slot = kernel.pte_base >> 39 & 511
    assert slot in KERNEL_SLOTS
    assert not any(table.level and table.address >> 39 & 511 == slot for table in tables)


async def test_a_table_that_maps_itself_everywhere_ends() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 16)]))
    image.write(0x1000, (0x1000 | 3).to_bytes(8, "little") * 512)
    assert len(await _walked(ImageMemory(image), 0x1000, WHOLE)) == 1
    image.write(0x1000, (0x2000 | 3).to_bytes(8, "little") * 512)
    image.write(0x2000, (0x2000 | 3).to_bytes(8, "little") * 512)
    walked = await _walked(ImageMemory(image), 0x1000, WHOLE)
    assert [(table.pfn, table.level) for table in walked] == [(1, 0), (2, 1), (2, 2), (2, 3)]
    assert _leaves(walked) == PageRuns([PageRun(2, 1)])


async def test_random_tables_end_and_touch_nothing_outside_of_ram() -> None:
    frames = 64
    rng = random.Random(11)
    device = PageRuns([PageRun(frames, 1 << 40)])
    image = MemoryImage(PageRuns([PageRun(0, frames)]), device=device)
    for pfn in range(frames):
        entries = ((rng.randrange(2 * frames) << PAGE_SHIFT | 3 | rng.choice((0, 0, 0, 0x80))) for _ in range(512))
        image.write(pfn << PAGE_SHIFT, b"".join(entry.to_bytes(8, "little") for entry in entries))
    memory = ImageMemory(image)
    walked = await _walked(memory, 0, WHOLE, image.runs)
    assert len(walked) <= 4 * 2 * frames
    assert {table.pfn for table in walked if not table.readable} == set(range(frames, 2 * frames))
    assert image.device_accesses == []
    assert memory.meter.reads <= frames


async def test_a_table_that_cannot_be_read_is_told_and_the_rest_is_walked() -> None:
    kernel = build_kernel()
    memory = ImageMemory(kernel.image)
    before = await _walked(memory, kernel.directory_table_base, KERNEL)
    lost = next(table for table in before if table.level == 3 and table.leaves)
    kernel.image.unreadable.add(lost.pfn)
    after = await _walked(memory, kernel.directory_table_base, KERNEL)
    assert [table.pfn for table in after if not table.readable] == [lost.pfn]
    others = [table for table in before if table.pfn != lost.pfn]
    assert [table for table in after if table.readable] == others


async def test_no_table_at_all() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 1)]))
    (table,) = await _walked(ImageMemory(image), 0x5000, KERNEL)
    assert (table.readable, table.leaves) == (False, ())


async def test_flags_do_not_leak_into_frames() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 0x1000)]))
    free = iter(range(0x100, 0x1000))
    tables = PageTables(image, lambda: next(free), 0x1000)
    tables.set_entry(0xFFFF8000_00000000, 0xFFF0_0000_0001_2000 | PteFlag.VALID | 0xE60)
    walked = await _walked(ImageMemory(image), 0x1000, KERNEL)
    assert _leaves(walked) == PageRuns([PageRun(0x12, 1)])
