"""The slow witness itself, on tables laid by hand whose pages can be counted."""

from __future__ import annotations

import random
import struct

from tests.slow_pages import active_pages, database_locations, kernel_pages, look_through, table_pages

VALID, LARGE, PROTOTYPE, TRANSITION = 1, 0x80, 0x400, 0x800
RAM = [(0x10, 0xF0), (0x200, 0x400), (0x40000, 0x40000)]
ROOT, OTHER = 0x10, 0x20


class Memory:
    """Frames by number; those that were never written are zeros."""

    def __init__(self) -> None:
        self.frames: dict[int, bytearray] = {}
        self.read: list[int] = []

    def put(self, table: int, index: int, pfn: int, flags: int = VALID) -> None:
        struct.pack_into("<Q", self.frames.setdefault(table, bytearray(4096)), index * 8, pfn << 12 | flags)

    def read_page(self, pfn: int) -> bytes | None:
        self.read.append(pfn)
        return bytes(self.frames.get(pfn, bytes(4096)))


def _two_processes() -> Memory:
    """Roots 10 and 20. They share kernel slot 300 (tables 11, 12, 13); each has its own slot 301 and a user half."""
    memory = Memory()
    for root, first in ((ROOT, 0x30), (OTHER, 0x40)):
        memory.put(root, 0x1ED, root)  # the self map
        memory.put(root, 300, 0x11)
        # Its own kernel slot: three tables and a page, and one in transition.
        memory.put(root, 301, first)
        memory.put(first, 0, first + 1)
        memory.put(first + 1, 0, first + 2)
        memory.put(first + 2, 5, first + 3)
        memory.put(first + 2, 6, first + 4, TRANSITION)
        # Its user half: three tables, a page, and one in transition.
        memory.put(root, 1, first + 5)
        memory.put(first + 5, 0, first + 6)
        memory.put(first + 6, 0, first + 7)
        memory.put(first + 7, 511, first + 8)
        memory.put(first + 7, 0, first + 9, TRANSITION)
    memory.put(0x11, 0, 0x12)
    memory.put(0x12, 0, 0x13)
    memory.put(0x13, 0, 0x50)
    return memory


SHARED = {0x11, 0x12, 0x13, 0x50}


def test_a_kernel_dump_holds_kernel_halves_and_the_tables_of_user_halves() -> None:
    memory = _two_processes()
    own = {ROOT, *range(0x30, 0x38)}
    assert kernel_pages(memory.read_page, RAM, ROOT << 12, []) == SHARED | own
    both = own | {OTHER, *range(0x40, 0x48)}
    assert kernel_pages(memory.read_page, RAM, ROOT << 12, [OTHER << 12, ROOT << 12]) == SHARED | both


def test_an_active_dump_holds_user_pages_too() -> None:
    memory = _two_processes()
    assert active_pages(memory.read_page, RAM, ROOT << 12, [OTHER << 12]) == (
        SHARED | {ROOT, OTHER, *range(0x30, 0x3A), *range(0x40, 0x4A)}
    )


def test_tables_are_no_leaves() -> None:
    memory = _two_processes()
    assert table_pages(memory.read_page, RAM, [ROOT << 12]) == {
        ROOT, 0x11, 0x12, 0x13, 0x30, 0x31, 0x32, 0x35, 0x36, 0x37,
    }  # fmt: skip


def test_caching_bits_of_a_root_are_no_part_of_its_frame() -> None:
    memory = _two_processes()
    assert table_pages(memory.read_page, RAM, [ROOT << 12 | 0x8000_0000_0000_0002]) == table_pages(
        memory.read_page, RAM, [ROOT << 12]
    )


def test_large_pages_count_whole_and_only_where_they_are_ram() -> None:
    memory = Memory()
    memory.put(ROOT, 256, 0x11)
    memory.put(0x11, 0, 0x40000, VALID | LARGE)
    memory.put(0x11, 1, 0x12)
    memory.put(0x12, 0, 0, VALID | LARGE)
    memory.put(0x12, 1, 0xC0000, VALID | LARGE)
    found = look_through(memory.read_page, RAM, ROOT << 12, range(256, 512))
    assert found.leaves == {*range(0x40000, 0x80000), *range(0x10, 0x100)}
    assert found.tables == {ROOT, 0x11, 0x12}


def test_only_transition_leads_to_a_page_that_is_not_valid() -> None:
    memory = Memory()
    memory.put(ROOT, 256, 0x11)
    memory.put(0x11, 0, 0x12)
    memory.put(0x12, 0, 0x13)
    for index, flags in enumerate((0, PROTOTYPE, PROTOTYPE | TRANSITION, 0x80)):
        memory.put(0x13, index, 0x60 + index, flags)
    memory.put(0x13, 100, 0x70, TRANSITION)
    memory.put(0x13, 101, 0xC0000, TRANSITION)
    # A leaf's bit 7 is no large page, but the PAT; an entry in transition above leaves names no page.
    memory.put(0x13, 102, 0x71, VALID | LARGE)
    memory.put(0x12, 1, 0x72, TRANSITION)
    found = look_through(memory.read_page, RAM, ROOT << 12, range(256, 512))
    assert found.transition == {0x70}
    assert found.leaves == {0x71}


def test_device_memory_is_not_read() -> None:
    memory = Memory()
    memory.put(ROOT, 256, 0xC0001)
    memory.put(ROOT, 257, 0x11)
    memory.put(0x11, 0, 0xC0002)
    assert kernel_pages(memory.read_page, RAM, ROOT << 12, []) == {ROOT, 0x11}
    assert {0xC0001, 0xC0002} & set(memory.read) == set()


def test_the_locations_of_an_array_across_pages() -> None:
    """Records of 28 bytes do not divide a page; the third page of the array is not mapped."""
    memory = Memory()
    memory.put(ROOT, 256, 0x11)
    memory.put(0x11, 0, 0x12)
    memory.put(0x12, 0, 0x13)
    memory.put(0x13, 0, 0x14)
    memory.put(0x13, 1, 0x15)
    true = [random.Random(1).randrange(8) for _ in range(300)]
    array = bytearray(3 * 4096)
    for pfn, location in enumerate(true):
        array[pfn * 0x28 + 0x23] = location | 0x40
    memory.frames[0x14], memory.frames[0x15] = array[:4096], array[4096:8192]
    told = database_locations(memory.read_page, [(0x10, 0xF0)], ROOT << 12, 0xFFFF8000_00000000, 0x28, 0x23)
    mapped = [pfn for pfn in range(0x10, 0x100) if pfn * 0x28 + 0x23 < 8192]
    assert told == {pfn: true[pfn] for pfn in mapped} and len(mapped) < 0xF0
