"""Pages that failed: they stop nothing, and are tried once more at the end, in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import trio
import trio.testing

from kdbridge.acquire import acquire
from kdbridge.discovery import discover
from kdbridge.errors import MemoryFault, TargetChangedError, TargetLostError
from kdbridge.live import LivePhysicalMemory
from kdbridge.plan import PlannedPages
from kdbridge.rereading import PatientMemory, Unread, reread
from kdbridge.snapshot import Snapshot
from kdbridge.source import PageRead, Source
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, PageRun, PageRuns, PhysicalAddress
from protocol.manipulate import ApiNumber
from protocol.packet import HEADER, PACKET_LEADER, PacketType
from tests.kdbridge.captured import machine
from tests.kdbridge.in_memory import Client, client_of
from tests.kdbridge.simulated import ImageMemory, SimulatedSource
from tests.small_machine import content, small_machine, stopped_target

_MEMORY = content()


def _page(pfn: int) -> bytes:
    return _MEMORY[pfn * PAGE_SIZE : (pfn + 1) * PAGE_SIZE]


async def _attached(holes: Iterable[int] = ()) -> Client:
    client = client_of(stopped_target(small_machine(holes=holes)))
    await client.session.attach(wait=30)
    return client


def _patient(client: Client) -> PatientMemory:
    return PatientMemory(LivePhysicalMemory(client.session), client.session)


def _swallow(client: Client, frames: Iterable[int], *, larger_than: int) -> list[int]:
    """A line on which replies that touch these frames get lost, if they bring more bytes. Sizes of those lost."""
    gone = set(frames)
    lost: list[int] = []

    def to_host(chunk: bytes) -> list[bytes]:
        if chunk[:4] != PACKET_LEADER or HEADER.unpack_from(chunk)[1] != PacketType.STATE_MANIPULATE:
            return [chunk]
        api, address = int.from_bytes(chunk[16:20], "little"), int.from_bytes(chunk[32:40], "little")
        size = len(chunk) - 16 - 56 - 1
        touched = {*range(address // PAGE_SIZE, (address + size - 1) // PAGE_SIZE + 1)}
        if api != ApiNumber.READ_PHYSICAL_MEMORY or size <= larger_than or not touched & gone:
            return [chunk]
        lost.append(size)
        return []

    client.line.to_host = to_host
    return lost


async def _all(pages: AsyncIterator[PageRead]) -> list[PageRead]:
    return [page async for page in pages]


async def test_a_page_without_an_answer_is_gone_past_while_others_are_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = await _attached()
    lost = _swallow(client, [5], larger_than=0)
    pages = await _all(_patient(client).read_pages([PageRun(2, 8)]))
    assert lost, "the line lost nothing"
    assert [page.pfn for page in pages] == list(range(2, 10))
    failed = [page for page in pages if page.data is None]
    assert [page.pfn for page in failed] == [4, 5], "one request brings the end of page 4 and the beginning of 5"
    assert all(page.data == _page(page.pfn) for page in pages if page not in failed)
    assert all("no answer" in page.reason for page in failed)
    again = await _all(reread(_patient(client), [PageRun(4, 2)]))
    assert [page.data for page in again] == [_page(4), None]


@pytest.mark.parametrize("largest", [512, 64])
async def test_a_page_that_comes_only_in_pieces_comes_at_the_end(
    largest: int, autojump_clock: trio.testing.MockClock
) -> None:
    client = await _attached()
    _swallow(client, [5], larger_than=largest)
    pages = await _all(reread(_patient(client), [PageRun(5, 2)]))
    assert [(page.pfn, page.data) for page in pages] == [(5, _page(5)), (6, _page(6))]


async def test_a_page_that_never_comes_is_told_with_its_reason(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached(holes=[7])
    _swallow(client, [5], larger_than=0)
    pages = await _all(reread(_patient(client), [PageRun(5, 3)]))
    assert pages[1].data == _page(6)
    assert (pages[0].data, pages[0].reason) == (None, "no answer came to it, though the target answers others")
    assert (pages[2].data, pages[2].reason) == (None, "the target refused it, in small pieces too")


async def test_a_target_that_answers_nothing_any_more_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    patient = _patient(client)
    client.line.to_host = lambda chunk: []
    for attempt in (_all(patient.read_pages([PageRun(2, 8)])), patient.read(PhysicalAddress(0x2000), 8)):
        with pytest.raises(TargetLostError):
            await attempt


async def test_a_line_that_loses_every_page_is_not_tried_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    _swallow(client, range(64), larger_than=0)
    pages = _patient(client).read_pages([PageRun(2, 40)])
    assert [(await anext(pages)).pfn for _ in range(8)] == list(range(2, 10))
    with pytest.raises(TargetLostError):
        await anext(pages)


async def test_a_machine_that_restarted_is_no_page_without_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()

    class Restarted(ImageMemory):
        async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
            for run in runs:
                yield PageRead(run.base_page, bytes(PAGE_SIZE))
                raise TargetChangedError("restarted")

    restarted = PatientMemory(Restarted(machine().image), client.session)
    with pytest.raises(TargetChangedError):
        await _all(restarted.read_pages([PageRun(2, 8)]))


async def test_a_read_without_an_answer_is_a_fault_that_names_its_place(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    _swallow(client, [5], larger_than=0)
    with pytest.raises(MemoryFault) as caught:
        await _patient(client).read(PhysicalAddress(0x5010), 32)
    assert (caught.value.address, caught.value.size) == (0x5010, 32)
    assert await _patient(client).read(PhysicalAddress(0x4FF0), 16) == _MEMORY[0x4FF0:0x5000]


async def test_a_long_run_that_is_refused_is_not_asked_for_to_its_end() -> None:
    memory = ImageMemory(machine().image)
    memory.image.unreadable |= {*range(0x100, 0x180), 0x190}
    pages = await _all(reread(memory, [PageRun(0x100, 0x80), PageRun(0x190, 1), PageRun(0x1A0, 1)]))
    assert [page.pfn for page in pages] == [*range(0x100, 0x180), 0x190, 0x1A0]
    assert all(page.data is None for page in pages[:-1])
    assert pages[-1].data == memory.image.read_page(0x1A0)
    assert memory.meter.frames == {*range(0x100, 0x120), 0x190, 0x1A0}


class _Moody(ImageMemory):
    """Refuses some pages at first."""

    refused = frozenset({0x103, 0x107, 0x108})

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        async for page in super().read_pages(runs):
            yield PageRead(page.pfn, None, "not now") if page.pfn in self.refused else page


async def test_what_failed_is_tried_again_when_the_plan_is_done_and_what_stays_is_listed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    kernel = machine()
    source = SimulatedSource(kernel)
    kernel.image.unreadable.add(0x107)

    async def plan(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
        yield PlannedPages(PageRuns([PageRun(0x100, 16)]), "all")

    with Snapshot.create(tmp_path / "s", await discover(source)) as snapshot:
        acquired = await acquire(source, _Moody(kernel.image), snapshot, plan)
        for pfn in (0x103, 0x108):
            assert snapshot.page(pfn) == kernel.image.read_page(pfn)
    assert (acquired.pages, acquired.unreadable) == (15, PageRuns([PageRun(0x107, 1)]))
    assert acquired.unread.lines() == ["1 page, the target refused it, in small pieces too: frame 0x107"]
    with Snapshot.open(tmp_path / "s") as again:
        assert again.page(0x108) == kernel.image.read_page(0x108)
        assert again.unreadable == PageRuns([PageRun(0x107, 1)])
    assert acquired.unread.lines()[0] in (tmp_path / "s" / "requests.log").read_text()


def test_what_stays_unreadable_is_told_by_reason_and_not_at_any_length() -> None:
    unread = Unread()
    for pfn in [*range(0x10, 0x14), *range(0x20, 0x40, 2)]:
        unread.add(PageRead(pfn, None, "refused"))
    unread.add(PageRead(0x50, None, "no answer"))
    assert unread.by_reason["refused"] == PageRuns.from_pages([*range(0x10, 0x14), *range(0x20, 0x40, 2)])
    assert unread.lines(most=3) == [
        "20 pages, refused: frames 0x10-0x13, 0x20, 0x22 and 14 more runs",
        "1 page, no answer: frame 0x50",
    ]
