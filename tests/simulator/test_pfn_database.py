"""The PFN database: what it tells of each frame agrees with the page tables, which a slow witness looks through."""

from __future__ import annotations

import itertools
import random
import struct
from collections import Counter
from dataclasses import replace

import pytest

from protocol.address import PageRun, PageRuns
from protocol.layouts.pfn import PageLocation
from simulator.frame_states import FrameState, FrameStates
from simulator.image import MemoryImage
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.options import as_layout
from simulator.paging import GIB, MIB2, PageTables
from simulator.pfn_database import RecordCodec
from simulator.pfn_layout import COMPACT_PFN, PFN_LAYOUTS, VISTA_PFN, WINDOWS_10_PFN, PfnLayout
from tests import slow_pages
from tests.random_machines import random_machine

pytestmark = pytest.mark.slow

SERVER = as_layout(KernelOptions(memory_size=64 << 20, processors=2, unreadable_pages=40), "server")
ZEROED, FREE, STANDBY, ACTIVE = 0, 1, 2, 6


@pytest.fixture(scope="module", params=PFN_LAYOUTS, ids=lambda layout: layout.name)
def kernel(request: pytest.FixtureRequest) -> SimulatedKernel:
    return build_kernel(replace(SERVER, pfn_layout=request.param))


def _runs(kernel: SimulatedKernel) -> list[tuple[int, int]]:
    return [(run.base_page, run.page_count) for run in kernel.image.runs]


def _base(kernel: SimulatedKernel) -> int:
    """As a debugger finds it: the KDBG points to MmPfnDatabase (C0), which holds the address."""
    block = kernel.read_virtual(kernel.kdbg_address + 0xC0, 8)
    assert block is not None
    variable = kernel.read_virtual(int.from_bytes(block, "little"), 8)
    assert variable is not None
    return int.from_bytes(variable, "little")


def _told(kernel: SimulatedKernel) -> dict[int, int]:
    layout = kernel.options.pfn_layout
    return slow_pages.database_locations(
        kernel.image.read_page, _runs(kernel), kernel.directory_table_base, _base(kernel), layout.record_size,
        layout.location,
    )  # fmt: skip


def _roots(kernel: SimulatedKernel) -> list[int]:
    roots = [process.directory_table_base for process in kernel.processes]
    return roots + [p.user_directory_table_base for p in kernel.processes if p.user_directory_table_base]


def _mapped(kernel: SimulatedKernel) -> tuple[set[int], set[int]]:
    """Frames that are tables or valid leaves, and the others that are in transition."""
    valid: set[int] = set()
    lost: set[int] = set()
    for root in _roots(kernel):
        found = slow_pages.look_through(kernel.image.read_page, _runs(kernel), root, range(512))
        valid |= found.tables | found.leaves
        lost |= found.transition
    return valid, lost - valid


def _assert_true(kernel: SimulatedKernel) -> None:
    told = _told(kernel)
    assert set(told) == set(kernel.image.runs.pages()), "a record for each frame of RAM"
    valid, lost = _mapped(kernel)
    assert {told[pfn] for pfn in valid} == {ACTIVE}
    assert {told[pfn] for pfn in lost} <= {2, 3, 4, 7}
    for pfn, location in told.items():
        if location == ZEROED:
            assert kernel.image.read_page(pfn) == bytes(4096), f"frame {pfn:#x}"
        elif location == FREE:
            assert pfn not in valid | lost


def test_every_record_is_true(kernel: SimulatedKernel) -> None:
    _assert_true(kernel)


@pytest.mark.parametrize("seed", [seed for seed in range(40) if random_machine(seed).pfn_database == "true"][:20])
def test_every_record_of_a_random_machine_is_true(seed: int) -> None:
    _assert_true(build_kernel(random_machine(seed)))


def test_all_locations_occur(kernel: SimulatedKernel) -> None:
    told = _told(kernel)
    assert set(Counter(told.values())) == set(range(8))
    free = [kernel.image.read_page(pfn) for pfn, location in told.items() if location == FREE]
    assert any(page and page.strip(b"\0") for page in free), "what its last owner left in it"
    assert any(page == bytes(4096) for page in free)
    valid, lost = _mapped(kernel)
    cache = {pfn for pfn, location in told.items() if location == STANDBY} - lost
    assert len(cache) > 50 and not cache & valid, "the cache of files"
    assert {pfn for pfn, location in told.items() if location == 5} <= kernel.image.unreadable


