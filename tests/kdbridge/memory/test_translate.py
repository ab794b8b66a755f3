"""Translation against tables built by the simulator, which walks them with code of its own."""

from __future__ import annotations

import random

import pytest

from kdbridge.errors import MemoryFault
from kdbridge.memory.translate import Presence, Translation, Translator
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.arch import AMD64
from simulator.image import MemoryImage
from simulator.kernel import KernelOptions, build_kernel
from simulator.paging import GIB, MIB2, PageTables, PteFlag, translate
from tests.kdbridge.simulated import ImageMemory

BASE = 0xFFFFF800_00000000


def _tables(frames: int = 0x80000) -> tuple[MemoryImage, PageTables]:
    image = MemoryImage(PageRuns([PageRun(0, frames)]))
    free = iter(range(0x100, 0x10000))
    return image, PageTables(image, lambda: next(free), 0x1000)


def _translator(image: MemoryImage, root: int = 0x1000, **options: object) -> Translator:
    return Translator(ImageMemory(image), AMD64.paging, root, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [PAGE_SIZE, MIB2, GIB])
async def test_a_page_of_each_size_at_its_first_and_last_byte(size: int) -> None:
    image, tables = _tables()
    tables.map(BASE + size, size, size, PteFlag.WRITE | PteFlag.NO_EXECUTE)
    translator = _translator(image)
    for offset in (0, 1, size - 1):
        found = await translator.translate(BASE + size + offset)
        assert (found.physical, found.page_size, found.presence) == (size + offset, size, Presence.PRESENT)
        assert found.entry & (1 << 63 | 2) == 1 << 63 | 2
        assert len(found.tables) == {PAGE_SIZE: 4, MIB2: 3, GIB: 2}[size] and found.tables[0] == 1
    assert (await translator.translate(BASE + 2 * size)).physical is None
    assert (await translator.translate(BASE + size - 1)).physical is None


async def test_bits_of_cr3_that_are_not_the_frame_do_not_matter() -> None:
    image, tables = _tables()
    tables.map(BASE, 0x5000)
    found = await _translator(image, 1 << 63 | 0x1000 | 0x18).translate(BASE + 0x123)
    assert found.physical == 0x5123


# Entries as Windows writes them (dump-formats 3.2; Windows Internals, invalid PTEs).
@pytest.mark.parametrize(
    ("entry", "presence", "transition"),
    [
        (0, Presence.NOT_MAPPED, None),
        (0x1234000 | 1 << 11 | 4 << 5, Presence.TRANSITION, 0x1234567),
        (0xFFFF << 48 | 0x1234000 | 1 << 11, Presence.TRANSITION, 0x1234567),
        (0x1234000 | 1 << 11 | 1 << 10, Presence.PROTOTYPE, None),
        (0x1234 << 32 | 4 << 5, Presence.PAGE_FILE, None),
        (4 << 5, Presence.DEMAND_ZERO, None),
    ],
)
async def test_an_entry_that_is_not_valid_says_where_its_page_is(
    entry: int, presence: Presence, transition: int | None
) -> None:
    image, tables = _tables()
    tables.map(BASE + PAGE_SIZE, 0x5000)
    tables.set_entry(BASE, entry)
    found = await _translator(image).translate(BASE + 0x567)
    assert (found.physical, found.presence, found.transition, found.entry) == (None, presence, transition, entry)
    assert presence.value in found.reason


async def test_an_upper_entry_is_never_taken_for_a_page_in_transition() -> None:
    image, tables = _tables()
    tables.set_entry(BASE, 0x1234000 | 1 << 11, level=2)
    found = await _translator(image).translate(BASE)
    assert found.transition is None and "level 2" in found.reason


@pytest.mark.parametrize("address", [0x8000_00000000, 0xFFFF7FFF_FFFFFFFF, 1 << 64, -1])
async def test_no_address_of_the_architecture(address: int) -> None:
    image, _ = _tables()
    found = await _translator(image).translate(address)
    assert (found.physical, found.presence, found.tables) == (None, Presence.NO_ADDRESS, ())


