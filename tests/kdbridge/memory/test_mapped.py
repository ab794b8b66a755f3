"""Physical memory read through virtual addresses: what the kernel maps, byte for byte, and nothing of a device."""

from __future__ import annotations

import pytest

from kdbridge.errors import MemoryFault
from kdbridge.memory.mapped import MappedPhysicalMemory
from kdbridge.plan.tables import TableWalk
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, PhysicalAddress
from protocol.arch import AMD64
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource


async def _mapped(kernel: SimulatedKernel, runs: PageRuns | None = None) -> MappedPhysicalMemory:
    source = SimulatedSource(kernel, physical=False)
    root = kernel.processors[kernel.stopped_processor].special_values["cr3"]
    return await MappedPhysicalMemory.build(source.virtual, AMD64.paging, root, kernel.pte_base, runs)


@pytest.mark.parametrize("stopped", [0, 2])
@pytest.mark.parametrize("build", [3790, 19041])
async def test_every_page_that_the_kernel_maps(build: int, stopped: int) -> None:
    kernel = build_kernel(KernelOptions(build=build, stopped_processor=stopped, stop="bugcheck-final"))
    root = kernel.processors[stopped].special_values["cr3"]
    memory = await _mapped(kernel, kernel.image.runs)
    mappings = kernel.tables.mapped(root, AMD64.paging.kernel_entries)
    leaves = PageRuns(PageRun(m.physical >> PAGE_SHIFT, m.size >> PAGE_SHIFT) for m in mappings)
    assert leaves & kernel.image.runs == memory.pages & leaves
    kernel.image.device_accesses.clear()
    pages = [page async for page in memory.read_pages(memory.pages)]
    assert len(pages) == memory.pages.page_count > 1000
    assert all(page.data == kernel.image.read_page(page.pfn) for page in pages)
    assert kernel.image.device_accesses == []


async def test_the_same_walk_as_through_physical_memory() -> None:
    kernel = build_kernel()
    memory = await _mapped(kernel, kernel.image.runs)
    root = kernel.processors[0].special_values["cr3"]
    source = SimulatedSource(kernel)
    assert source.physical is not None
    walks = [TableWalk(physical, AMD64.paging, kernel.image.runs) for physical in (memory, source.physical)]
    levels = [[part async for part in walk.levels([root], AMD64.paging.kernel_entries)] for walk in walks]
    assert levels[0] == levels[1]
    assert walks[0].take() == walks[1].take()


async def test_what_nothing_maps_is_a_fault() -> None:
    kernel = build_kernel()
    memory = await _mapped(kernel, kernel.image.runs)
    unmapped = next(iter(kernel.image.runs - memory.pages)).base_page
    with pytest.raises(MemoryFault) as caught:
        await memory.read(PhysicalAddress((unmapped << PAGE_SHIFT) + 5), 3)
    assert (caught.value.address, caught.value.done, caught.value.virtual) == ((unmapped << PAGE_SHIFT) + 5, 0, False)
    (page,) = [page async for page in memory.read_pages([PageRun(unmapped, 1)])]
    assert page.data is None and page.reason


async def test_devices_are_left_alone() -> None:
    kernel = build_kernel()
    memory = await _mapped(kernel, kernel.image.runs)
    assert memory.address_of(0xFEE00) is None and 0xFEE00 not in memory.pages
    assert (await _mapped(kernel)).address_of(0xFEE00) is not None, "without runs nobody can know"
    assert memory.address_of(0xA0) is None, "a large page over RAM and a device"


async def test_tables_that_do_not_map_themselves_there() -> None:
    kernel = build_kernel()
    source = SimulatedSource(kernel, physical=False)
    root = kernel.processors[0].special_values["cr3"]
    for wrong in (kernel.pte_base ^ 1 << 39, 0xFFFFF680_00000000, 0xFFFFF800_00000000):
        with pytest.raises(MemoryFault):
            await MappedPhysicalMemory.build(source.virtual, AMD64.paging, root, wrong)
    with pytest.raises(MemoryFault):
        await MappedPhysicalMemory.build(source.virtual, AMD64.paging, root + PAGE_SIZE, kernel.pte_base)