def test_what_is_told_beside_it_is_what_memory_says(kernel: SimulatedKernel) -> None:
    states = kernel.frame_states
    assert states is not None
    told = _told(kernel)
    for location in PageLocation:
        assert set(states.frames(location).pages()) == {pfn for pfn, value in told.items() if value == location}
    assert states.state(kernel.image.runs.end_page) is None


def test_a_record_s_entry_is_the_one_that_maps_the_frame(kernel: SimulatedKernel) -> None:
    """PteAddress leads through the self map to an entry with the frame's number."""
    layout, base = kernel.options.pfn_layout, _base(kernel)
    system = slow_pages.look_through(
        kernel.image.read_page, _runs(kernel), kernel.directory_table_base, range(256, 512)
    )
    exact = 0
    # The HAL's large page shows the first 2 MiB whoever owns them.
    for pfn in sorted((system.leaves | system.tables) - set(range(0x200))):
        record = kernel.read_virtual(base + pfn * layout.record_size, layout.record_size)
        assert record is not None
        (place,) = struct.unpack_from("<Q", record, layout.pte_address)
        assert place >> 39 == kernel.pte_base >> 39 and place % 8 == 0
        data = kernel.read_virtual(place, 8)
        assert data is not None
        entry = int.from_bytes(data, "little")
        frame = entry >> 12 & 0xFF_FFFF_FFFF
        assert entry & 1 and (frame == pfn or (entry & 0x80 and frame == pfn & ~0x1FF))
        exact += frame == pfn
        assert struct.unpack_from("<H", record, layout.reference_count)[0] == 1
        assert struct.unpack_from("<Q", record, layout.share_count)[0] & (1 << 63) - 1 >= 1
    assert exact > 500


def _layouts_that_fit(kernel: SimulatedKernel) -> list[tuple[int, int]]:
    """(record size, offset of the location) that say of a sample of known frames what is known of them."""
    rng, base = random.Random(5), _base(kernel)
    valid, lost = (sorted(pages) for pages in _mapped(kernel))
    known = [(pfn, {6}) for pfn in rng.sample(valid, 100)] + [(pfn, {2, 3, 4, 7}) for pfn in rng.sample(lost, 20)]
    fitting = []
    for size in range(0x18, 0x41, 8):
        records = [(kernel.read_virtual(base + pfn * size, size), wanted) for pfn, wanted in known]
        fitting += [
            (size, offset)
            for offset in range(size)
            if all(record is not None and record[offset] & 7 in wanted for record, wanted in records)
        ]
    return fitting


def test_the_layout_can_be_told_from_the_data(kernel: SimulatedKernel) -> None:
    layout = kernel.options.pfn_layout
    assert _layouts_that_fit(kernel) == [(layout.record_size, layout.location)]


def test_no_layout_makes_sense_of_scrambled_records() -> None:
    kernel = build_kernel(replace(SERVER, pfn_database="scrambled"))
    assert _layouts_that_fit(kernel) == []
    assert kernel.frame_states is not None


def test_a_huge_array_is_mapped_by_large_pages_and_has_no_records_for_holes() -> None:
    kernel = build_kernel(replace(SERVER, memory_size=8 << 30, unreadable_pages=0))
    base, size = _base(kernel), kernel.options.pfn_layout.record_size
    leaves = [leaf for leaf in kernel.tables.mapped() if base <= leaf.address < base + (1 << 38)]
    large = sum(leaf.size for leaf in leaves if leaf.size == 2 << 20)
    whole = kernel.image.runs.page_count * size
    assert whole * 0.95 < large <= sum(leaf.size for leaf in leaves) < whole + (6 << 20)
    hole = next(pfn for pfn in range(0xC0000, 0x100000) if pfn * size % 4096 < size) + 0x10000
    assert kernel.read_virtual(base + hole * size, 8) is None
    giant = next(leaf for leaf in kernel.tables.mapped() if leaf.size == 1 << 30)
    for pfn in (giant.physical >> 12, (giant.physical >> 12) + 0x3FFFF):
        record = kernel.read_virtual(base + pfn * size, size)
        assert record is not None and record[kernel.options.pfn_layout.location] & 7 == ACTIVE


