"""Page tables: what was mapped is what a walk finds, at every page size."""

from __future__ import annotations

import itertools

import pytest

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from simulator.errors import SimulationError
from simulator.image import MemoryImage
from simulator.paging import GIB, MIB2, PageTables, PteFlag


def make_tables() -> PageTables:
    image = MemoryImage(PageRuns([PageRun(1, 0x400)]))
    frames = itertools.count(0x10)
    return PageTables(image, lambda: next(frames))


def test_each_page_size_translates_and_is_listed() -> None:
    tables = make_tables()
    wanted = {
        (0x7FFE0000, 0x123000, PAGE_SIZE),
        (0x7FF6_1234_5000, 0xABC_D000, PAGE_SIZE),
        (0xFFFF_8000_0000_0000, 0x4000_0000, GIB),
        (0xFFFF_F800_0100_0000, 0x20_0000, MIB2),
        (0xFFFF_F800_0120_0000, 0x7F_FFE0_0000, MIB2),
        (0xFFFF_FFFF_FFFF_F000, 0x3000, PAGE_SIZE),
    }
    for address, physical, size in wanted:
        tables.map(address, physical, size)
    assert {(leaf.address, leaf.physical, leaf.size) for leaf in tables.mapped()} == wanted
    for address, physical, size in wanted:
        assert tables.translate(address) == physical
        assert tables.translate(address + size - 1) == physical + size - 1
    assert tables.translate(0xFFFF_F800_0140_0000) is None
    assert tables.translate(0x7FFE1000) is None
    assert tables.translate(0x0000_F800_0100_0000) is None  # not canonical: the processor would fault


def test_the_self_map_shows_the_tables_as_memory() -> None:
    tables = make_tables()
    tables.map(0xFFFF_F780_0000_0000, 0x5000)
    base = tables.map_self(0x1ED)
    assert base == 0xFFFF_F680_0000_0000  # where it was fixed until 2016 (dump-formats 3.2)
    # The PTE of an address lies at base + (address >> 12) * 8, within 48 bits.
    place = tables.translate(base + ((0xFFFF_F780_0000_0000 & (1 << 48) - 1) >> 12) * 8)
    assert place is not None
    data = tables._image.read(place, 8)
    assert data is not None and int.from_bytes(data, "little") & 0x000F_FFFF_FFFF_F000 == 0x5000
    assert tables.translate(base | 0x1ED << 30 | 0x1ED << 21 | 0x1ED << 12) == tables.root
    assert [leaf.address for leaf in tables.mapped()] == [0xFFFF_F780_0000_0000]


def test_an_entry_in_transition_translates_to_nothing() -> None:
    tables = make_tables()
    tables.set_entry(0xFFFF_8000_0000_0000, 0x5000 | PteFlag.TRANSITION | PteFlag.WRITE)
    assert tables.translate(0xFFFF_8000_0000_0000) is None
    assert list(tables.mapped()) == []


def test_processes_share_the_kernel_half_but_not_the_self_map() -> None:
    tables = make_tables()
    tables.map_self(0x1ED)
    tables.map(0xFFFF_8000_0000_0000, 0x5000)
    tables.map(0x10000, 0x6000)
    other = PageTables(tables._image, tables._allocate_page)
    other.map_self(0x1ED)
    tables.share_kernel_half(other)
    assert other.translate(0xFFFF_8000_0000_0000) == 0x5000 == tables.translate(0xFFFF_8000_0000_0000, other.root)
    assert other.translate(0x10000) is None
    self_map = 0xFFFF_F680_0000_0000 | 0x1ED << 30 | 0x1ED << 21 | 0x1ED << 12
    assert (tables.translate(self_map), other.translate(self_map)) == (tables.root, other.root)
    tables.map(0xFFFF_8000_0000_1000, 0x7000)  # a table below is the same one
    assert other.translate(0xFFFF_8000_0000_1000) == 0x7000


@pytest.mark.parametrize(("address", "physical", "size"), [(0x1000, 0, MIB2), (0, 0x1000, MIB2), (0, 0, 0x2000)])
def test_a_page_must_lie_on_its_own_size(address: int, physical: int, size: int) -> None:
    with pytest.raises(SimulationError):
        make_tables().map(address, physical, size)


def test_nothing_is_mapped_below_a_large_page() -> None:
    tables = make_tables()
    tables.map(0xFFFF_8000_0000_0000, 0, MIB2)
    with pytest.raises(SimulationError, match="larger page"):
        tables.map(0xFFFF_8000_0000_1000, 0x1000)
