"""Sparse physical memory: what was written is read, what is not memory is not, and copies do not leak."""

from __future__ import annotations

import random

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from simulator.image import DeviceAccess, MemoryImage, PageBacking


def test_random_writes_equal_a_flat_bytearray() -> None:
    flat = bytearray(64 * PAGE_SIZE)
    image = MemoryImage(PageRuns([PageRun(0, 64)]))
    rng = random.Random(1)
    for _ in range(500):
        at = rng.randrange(len(flat) - 9000)
        data = rng.randbytes(rng.randrange(9000))
        flat[at : at + len(data)] = data
        assert image.write(at, data)
    assert image.read(0, len(flat)) == flat
    assert b"".join(image.read_page(pfn) or b"" for pfn in range(64)) == flat


def test_a_hole_ends_a_read_and_a_write() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 2), PageRun(3, 1)]))
    assert image.read(PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)
    assert image.read(PAGE_SIZE + 1, PAGE_SIZE) is None
    assert len(image.read_some(PAGE_SIZE + 1, 2 * PAGE_SIZE)) == PAGE_SIZE - 1
    assert not image.write(2 * PAGE_SIZE - 2, b"abcd")
    assert image.read(2 * PAGE_SIZE - 2, 2) == b"ab"
    assert image.read_page(2) is None and not image.write(2 * PAGE_SIZE, bytes(PAGE_SIZE))


def test_device_memory_is_never_read_in_silence() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 1)]), device=PageRuns([PageRun(0xFEE00, 1)]))
    assert image.read(0xFEE00020, 4) is None
    assert not image.write(0xFEE000B0, b"\0\0\0\0")
    assert image.read_page(0xFEE00) is None
    assert image.read(0x5000, 4) is None  # a hole, but not a device
    assert image.device_accesses == [
        DeviceAccess(0xFEE00020, 4, write=False),
        DeviceAccess(0xFEE000B0, 4, write=True),
        DeviceAccess(0xFEE00000, PAGE_SIZE, write=False),
    ]


def test_an_unreadable_page_fails_both_ways() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 3)]), unreadable={1})
    assert image.read_page(1) is None and not image.write(PAGE_SIZE, bytes(PAGE_SIZE))
    assert image.read(PAGE_SIZE - 1, 2) is None
    assert image.device_accesses == []


def test_a_copy_shares_until_one_side_writes() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 4)]))
    image.write(10, b"before")
    before = image.digest()
    other = image.copy()
    other.write(10, b"after.")
    image.write(PAGE_SIZE, b"more")
    assert (image.read(10, 6), other.read(10, 6)) == (b"before", b"after.")
    assert other.read(PAGE_SIZE, 4) == bytes(4)
    image.write(PAGE_SIZE, bytes(4))
    assert image.digest() == before != other.digest()


def test_a_raw_file_is_read_on_demand_only() -> None:
    content = random.Random(2).randbytes(3 * PAGE_SIZE + 100)
    asked: list[int] = []

    def read_at(offset: int, size: int) -> bytes:
        asked.append(offset)
        return content[offset : offset + size]

    image = MemoryImage.from_raw(read_at, len(content))
    assert asked == [] and image.runs == PageRuns([PageRun(0, 4)])
    assert image.read(PAGE_SIZE + 5, 10) == content[PAGE_SIZE + 5 : PAGE_SIZE + 15]
    assert asked == [PAGE_SIZE]
    assert image.read_page(3) == content[3 * PAGE_SIZE :].ljust(PAGE_SIZE, b"\0")
    image.write(PAGE_SIZE + 5, b"new")
    assert image.read(PAGE_SIZE, 10) == content[PAGE_SIZE : PAGE_SIZE + 5] + b"new" + content[PAGE_SIZE + 8 :][:2]


def test_content_lists_what_may_not_be_zero() -> None:
    image = MemoryImage(PageRuns([PageRun(0, 100)]))
    image.add_backing(PageBacking(PageRuns([PageRun(7, 2)]), lambda pfn: bytes([pfn]) * 4))
    image.write(50 * PAGE_SIZE, b"x")
    assert list(image.content_pages()) == [7, 8, 50]
    assert image.read_page(8) == b"\x08" * 4 + bytes(PAGE_SIZE - 4)
