"""Bringing pages home: each is kept as it comes, read once, and durable within a second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import trio
import trio.testing

from kdbridge.acquire import KeepingMemory, KeepingSource, acquire
from kdbridge.budget import Budget
from kdbridge.discovery import discover
from kdbridge.errors import MemoryFault, TargetLostError
from kdbridge.plan import PlannedPages
from kdbridge.progress import Meter, Progress
from kdbridge.snapshot import Snapshot
from kdbridge.source import PageRead, Source
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, PageRun, PageRuns, PhysicalAddress
from simulator.kernel import SimulatedKernel
from tests.kdbridge.captured import machine
from tests.kdbridge.simulated import ImageMemory, SimulatedSource


class _Slow(ImageMemory):
    """Physical memory that takes a tenth of a second a page, and may fail for good at one of them."""

    lost_at = -1

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        for run in runs:
            for pfn in range(run.base_page, run.end_page):
                await trio.sleep(0.1)
                if pfn == self.lost_at:
                    raise TargetLostError("gone")
                self.meter.frames.add(pfn)
                data = self.image.read_page(pfn)
                yield PageRead(pfn, data, "" if data is not None else "no")


class _Machine:
    def __init__(self, kernel: SimulatedKernel) -> None:
        self.kernel = kernel
        self.source = SimulatedSource(kernel)
        self.memory = _Slow(kernel.image)

    async def snapshot(self, path: Path) -> Snapshot:
        return Snapshot.create(path, await discover(self.source))


@pytest.fixture
def simulated() -> _Machine:
    return _Machine(machine())


def _plan(*parts: PlannedPages):  # type: ignore[no-untyped-def]
    async def plan(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
        for part in parts:
            yield part

    return plan


def _pages(start: int, count: int) -> PageRuns:
    return PageRuns([PageRun(start, count)])


async def test_a_page_that_is_planned_twice_is_read_once(
    simulated: _Machine, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    seen: list[int] = []
    with await simulated.snapshot(tmp_path / "s") as snapshot:
        plan = _plan(
            PlannedPages(_pages(0x100, 20), "first"),
            PlannedPages(_pages(0x110, 20), "then"),
            PlannedPages(_pages(0x100, 0x24), "all", 0x24),
        )
        acquired = await acquire(simulated.source, simulated.memory, snapshot, plan)
        assert acquired.pages == 0x24
        assert acquired.seconds == pytest.approx(0x24 / 10)
        seen += snapshot.held.pages()
    assert seen == list(range(0x100, 0x124))
    log = (tmp_path / "s" / "requests.log").read_text()
    assert "plan: 20 of 20 pages for first\nplan: 16 of 20 pages for then\nplan: 0 of 36 pages for all\n" in log


async def test_unreadable_pages_are_counted_listed_and_not_tried_again(
    simulated: _Machine, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    simulated.kernel.image.unreadable |= {0x103, 0x104, 0x10A}
    told: list[Progress] = []
    with await simulated.snapshot(tmp_path / "s") as snapshot:
        plan = _plan(PlannedPages(_pages(0x100, 16), "first"), PlannedPages(_pages(0x100, 16), "again"))
        acquired = await acquire(simulated.source, simulated.memory, snapshot, plan, told.append)
    assert acquired.unreadable == PageRuns.from_pages([0x103, 0x104, 0x10A])
    assert acquired.pages == 13
    assert told[-1].unreadable == 3
    assert acquired.seconds == pytest.approx(1.6)
    assert (tmp_path / "s" / "requests.log").read_text().count(" is unreadable: no") == 3


async def test_what_was_read_a_second_ago_is_durable(
    simulated: _Machine, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    durable: list[tuple[float, int]] = []
    with await simulated.snapshot(tmp_path / "s") as snapshot:

        async def look() -> None:
            while True:
                await trio.sleep(1)
                with Snapshot.open(tmp_path / "s") as there:
                    durable.append((trio.current_time() - started, there.held.page_count))

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await acquire(simulated.source, simulated.memory, snapshot, _plan(PlannedPages(_pages(0x100, 400), "all")))
            nursery.cancel_scope.cancel()
    assert len(durable) > 30
    # A tenth of a second a page: what is not durable yet is younger than a second and a page.
    for seconds, pages in durable:
        assert pages >= seconds * 10 - 10 - 2


@pytest.mark.parametrize("how", ["cancelled", "lost", "plan fails"])
async def test_whatever_ends_it_all_that_came_is_kept(
    how: str, simulated: _Machine, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    snapshot = await simulated.snapshot(tmp_path / "s")

    async def failing(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
        yield PlannedPages(_pages(0x100, 25), "some")
        raise MemoryFault("no", address=0, size=1, done=0, virtual=False)

    everything = _plan(PlannedPages(_pages(0x100, 200), "all"))
    if how == "cancelled":
        with trio.move_on_after(2.55):
            await acquire(simulated.source, simulated.memory, snapshot, everything)
    elif how == "lost":
        simulated.memory.lost_at = 0x100 + 25
        with pytest.raises(TargetLostError):
            await acquire(simulated.source, simulated.memory, snapshot, everything)
    else:
        with pytest.raises(MemoryFault):
            await acquire(simulated.source, simulated.memory, snapshot, failing)
    # Not closed: what is on disk now is what a killed process leaves.
    with Snapshot.open(tmp_path / "s") as there:
        assert there.held == _pages(0x100, 25)
        for pfn in there.held.pages():
            assert there.page(pfn) == simulated.kernel.image.read_page(pfn)
    snapshot.close()


async def test_what_a_plan_reads_to_find_out_is_kept(
    simulated: _Machine, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def curious(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
        assert source.physical is not None
        table = await source.physical.read(PhysicalAddress(0x100_000 + 0xFF8), 16)
        assert table == simulated.kernel.image.read(0x100_000 + 0xFF8, 16)
        yield PlannedPages(_pages(0x100, 3), "what it told")

    with await simulated.snapshot(tmp_path / "s") as snapshot:
        acquired = await acquire(simulated.source, simulated.memory, snapshot, curious)
    assert acquired.pages == 3
    assert acquired.seconds == pytest.approx(0.3), "two of the three were there already"


async def test_memory_that_keeps_faults_where_the_target_does(
    simulated: _Machine, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    simulated.kernel.image.unreadable.add(0x102)
    with await simulated.snapshot(tmp_path / "s") as snapshot:
        memory = KeepingMemory(simulated.memory, snapshot, Meter(None, "", None), Budget())
        assert await memory.read(PhysicalAddress(0x101_800), 0x800) == simulated.kernel.image.read(0x101_800, 0x800)
        with pytest.raises(MemoryFault) as caught:
            await memory.read(PhysicalAddress(0x100_800), 0x2000)
        assert (caught.value.address, caught.value.done) == (0x102_000, 0x1800)
        keeping = KeepingSource(simulated.source, memory, simulated.source.virtual)
        assert keeping.physical is memory
        assert (keeping.name, keeping.stop) == (simulated.source.name, simulated.source.stop)
        assert await keeping.version() == simulated.kernel.version
        assert (await keeping.context(1)).raw == simulated.kernel.processors[1].context()
        assert (await keeping.special_registers(1))["cr3"] == simulated.kernel.processors[1].special_values["cr3"]
        assert keeping.virtual is simulated.source.virtual


async def test_progress_says_how_much_of_how_much_and_how_fast(
    simulated: _Machine, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    told: list[Progress] = []
    with await simulated.snapshot(tmp_path / "s") as snapshot:
        plan = _plan(PlannedPages(_pages(0x100, 320), "physical memory", 320))
        await acquire(simulated.source, simulated.memory, snapshot, plan, told.append)
    middle = told[len(told) // 2]
    total = 320 * PAGE_SIZE
    assert (middle.what, middle.total) == ("complete: physical memory", total)
    assert middle.rate == pytest.approx(10 * PAGE_SIZE, rel=0.1)
    assert middle.time_left == pytest.approx((total - middle.done) / middle.rate)
    assert told[-1].done == 320 * PAGE_SIZE