def test_records_by_hand() -> None:
    """Windows 10: ShareCount 18, PteAddress 8, ReferenceCount 20, PageLocation 22, PteFrame 28 (prototype: bit 57)."""
    state = FrameState(PageLocation.ACTIVE, 0xFFFF8000_00001238, 0x1AA, 3)
    record = RecordCodec(WINDOWS_10_PFN).encode(0x1234, state)
    assert len(record) == 0x30
    assert struct.unpack_from("<QQQ", record) == (0x234, 0xFFFF8000_00001238, 0x80)
    assert struct.unpack_from("<QHB", record, 0x18) == (3, 1, 0x46)
    assert struct.unpack_from("<Q", record, 0x28) == (0x1AA,)
    cached = FrameState(PageLocation.MODIFIED, 0xFFFFC000_00001238, 0x77, 0, prototype=True)
    record = RecordCodec(VISTA_PFN).encode(0x1234, cached)
    assert struct.unpack_from("<QQQHB", record) == (0x1235, 0x1233, 0xFFFFC000_00001238, 0, 0x53)
    assert struct.unpack_from("<Q", record, 0x28) == (0x77 | 1 << 57,)
    record = RecordCodec(COMPACT_PFN).untouched(0x1234, PageLocation.FREE)
    assert record == struct.pack("<QQQQHxB4x", 0, 0x1235, 0x1233, 0, 0, 0xC1)


@pytest.mark.parametrize("layout", PFN_LAYOUTS, ids=lambda layout: layout.name)
def test_many_records_at_once_are_as_each_alone(layout: PfnLayout) -> None:
    codec = RecordCodec(layout)
    for first in (0, 0xFFF0):
        alone = [codec.untouched(pfn, PageLocation.ZEROED) for pfn in range(first, first + 0x60)]
        assert codec.untouched_run(first, 0x60, PageLocation.ZEROED) == b"".join(alone)


@pytest.mark.parametrize("mebibytes", [64, 65, 80, 85, 86, 96, 120])
def test_a_small_machine_has_room_for_the_array_and_the_kernel_s_large_pages(mebibytes: int) -> None:
    kernel = build_kernel(replace(SERVER, memory_size=(mebibytes << 20) + (1 << 20)))
    assert any(leaf.size == 2 << 20 and leaf.address == kernel.kernel_base for leaf in kernel.tables.mapped())
    assert kernel.read_virtual(_base(kernel) + 0x100 * kernel.options.pfn_layout.record_size, 0x30) is not None


def test_frame_0_may_be_ram() -> None:
    kernel = build_kernel(replace(SERVER, runs=PageRuns([PageRun(0, 0x4000)])))
    _assert_true(kernel)


def test_fields_must_not_overlap() -> None:
    with pytest.raises(Exception, match="the fields of the PFN layout odd overlap"):
        PfnLayout("odd", 0x30, 0, 8, 0x10, 0x18, 0x20, 0x21, 0x28)


def test_of_two_large_pages_over_one_frame_the_smaller_tells_its_state() -> None:
    image = MemoryImage(PageRuns([PageRun(0x10, 0x3FFF0)]))
    frames = itertools.count(0x20)
    tables = PageTables(image, lambda: next(frames))
    base = tables.map_self(0x1ED)
    tables.map(0xFFFF8000_00000000, 0, GIB)
    tables.map(0xFFFF9000_00000000, 0x400000, MIB2)
    states = FrameStates(image, base, 1)
    states.walk(tables.root)
    states.finish(PageRuns(), 0, random.Random(1))
    # PPE_BASE and PDE_BASE as they were fixed until 2016: FFFFF6FB'7DA00000 and FFFFF6FB'40000000.
    wide, narrow = 0xFFFFF6FB_7DB00000, 0xFFFFF6FB_64000000
    told = {
        pfn: state.pte_address for pfn in (0x10, 0x3FF, 0x400, 0x5FF, 0x600, 0x3FFFF) if (state := states.state(pfn))
    }
    assert told[0x10] == told[0x3FF] == told[0x600] == told[0x3FFFF] == wide
    assert told[0x400] == told[0x5FF] == narrow