async def test_a_table_outside_of_ram_is_not_read() -> None:
    image, tables = _tables()
    image.device = PageRuns([PageRun(0xFEE00, 1)])
    tables.set_entry(BASE, 0xFEE00 << PAGE_SHIFT | 3, level=1)
    bounded = _translator(image, runs=image.runs)
    assert (await bounded.translate(BASE)).presence is Presence.NO_TABLE
    assert image.device_accesses == []
    assert (await _translator(image).translate(BASE)).presence is Presence.NO_TABLE
    assert len(image.device_accesses) == 1, "without runs nobody can know"


async def test_whole_tables_are_read_once_and_no_more_than_2048_are_kept() -> None:
    image, tables = _tables(0x4000)
    tables.map(BASE, 0x5000)
    memory = ImageMemory(image)
    translator = Translator(memory, AMD64.paging, 0x1000)
    for _ in range(3):
        await translator.translate(BASE)
    assert (memory.meter.reads, memory.meter.read) == (4, 4 * PAGE_SIZE)
    for pfn in range(0x1000, 0x1000 + 2048):
        await translator.table(pfn)
    reads = memory.meter.reads
    await translator.table(0x1000 + 2047)
    assert memory.meter.reads == reads
    await translator.translate(BASE)
    assert memory.meter.reads == reads + 4, "the oldest went"


async def test_single_entries_are_enough_for_a_few_addresses() -> None:
    image, tables = _tables()
    tables.map(BASE, 0x5000)
    memory = ImageMemory(image)
    found = await Translator(memory, AMD64.paging, 0x1000, whole=False).translate(BASE + 9)
    assert found.physical == 0x5009
    assert memory.meter.read == 4 * 8


@pytest.mark.parametrize("whole", [True, False])
async def test_a_whole_machine_translates_as_its_builder_says(whole: bool) -> None:
    kernel = build_kernel(KernelOptions(gigabyte_page=True, memory_size=3 << 30))
    rng = random.Random(5)
    mappings = list(kernel.tables.mapped())
    assert {mapping.size for mapping in mappings} == {PAGE_SIZE, MIB2, GIB}
    translator = Translator(ImageMemory(kernel.image), AMD64.paging, kernel.directory_table_base, whole=whole)
    for mapping in [*rng.sample(mappings, min(200, len(mappings))), *(m for m in mappings if m.size == GIB)]:
        offset = rng.randrange(mapping.size)
        found = await translator.translate(mapping.address + offset)
        assert (found.physical, found.page_size) == (mapping.physical + offset, mapping.size)
        assert found.entry & ~0x60 == mapping.entry & ~0x60
    for _ in range(200):
        address = AMD64.paging.canonical(rng.getrandbits(48))
        found = await translator.translate(address)
        assert found.physical == translate(kernel.image, kernel.directory_table_base, address)


async def test_random_tables_never_raise() -> None:
    rng = random.Random(3)
    image = MemoryImage(PageRuns([PageRun(0, 8)]))
    for pfn in range(8):
        entries = [rng.getrandbits(15) & ~1 | (rng.random() < 0.8) for _ in range(512)]
        image.write(pfn << PAGE_SHIFT, b"".join(entry.to_bytes(8, "little") for entry in entries))
    translator = _translator(image)
    found = [await translator.translate(AMD64.paging.canonical(rng.getrandbits(48))) for _ in range(500)]
    assert all(isinstance(one, Translation) and len(one.tables) <= 4 for one in found)
    assert {one.physical is None for one in found} == {True, False}


async def test_a_table_that_cannot_be_read_is_named() -> None:
    image, tables = _tables()
    tables.map(BASE, 0x5000)
    (table,) = sorted(tables.pages)[-1:]
    image.unreadable.add(table)
    found = await _translator(image).translate(BASE)
    assert found.presence is Presence.NO_TABLE and f"{table:#x}" in found.reason
    with pytest.raises(MemoryFault):
        await ImageMemory(image).read(table << PAGE_SHIFT, 8)  # type: ignore[arg-type]
