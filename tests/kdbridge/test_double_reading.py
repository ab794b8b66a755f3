"""Reading twice: what KD's checksum lets through does not get in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import pytest
import trio.testing

from kdbridge.double_reading import DoubleReading, ReadTwice
from kdbridge.errors import MemoryFault
from kdbridge.opening import open_target
from kdbridge.silent_errors import LIKELY, LineRecord, expected_silent_errors
from kdbridge.source import PageRead, PhysicalMemory
from kdbridge.transports.sim import open_sim
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, PhysicalAddress

pytestmark = pytest.mark.slow

_PAGES = 60


async def _wrong_pages(share: float | None, seed: int) -> tuple[list[int], DoubleReading | None]:
    options = {"memory": "16M", "processors": "1", "fault": f"keepsum=0.1,seed={seed}"}
    transport = open_sim("sim:bugcheck", "bugcheck", options)
    image = transport.running.kernel.image
    # Damage that keeps the sum needs bytes that differ.
    filled = [pfn for pfn in range(0x100, 0x1000) if any(image.read_page(pfn) or b"")][:_PAGES]
    async with open_target("sim:bugcheck", transport=transport) as target:
        physical: PhysicalMemory | None = target.physical
        assert physical is not None
        twice = None if share is None else DoubleReading(physical, ReadTwice(share, seed))
        pages = [page async for page in (twice or physical).read_pages(PageRuns.from_pages(filled))]
    assert [page.pfn for page in pages] == filled
    return [page.pfn for page in pages if page.data != image.read_page(page.pfn)], twice


@pytest.mark.parametrize("seed", range(3))
async def test_a_line_that_keeps_the_sum_gets_wrong_bytes_in_and_reading_twice_does_not(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    wrong, _ = await _wrong_pages(None, seed)
    assert wrong, f"seed {seed}: without double reading nothing tells"
    wrong, twice = await _wrong_pages(1.0, seed)
    assert wrong == [], f"seed {seed}"
    assert twice is not None and twice.verified == _PAGES and twice.differed and not twice.unsettled


@dataclass
class _Memory:
    """Pages that say how often they were read; `lies` gives what a page is read as, time after time."""

    lies: dict[int, list[bytes]] = field(default_factory=dict)
    holes: frozenset[int] = frozenset()
    asked: list[int] = field(default_factory=list)

    def _page(self, pfn: int) -> bytes | None:
        self.asked.append(pfn)
        if pfn in self.holes:
            return None
        lies = self.lies.get(pfn)
        return lies.pop(0) if lies else pfn.to_bytes(8, "little") * (PAGE_SIZE // 8)

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        at = address & PAGE_SIZE - 1
        page = self._page(address >> PAGE_SHIFT)
        if page is None:
            raise MemoryFault("no", address=address, size=size, done=0, virtual=False)
        return page[at : at + size]

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        for run in runs:
            for pfn in range(run.base_page, run.end_page):
                page = self._page(pfn)
                yield PageRead(pfn, page, "" if page is not None else "no")


async def _read(twice: DoubleReading, *runs: PageRun) -> dict[int, bytes | memoryview | None]:
    return {page.pfn: page.data async for page in twice.read_pages(runs)}


async def test_of_a_share_of_five_per_cent_so_many_are_read_twice_and_the_seed_says_which(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chosen: list[set[int]] = []
    for seed in (1, 1, 2):
        memory = _Memory()
        twice = DoubleReading(memory, ReadTwice(0.05, seed))
        assert len(await _read(twice, PageRun(0, 4000))) == 4000
        chosen.append({pfn for pfn in memory.asked if memory.asked.count(pfn) == 2})
        assert twice.verified == len(chosen[-1]) and not twice.differed
    assert chosen[0] == chosen[1] != chosen[2]
    assert all(150 <= len(one) <= 250 for one in chosen)


async def test_what_differs_is_read_until_two_agree(autojump_clock: trio.testing.MockClock) -> None:
    memory = _Memory(lies={3: [b"a" * PAGE_SIZE, b"b" * PAGE_SIZE, b"c" * PAGE_SIZE]})
    twice = DoubleReading(memory, ReadTwice(1.0))
    pages = await _read(twice, PageRun(1, 5))
    assert pages[3] == (3).to_bytes(8, "little") * 512
    assert (twice.verified, twice.differed, twice.unsettled) == (5, [3], [])
    assert memory.asked.count(3) == 5


async def test_a_page_that_changes_all_the_time_is_told_and_stops_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    memory = _Memory(lies={2: [n.to_bytes(2, "little") * (PAGE_SIZE // 2) for n in range(1000)]})
    twice = DoubleReading(memory, ReadTwice(1.0))
    pages = await _read(twice, PageRun(1, 3))
    assert sorted(pages) == [1, 2, 3] and pages[2] is not None
    assert (twice.differed, twice.unsettled, twice.verified) == ([2], [2], 2)


async def test_holes_stay_holes(autojump_clock: trio.testing.MockClock) -> None:
    memory = _Memory(holes=frozenset({2}))
    twice = DoubleReading(memory, ReadTwice(1.0))
    assert (await _read(twice, PageRun(1, 3)))[2] is None
    assert memory.asked.count(2) == 1 and twice.verified == 2
    with pytest.raises(MemoryFault):
        await twice.read(PhysicalAddress(2 * PAGE_SIZE), 8)


async def test_a_read_by_address_is_made_sure_of_too(autojump_clock: trio.testing.MockClock) -> None:
    memory = _Memory(lies={5: [b"x" * PAGE_SIZE]})
    twice = DoubleReading(memory, ReadTwice(1.0))
    assert await twice.read(PhysicalAddress(5 * PAGE_SIZE), 8) == (5).to_bytes(8, "little")


async def test_one_page_that_came_wrong_makes_it_doubt_all_that_are_read_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for automatic in (True, False):
        told: list[str] = []
        memory = _Memory(lies={pfn: [b"w" * PAGE_SIZE] for pfn in range(500, 600)})
        twice = DoubleReading(memory, ReadTwice(0.05, automatic=automatic), report=told.append)
        pages = await _read(twice, PageRun(0, 2000))
        first = twice.differed[0]
        assert 500 <= first < 600
        assert all(pages[pfn] == pfn.to_bytes(8, "little") * 512 for pfn in range(first, 600)) == automatic
        assert all(memory.asked.count(pfn) == 2 for pfn in range(600, 2000)) == automatic
        assert len(told) == automatic and all(f"page {first:#x} came wrong" in text for text in told)


async def test_it_begins_to_read_all_twice_when_the_line_makes_silent_errors_likely(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[str] = []
    memory = _Memory()
    damaged = [0]
    twice = DoubleReading(memory, ReadTwice(), lambda: LineRecord(1_000_000, damaged[0], 3944), told.append)
    assert len(await _read(twice, PageRun(0, 500))) == 500
    assert len(memory.asked) == 500 and not told
    damaged[0] = 2
    assert len(await _read(twice, PageRun(500, 100))) == 100
    assert not told, "two damaged packets in a megabyte are an accident"
    async for page in twice.read_pages([PageRun(1000, 5000)]):
        if page.pfn == 1100:
            damaged[0] = 100
    assert len(told) == 1 and "comes damaged" in told[0]
    again = {pfn for pfn in memory.asked if memory.asked.count(pfn) > 1}
    assert set(range(1200, 6000)) <= again and not set(range(1000, 1100)) & again
    assert DoubleReading(memory, ReadTwice(automatic=False), lambda: LineRecord(10, 9, 9)).everything is False


async def _kept(twice: DoubleReading, kept: dict[int, bytes], runs: Iterable[PageRun]) -> None:
    """Read as a capture does: what comes is kept, and put right where a second reading says so."""
    async for page in twice.read_pages(runs):
        if page.data is not None:
            kept[page.pfn] = bytes(page.data)
    async for page in twice.earlier(kept.get):
        if page.data is not None:
            kept[page.pfn] = bytes(page.data)


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_read_once_before_is_compared_when_a_page_came_wrong(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    options = {"memory": "16M", "processors": "1", "fault": f"keepsum=0.1,seed={seed}"}
    transport = open_sim("sim:bugcheck", "bugcheck", options)
    image = transport.running.kernel.image
    filled = [pfn for pfn in range(0x100, 0x1000) if any(image.read_page(pfn) or b"")][: 4 * _PAGES]
    first: dict[int, bytes] = {}
    kept: dict[int, bytes] = {}
    async with open_target("sim:bugcheck", transport=transport) as target:
        assert target.physical is not None
        twice = DoubleReading(target.physical, ReadTwice(0.1, seed))
        async for page in twice.read_pages(PageRuns.from_pages(filled)):
            first[page.pfn] = bytes(page.data or b"")
        kept.update(first)
        assert twice.everything and twice.once, f"seed {seed}"
        async for page in twice.earlier(kept.get):
            kept[page.pfn] = bytes(page.data or b"")
    wrong = [pfn for pfn in filled if first[pfn] != image.read_page(pfn)]
    assert wrong, f"seed {seed}: before it began to read all twice, some came wrong"
    assert [pfn for pfn in filled if kept[pfn] != image.read_page(pfn)] == [], f"seed {seed}"
    assert not twice.once and set(wrong) <= set(twice.differed) and not twice.unsettled


async def test_what_was_read_once_is_read_a_second_time_when_the_line_turns_out_bad_and_not_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[str] = []
    kept: dict[int, bytes] = {}
    damaged = [0]
    memory = _Memory(lies={7: [b"w" * PAGE_SIZE], 150: [b"w" * PAGE_SIZE]}, holes=frozenset({9}))
    twice = DoubleReading(memory, ReadTwice(), lambda: LineRecord(1_000_000, damaged[0], 3944), told.append)
    await _kept(twice, kept, [PageRun(0, 100)])
    assert sorted(memory.asked) == [*range(100)] and kept[7] == b"w" * PAGE_SIZE
    damaged[0] = 100
    await _kept(twice, kept, [PageRun(100, 5000)])
    assert len(told) == 1 and "a second time" in told[0]
    assert kept == {pfn: pfn.to_bytes(8, "little") * 512 for pfn in range(5100) if pfn != 9}
    assert memory.asked.count(9) == 1, "where nothing came there is nothing to compare"
    assert {memory.asked.count(pfn) for pfn in range(5100)} == {1, 2, 3}
    assert (twice.verified, sorted(twice.differed), len(twice.once)) == (5099, [7, 150], 0)
    memory.asked.clear()
    await _kept(twice, kept, [])
    assert memory.asked == [], "each waits for one second reading"


async def test_many_small_parts_of_a_capture_count_as_one(autojump_clock: trio.testing.MockClock) -> None:
    # One error in 1 MiB of data makes 8 MiB unlikely to have a silent one, and the whole of them likely.
    memory = _Memory()
    twice = DoubleReading(memory, ReadTwice(), lambda: LineRecord(30_000_000, 100, 3944))
    read = 0
    while not twice.everything and read < 1 << 20:
        await _kept(twice, {}, [PageRun(read, 64)])
        read += 64
    expected = expected_silent_errors(LineRecord(30_000_000, 100, 3944), read * PAGE_SIZE)
    assert LIKELY <= expected < 1.1 * LIKELY


async def test_what_another_connection_read_once_waits_too(autojump_clock: trio.testing.MockClock) -> None:
    kept = dict.fromkeys(range(4), b"w" * PAGE_SIZE)
    before = DoubleReading(_Memory(), ReadTwice())
    await _read(before, PageRun(2, 2))
    assert before.once == PageRuns([PageRun(2, 2)])
    after = DoubleReading(_Memory(), ReadTwice(), lambda: LineRecord(1_000_000, 100, 3944), once=before.once)
    await _kept(after, kept, [PageRun(10, 9000)])
    assert [pfn for pfn in range(4) if kept[pfn] != b"w" * PAGE_SIZE] == [2, 3]
    assert not DoubleReading(_Memory(), ReadTwice(automatic=False)).once
