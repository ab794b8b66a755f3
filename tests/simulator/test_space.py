"""The kernel's virtual memory while it is made: writes by address, heaps, stacks with guards, lists."""

from __future__ import annotations

import itertools
import random
import struct

import pytest

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from simulator.errors import SimulationError
from simulator.frames import FrameAllocator
from simulator.image import MemoryImage
from simulator.paging import PageTables, read_virtual
from simulator.space import KernelSpace, plan_addresses


def _space(pages: int = 0x8000, *, randomized: bool = True) -> KernelSpace:
    runs = PageRuns([PageRun(0x100, pages)])
    image, rng = MemoryImage(runs), random.Random(1)
    frames = FrameAllocator(runs, rng)
    tables = PageTables(image, frames.allocate)
    return KernelSpace(image, frames, tables, plan_addresses(rng, randomized, None), rng)


def _read(space: KernelSpace, address: int, size: int) -> bytes | None:
    return read_virtual(space.image, space.tables.root, address, size)


@pytest.mark.parametrize("pages", [0x800, 0x8000], ids=["small pages", "large pages"])
def test_blocks_of_a_heap_do_not_touch(pages: int) -> None:
    space = _space(pages)
    rng = random.Random(2)
    blocks: list[tuple[int, bytes]] = []
    for number in range(200):
        data = rng.randbytes(rng.randrange(1, 3000))
        align = rng.choice((16, 16, 64, PAGE_SIZE))
        address = space.nonpaged.place(data, b"Tst%d" % (number % 10), align)
        assert address % align == 0
        blocks.append((address, data))
    blocks.sort()
    for (address, data), (following, _) in itertools.pairwise(blocks):
        assert address + len(data) <= following - 16
    for address, data in blocks:
        assert _read(space, address, len(data)) == data
        tag = _read(space, address - 12, 4)
        assert tag is not None and tag[:3] == b"Tst", "a pool header lies before it"
    assert space.nonpaged.base <= blocks[0][0] and blocks[-1][0] + len(blocks[-1][1]) <= space.nonpaged.end


def test_a_block_may_be_asked_for_across_a_page_boundary() -> None:
    space = _space()
    for _ in range(5):
        address = space.nonpaged.allocate(0x4D0, b"Xsav", PAGE_SIZE, PAGE_SIZE - 0x200)
        assert address % PAGE_SIZE == PAGE_SIZE - 0x200
        space.write(address, bytes(range(256)) * 4)
        assert _read(space, address, 1024) == bytes(range(256)) * 4


def test_stacks_have_guards_on_both_sides() -> None:
    space = _space()
    stacks = [space.allocate_stack() for _ in range(4)]
    for base, limit in stacks:
        assert base - limit == 6 * PAGE_SIZE
        assert _read(space, limit, base - limit) == bytes(base - limit)
        assert _read(space, base, 1) is None and _read(space, limit - 1, 1) is None


def test_what_is_not_mapped_cannot_be_written() -> None:
    space = _space()
    with pytest.raises(SimulationError, match="0xffff800000000000 is not mapped"):
        space.write(0xFFFF800000000000, b"x")


def test_a_list_closes_in_both_directions() -> None:
    space = _space()
    head, *entries = (space.nonpaged.allocate(16) for _ in range(4))
    space.link_list(head, list(entries))
    forward, at = [], head
    for _ in range(4):
        data = _read(space, at, 16)
        assert data is not None
        at, _back = struct.unpack("<QQ", data)
        forward.append(at)
    assert forward == [*entries, head]
    space.link_list(head, [])
    assert _read(space, head, 16) == struct.pack("<QQ", head, head)


def test_a_name_is_utf_16_with_its_length_in_bytes() -> None:
    space = _space()
    length, maximum, buffer = space.unicode_string("ntoskrnl.exe")
    assert (length, maximum) == (24, 26)
    assert _read(space, buffer, 26) == "ntoskrnl.exe\0".encode("utf-16-le")


@pytest.mark.parametrize("seed", range(20))
def test_regions_of_a_randomized_kernel_share_no_pml4_slot(seed: int) -> None:
    plan = plan_addresses(random.Random(seed), True, None)
    regions = (plan.nonpaged_pool, plan.paged_pool, plan.system_ptes, plan.pfn_database, plan.system_cache,
               plan.large_pool, plan.devices, plan.kernel, plan.self_map_slot << 39)  # fmt: skip
    slots = {address >> 39 & 511 for address in regions}
    assert len(slots) == len(regions) and min(slots) >= 256
    assert plan.kernel >> 39 & 511 == 0x1F0, "FFFFF800: where kernels lie"
    assert plan.kernel % (2 << 20) == 0 and plan.drivers > plan.kernel


def test_regions_of_an_old_kernel_are_where_they_always_were() -> None:
    plan = plan_addresses(random.Random(1), False, 0xFFFFF800_01000000)
    assert plan.self_map_slot == 0x1ED  # FFFFF680'00000000 (dump-formats 3.2)
    assert plan.kernel == 0xFFFFF800_01000000
    assert plan.pfn_database == 0xFFFFFA80_00000000
