"""Virtual reads through tables: the simulator's own reader says what must come, and which byte is the first to fail."""

from __future__ import annotations

import random

import pytest

from kdbridge.errors import MemoryFault
from kdbridge.memory.virtual import PagedVirtualMemory
from protocol.address import PAGE_SIZE, PageRun, PageRuns, PhysicalAddress, VirtualAddress
from protocol.arch import AMD64
from simulator.image import MemoryImage
from simulator.kernel import KernelOptions, build_kernel
from simulator.paging import PageTables
from tests.kdbridge.simulated import ImageMemory

BASE = 0xFFFFF800_00000000


def _scattered() -> tuple[MemoryImage, PagedVirtualMemory, bytes]:
    """Five virtual pages over frames in no order; the fourth cannot be read, the sixth is not mapped."""
    image = MemoryImage(PageRuns([PageRun(0, 0x1000)]))
    free = iter(range(0x100, 0x1000))
    tables = PageTables(image, lambda: next(free), 0x1000)
    noise = random.Random(1).randbytes(5 * PAGE_SIZE)
    for page, frame in enumerate((0x20, 0x22, 0x21, 0x30, 0x31)):
        tables.map(BASE + page * PAGE_SIZE, frame * PAGE_SIZE)
        image.write(frame * PAGE_SIZE, noise[page * PAGE_SIZE : (page + 1) * PAGE_SIZE])
    return image, PagedVirtualMemory(ImageMemory(image), AMD64.paging, 0x1000), noise


@pytest.mark.parametrize(("at", "size"), [(0, 0), (0, 1), (0xFFF, 2), (0, 5 * PAGE_SIZE), (0x123, 3 * PAGE_SIZE)])
async def test_reads_across_pages(at: int, size: int) -> None:
    _, memory, noise = _scattered()
    assert await memory.read(VirtualAddress(BASE + at), size) == noise[at : at + size]


@pytest.mark.parametrize(("at", "size", "first"), [
    (0x123, 6 * PAGE_SIZE, 5 * PAGE_SIZE), (5 * PAGE_SIZE + 9, 4, 5 * PAGE_SIZE + 9),
])  # fmt: skip
async def test_the_first_byte_that_is_not_mapped(at: int, size: int, first: int) -> None:
    _, memory, _ = _scattered()
    with pytest.raises(MemoryFault) as caught:
        await memory.read(VirtualAddress(BASE + at), size)
    fault = caught.value
    assert (fault.address, fault.done, fault.size, fault.virtual) == (BASE + first, first - at, size, True)


async def test_the_first_byte_whose_page_cannot_be_read() -> None:
    image, memory, _ = _scattered()
    image.unreadable.add(0x30)
    with pytest.raises(MemoryFault) as caught:
        await memory.read(VirtualAddress(BASE + 0x10), 4 * PAGE_SIZE)
    assert (caught.value.address, caught.value.done) == (BASE + 3 * PAGE_SIZE, 3 * PAGE_SIZE - 0x10)


async def test_a_page_of_which_only_the_front_comes() -> None:
    _, memory, _ = _scattered()
    inner = memory._physical

    class Torn:
        async def read(self, address: PhysicalAddress, size: int) -> bytes:
            if 0x22100 < address + size <= 0x23000:
                raise MemoryFault("torn", address=0x22100, size=size, done=0x22100 - address, virtual=False)
            return await inner.read(address, size)

        read_pages = inner.read_pages

    torn = PagedVirtualMemory(Torn(), AMD64.paging, 0x1000)
    with pytest.raises(MemoryFault) as caught:
        await torn.read(VirtualAddress(BASE), 3 * PAGE_SIZE)
    assert (caught.value.address, caught.value.done) == (BASE + PAGE_SIZE + 0x100, PAGE_SIZE + 0x100)


@pytest.mark.parametrize("address", [0x7FFFFFFF_FFFF, 0xFFFFFFFF_FFFFFFFF, 0x12345678_00000000])
async def test_what_is_no_address_is_a_fault_like_any_other(address: int) -> None:
    _, memory, _ = _scattered()
    with pytest.raises(MemoryFault):
        await memory.read(VirtualAddress(address), 0x2000)


async def test_a_machine_reads_as_its_builder_says() -> None:
    kernel = build_kernel(KernelOptions(processors=2))
    rng = random.Random(9)
    for process in kernel.processes:
        memory = PagedVirtualMemory(ImageMemory(kernel.image), AMD64.paging, process.directory_table_base)
        mapped = list(kernel.tables.mapped(process.directory_table_base))
        for mapping in rng.sample(mapped, 60):
            address, size = mapping.address + rng.randrange(mapping.size), rng.randrange(1, 0x3000)
            expected = kernel.read_virtual(address, size, process.directory_table_base)
            try:
                assert await memory.read(VirtualAddress(address), size) == expected
            except MemoryFault:
                assert expected is None
