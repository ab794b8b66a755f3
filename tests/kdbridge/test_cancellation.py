"""Cancelled anywhere, a read leaves the line in order: the next one gets its own bytes, never the late answer's."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from kdbridge.live import LivePhysicalMemory, LiveVirtualMemory
from kdbridge.plan import complete_plan
from kdbridge.snapshot import Snapshot
from kdbridge.source import PageRead
from protocol.address import PAGE_SIZE, PageRun, VirtualAddress
from protocol.conversation import OrphanReply
from tests.kdbridge.in_memory import InMemory, client_of
from tests.kdbridge.taken import scenario, take_over
from tests.small_machine import KERNEL, content, small_machine, stopped_target

_MEMORY = content()
_BAUD = 115200


async def _read(memory: LiveVirtualMemory, at: int, size: int) -> None:
    assert await memory.read(VirtualAddress(KERNEL + at), size) == _MEMORY[at : at + size]


@dataclass
class _Cutting(InMemory):
    """A line that cancels a scope at one of its own checkpoints: `cut_at` counts them, before and behind each."""

    cut_at: int = -1
    count: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def _checkpoint(self) -> None:
        if self.count == self.cut_at:
            self.scope.cancel()
        self.count += 1

    async def send(self, data: bytes) -> None:
        self._checkpoint()
        await super().send(data)
        self._checkpoint()

    async def receive(self) -> bytes:
        self._checkpoint()
        data = await super().receive()
        self._checkpoint()
        return data


async def _cut_once(cut_at: int) -> tuple[bool, list]:
    client = client_of(stopped_target(small_machine()))
    line = _Cutting(client.target)
    client.session.engine.transport = line
    await client.session.attach(wait=30)
    memory = LiveVirtualMemory(client.session)
    line.count, line.cut_at = 0, cut_at
    with line.scope:
        # Three requests of the same kind; the answer of any may come too late.
        await memory.read(VirtualAddress(KERNEL + 0x3000), 2 * 3944 + 100)
    line.cut_at = -1
    cut = line.scope.cancelled_caught
    await _read(memory, 0x3000, 2 * 3944 + 100)
    await _read(memory, 0x3010, 64)
    await _read(memory, 0x9000, 64)
    return cut, client.events


async def test_a_read_that_is_cancelled_at_any_checkpoint(autojump_clock: trio.testing.MockClock) -> None:
    cuts = 0
    orphans = 0
    while True:
        cut, events = await _cut_once(cuts)
        if not cut:
            break
        orphans += any(isinstance(event, OrphanReply) for event in events)
        cuts += 1
    assert cuts > 12
    assert orphans > 5, "late answers did come, and were known as such"


@pytest.mark.parametrize("baud", [_BAUD, 921600])
async def test_a_read_that_is_cancelled_at_any_moment_of_a_slow_line(
    baud: int, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario("bugcheck", baud=baud)
    kernel = way.kernel
    a, b = kernel.kernel_base, kernel.kernel_base + 0x40
    truth = {at: kernel.read_virtual(at, 0x1000) for at in (a, b)}
    rng = random.Random(baud)
    async with take_over(way) as taken:
        memory = taken.target.virtual
        started = trio.current_time()
        assert await memory.read(VirtualAddress(a), 0x1000) == truth[a]
        takes = trio.current_time() - started
        assert takes > 0x1000 * 10 / baud, "a line cannot be faster than its bits"
        for step in range(30):
            with trio.move_on_after(takes * (step + rng.random()) / 28):
                await memory.read(VirtualAddress(a), 0x1000)
            at = rng.choice([a, b])
            assert await memory.read(VirtualAddress(at), 0x1000) == truth[at], f"step {step} at {baud}"
        assert len(taken.of(OrphanReply)) > 5
    assert list(way.machine.touched) == []


async def test_pages_that_are_cancelled_while_the_next_request_is_under_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for stop_after in range(6):
        client = client_of(stopped_target(small_machine()))
        await client.session.attach(wait=30)
        physical = LivePhysicalMemory(client.session)
        stream = physical.read_pages([PageRun(1, 8)])
        for number in range(stop_after):
            page = await anext(stream)
            assert page.data == _MEMORY[(1 + number) * PAGE_SIZE : (2 + number) * PAGE_SIZE]
        await cast("AsyncGenerator[PageRead, None]", stream).aclose()
        assert not client.session.engine.connection.busy
        pages = [page async for page in physical.read_pages([PageRun(1, 8)])]
        assert b"".join(bytes(page.data or b"") for page in pages) == _MEMORY[PAGE_SIZE : 9 * PAGE_SIZE]


async def test_a_capture_that_is_cancelled_keeps_its_pages_and_the_line(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario("bugcheck", baud=_BAUD)
    kept: list[int] = []
    async with take_over(way) as taken:
        await taken.target.discover()
        for number, seconds in enumerate((0.0, 0.31, 1.7, 5.03, 20.9)):
            folder = tmp_path / f"snapshot {number}"
            with trio.move_on_after(seconds) as scope:
                await taken.target.snapshot(folder, complete_plan)
            assert scope.cancelled_caught
            if folder.exists():
                with Snapshot.open(folder) as snapshot:
                    for pfn in snapshot.held.pages():
                        assert snapshot.page(pfn) == way.kernel.image.read_page(pfn)
                    kept.append(snapshot.held.page_count)
            base = way.kernel.kernel_base
            data = await taken.target.virtual.read(VirtualAddress(base), 0x1200)
            assert data == way.kernel.read_virtual(base, 0x1200), f"after {seconds} s"
    assert kept == sorted(kept)
    assert kept[-1] > 20 * _BAUD / 10 / PAGE_SIZE * 0.8, "a line that is fully used brings so many pages"
    assert list(way.machine.touched) == []


async def test_attaching_that_is_cancelled_can_be_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    for step in range(40):
        client = client_of(stopped_target(small_machine()))
        with trio.move_on_after(4.0 + step / 100) as scope:
            await client.session.attach(wait=60)
            assert not scope.cancelled_caught
        await client.session.attach(wait=60)
        await _read(LiveVirtualMemory(client.session), 0x1234, 100)
