"""A stopped machine as memory: exact reads, faults that name their byte, pages in order with holes told."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from kdbridge.errors import MemoryFault
from kdbridge.live import LivePhysicalMemory, LiveTarget, LiveVirtualMemory
from kdbridge.source import PageRead
from protocol.address import PAGE_SIZE, PageRun, PhysicalAddress, VirtualAddress
from protocol.manipulate import ApiNumber
from simulator.machine import Behaviour, Machine
from tests.kdbridge.in_memory import Client, client_of
from tests.kdbridge.taken import scenario, take_over
from tests.small_machine import KERNEL, PC, SIZE, content, small_machine, stopped_target

_MEMORY = content()


async def _attached(machine: Machine | None = None) -> Client:
    client = client_of(stopped_target(machine or small_machine()))
    await client.session.attach(wait=30)
    return client


async def _pages(client: Client, *runs: PageRun) -> list[PageRead]:
    return [page async for page in LivePhysicalMemory(client.session).read_pages(runs)]


async def test_any_range_is_read_exactly(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    rng = random.Random(2)
    virtual, physical = LiveVirtualMemory(client.session), LivePhysicalMemory(client.session)
    for _ in range(40):
        at = rng.randrange(PAGE_SIZE, SIZE)
        size = rng.randrange(min(SIZE - at, 0x5000) + 1)
        assert await virtual.read(VirtualAddress(KERNEL + at), size) == _MEMORY[at : at + size]
        assert await physical.read(PhysicalAddress(at), size) == _MEMORY[at : at + size]


@pytest.mark.parametrize("largest", [17, 100, 3944, 4096])
async def test_pages_come_whole_and_in_order_however_little_a_reply_holds(
    largest: int, autojump_clock: trio.testing.MockClock
) -> None:
    count = 1 if largest < 50 else 6
    client = await _attached(small_machine(behaviour=Behaviour(largest_transfer=largest)))
    runs = [PageRun(9, count), PageRun(2, 1), PageRun(30, count)]
    pages = await _pages(client, *runs)
    assert [page.pfn for page in pages] == [pfn for run in runs for pfn in range(run.base_page, run.end_page)]
    for page in pages:
        assert page.data == _MEMORY[page.pfn * PAGE_SIZE : (page.pfn + 1) * PAGE_SIZE]


@pytest.mark.parametrize("seed", range(8))
async def test_holes_anywhere_are_told_and_cost_their_neighbours_nothing(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(f"holes {seed}")
    holes = set(rng.sample(range(1, 64), rng.randrange(1, 20)))
    behaviour = Behaviour(largest_transfer=rng.choice([700, 3944, 4096]))
    client = await _attached(small_machine(holes=holes, behaviour=behaviour))
    pages = await _pages(client, PageRun(1, 20), PageRun(21, 43))
    assert [page.pfn for page in pages] == list(range(1, 64))
    for page in pages:
        if page.pfn in holes:
            assert (page.data, page.reason) == (None, "the target refused it (0xc0000001)"), f"seed {seed}"
        else:
            assert page.data == _MEMORY[page.pfn * PAGE_SIZE : (page.pfn + 1) * PAGE_SIZE], f"seed {seed}"


async def test_a_page_that_fails_is_asked_for_alone_and_then_uncached(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    answer = Machine.answer

    def noting(self: Machine, request):  # type: ignore[no-untyped-def]
        fields = request.fields()
        if request.api == ApiNumber.READ_PHYSICAL_MEMORY:
            asked.append((fields["address"], fields["transfer_count"], fields["actual_bytes"]))
        return answer(self, request)

    monkeypatch.setattr(Machine, "answer", noting)
    client = await _attached(small_machine(holes=[3]))
    await _pages(client, PageRun(2, 3))
    hole = [entry for entry in asked if entry[0] == 3 * PAGE_SIZE]
    assert [(size <= PAGE_SIZE, cache) for _, size, cache in hole] == [(True, 0), (True, 2)]


async def test_a_page_that_only_an_uncached_read_brings(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Machine.answer

    def picky(self: Machine, request):  # type: ignore[no-untyped-def]
        fields = request.fields()
        hits = request.api == ApiNumber.READ_PHYSICAL_MEMORY and fields["actual_bytes"] != 2
        if hits and fields["address"] < 4 * PAGE_SIZE < fields["address"] + fields["transfer_count"] + PAGE_SIZE:
            self.memory.unreadable.add(3)
        result = answer(self, request)
        self.memory.unreadable.discard(3)
        return result

    monkeypatch.setattr(Machine, "answer", picky)
    client = await _attached()
    pages = await _pages(client, PageRun(2, 4))
    assert [page.data for page in pages] == [_MEMORY[n * PAGE_SIZE : (n + 1) * PAGE_SIZE] for n in range(2, 6)]


async def test_faults_name_the_first_byte_and_how_far_it_came(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached(small_machine(holes=[7]))
    for memory, base, virtual in (
        (LiveVirtualMemory(client.session), KERNEL, True),
        (LivePhysicalMemory(client.session), 0, False),
    ):
        with pytest.raises(MemoryFault) as caught:
            await memory.read(base + 0x5800, 0x4000)  # type: ignore[arg-type]
        fault = caught.value
        assert (fault.address, fault.done, fault.size, fault.virtual) == (base + 0x7000, 0x1800, 0x4000, virtual)
        assert f"{base + 0x7000:#x}" in str(fault) and "0x1800 of 0x4000 bytes came" in str(fault)


async def test_the_next_request_is_under_way_before_a_page_is_handed_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = await _attached()
    stream = LivePhysicalMemory(client.session).read_pages([PageRun(1, 8)])
    async for page in stream:
        connection = client.session.engine.connection
        assert connection.busy == (page.pfn < 8)
    assert not client.session.engine.connection.busy


async def test_no_byte_is_asked_for_twice(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    await _pages(client, PageRun(1, 60))
    assert client.target.machine.counts["ReadPhysicalMemory"] == -(-60 * PAGE_SIZE // 3944)


async def test_why_it_stopped(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    stop = LiveTarget(client.session).stop
    assert stop is not None
    assert (stop.processor, stop.exception_code, stop.program_counter, stop.first_chance, stop.number_processors) == (
        0, 0x80000003, PC, True, 1
    )  # fmt: skip
    async with take_over(scenario("booting")) as taken:
        load = taken.target.stop
        assert load is not None and (load.exception_code, load.first_chance) == (0, False)
    assert LiveTarget(client_of(stopped_target()).session).stop is None


@pytest.mark.parametrize(("name", "there"), [("bugcheck", True), ("no-physical-reads", False)])
async def test_whether_physical_memory_can_be_read_is_tried_once(
    name: str, there: bool, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario(name)
    async with take_over(way) as taken:
        assert await taken.target.live.probe_physical() is there
        assert (taken.target.live.physical is not None) is there
        assert taken.target.name == "sim:" + name
    assert way.machine.counts["ReadPhysicalMemory"] == 1
