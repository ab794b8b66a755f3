"""Opening: from an address to a machine that was taken over, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

import kdbridge
from kdbridge.errors import NoContactError, SnapshotError, TargetLostError, TargetRefusedError, TransportLostError
from kdbridge.plan import complete_plan, kernel_plan
from kdbridge.progress import Progress
from kdbridge.snapshot import Snapshot
from protocol.address import VirtualAddress
from protocol.conversation import Printed, StateChanged
from protocol.debug_io import PrintString
from protocol.manipulate import ApiNumber
from protocol.packet import encode_data
from simulator.kernel import KernelOptions
from simulator.machine import Behaviour
from tests.kdbridge.taken import Way, made_to_order, scenario, take_over


async def test_a_target_is_opened_by_its_address(autojump_clock: trio.testing.MockClock) -> None:
    async with kdbridge.open("sim:bugcheck?memory=16M&seed=5") as target:
        found = await target.discover()
        assert found.bug_check_code == 0xD1
        assert await target.discover() is found, "found out once"
        assert await target.virtual.read(VirtualAddress(found.version.kern_base), 2) == b"MZ"


async def test_what_happens_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with take_over(scenario("bugcheck-attached")) as taken:
        assert taken.reports[0].startswith("a simulated machine: ")
        assert taken.of(Printed) and taken.of(StateChanged)


async def test_the_way_is_closed_whatever_happens(autojump_clock: trio.testing.MockClock) -> None:
    closed: list[str] = []

    class Closing(Way):
        async def aclose(self) -> None:
            await trio.sleep(0.1)
            closed.append(self.url)

    def way(name: str) -> Way:
        return Closing(name, scenario(name).running)

    async with take_over(way("bugcheck")):
        pass
    with pytest.raises(ZeroDivisionError):
        async with take_over(way("breakpoint")):
            raise ZeroDivisionError
    with pytest.raises(NoContactError):
        async with take_over(way("running"), wait=5):
            pass
    with trio.move_on_after(1):
        async with take_over(way("silent")):
            pass
    assert closed == ["bugcheck", "breakpoint", "running", "silent"]


async def test_errors_come_as_they_are_and_not_in_groups(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("bugcheck")

    async def receive() -> bytes:
        await trio.lowlevel.checkpoint()
        raise TransportLostError("the line is gone")

    async def use() -> None:
        async with take_over(way) as taken:
            way.receive = receive  # type: ignore[method-assign]
            await taken.target.discover()

    with pytest.raises(TransportLostError, match="gone"):
        await use()


async def test_a_snapshot_holds_what_the_plan_says_and_its_log_what_was_asked(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario("bugcheck", unreadable="3")
    told: list[Progress] = []
    async with take_over(way) as taken:
        with await taken.target.snapshot(tmp_path / "s", complete_plan, told.append) as snapshot:
            assert snapshot.held.page_count + snapshot.unreadable.page_count == way.kernel.image.runs.page_count
            assert set(snapshot.unreadable.pages()) == way.kernel.image.unreadable
        assert taken.target.session.request_log is None
    assert told[-1].done == told[-1].total == way.kernel.image.runs.page_count << 12
    assert told[-1].unreadable == 3
    log = (tmp_path / "s" / "requests.log").read_text()
    assert "request: ReadPhysicalMemory, status 0x00000000, 4096 so far" in log
    for pfn in way.kernel.image.unreadable:
        assert f"page {pfn:#x} is unreadable: the target refused it (0xc0000001)" in log
    assert len(log.splitlines()) < 100, "a line for each kind, not for each of thousands"


async def test_a_second_capture_into_another_folder_reads_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario("breakpoint")
    async with take_over(way) as taken:
        for name in ("a", "b"):
            with await taken.target.snapshot(tmp_path / name, kernel_plan):
                pass
        with pytest.raises(SnapshotError, match="exists already"):
            await taken.target.snapshot(tmp_path / "a", kernel_plan)
    assert (tmp_path / "a" / "memory.raw").read_bytes() == (tmp_path / "b" / "memory.raw").read_bytes()


async def test_filling_a_snapshot_reads_only_what_it_lacks(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario("breakpoint")
    async with take_over(way) as taken:
        with await taken.target.snapshot(tmp_path / "s", kernel_plan) as snapshot:
            held = snapshot.held.page_count
            before = way.machine.counts["ReadPhysicalMemory"]
            acquired = await taken.target.fill(snapshot, complete_plan)
            asked = way.machine.counts["ReadPhysicalMemory"] - before
            assert acquired.pages == way.kernel.image.runs.page_count == snapshot.held.page_count
            assert asked < 1.3 * (acquired.pages - held) * 4096 / 3944


async def test_a_target_that_goes_away_in_the_middle_leaves_what_came(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario("bugcheck")
    async with take_over(way) as taken:
        await taken.target.discover()
        left = [400]

        async def receive() -> bytes:
            left[0] -= 1
            if not left[0]:
                way.machine.behaviour = Behaviour(unanswered=frozenset({ApiNumber.READ_PHYSICAL_MEMORY}))
            return await Way.receive(way)

        way.receive = receive  # type: ignore[method-assign]
        with pytest.raises(TargetLostError, match="ReadPhysicalMemory was sent"):
            await taken.target.snapshot(tmp_path / "s", complete_plan)
    with Snapshot.open(tmp_path / "s") as snapshot:
        assert 150 < snapshot.held.page_count < 450
        for pfn in snapshot.held.pages():
            assert snapshot.page(pfn) == way.kernel.image.read_page(pfn)


async def test_no_physical_reads_and_no_self_map_is_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    refused = frozenset({ApiNumber.READ_PHYSICAL_MEMORY})
    way = made_to_order(KernelOptions(memory_size=16 << 20), Behaviour(refused=refused))
    root = way.kernel.processors[0].special_values["cr3"]
    slot = way.kernel.pte_base >> 39 & 511
    way.machine.memory.write(root + 8 * slot, bytes(8))
    async with take_over(way) as taken:
        await taken.target.discover()
        assert taken.target.physical is None
        with pytest.raises(TargetRefusedError, match="do not map themselves where they should"):
            await taken.target.snapshot(tmp_path / "s", kernel_plan)


async def test_only_the_last_of_what_it_prints_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    async with take_over(scenario("breakpoint")) as taken:
        for number in range(3000):
            taken.target.printed(b"%04d" % number + b"x" * 508)
        assert len(taken.target.console) <= 1 << 20
        assert bytes(taken.target.console).endswith(b"2999" + b"x" * 508)


async def test_prints_during_a_capture_are_in_its_console(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario("breakpoint")
    async with take_over(way) as taken:
        await taken.target.discover()
        told = [b"from the machine\n"]

        def print_once(progress: Progress) -> None:
            if told:
                connection = taken.target.session.engine.connection
                packet = encode_data(3, 0x80800800, PrintString(6, 0, told.pop()).encode())
                connection.receive_data(packet, trio.current_time())

        with await taken.target.snapshot(tmp_path / "s", kernel_plan, print_once) as snapshot:
            assert snapshot.console_text == b"mydrv: queue is up\nfrom the machine\n"
            for pfn in snapshot.held.pages():
                assert snapshot.page(pfn) == way.kernel.image.read_page(pfn)
