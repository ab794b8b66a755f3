"""Taking over a machine in every situation, reading all of it, and leaving no trace (kd-protocol 7.3)."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from kdbridge.dump import DumpKind, render, verify
from kdbridge.errors import NoContactError
from kdbridge.memory.files import DumpFile
from kdbridge.plan import kernel_plan
from protocol.address import VirtualAddress
from protocol.arch import AMD64
from protocol.conversation import FileDeclined, OrphanReply, Printed, PromptAnswered, StateChanged
from protocol.state_change import ExceptionChange, LoadSymbols
from simulator.scenarios import SCENARIOS
from simulator.target import Activity
from tests.kdbridge.taken import READING, Way, scenario, take_over

pytestmark = pytest.mark.slow

_BREAKS_IN = {"running"}
_CONTEXT = AMD64.context


def _registers(way: Way) -> list[tuple[bytes, bytes]]:
    return [(processor.context, processor.special_registers) for processor in way.machine.processors]


def _assert_untouched(way: Way, registers: list[tuple[bytes, bytes]], life: object) -> None:
    target = way.running.target
    assert way.machine is life and target.lives == 1
    assert list(way.machine.touched) == []
    assert set(way.machine.counts) <= READING
    assert way.machine.memory.digest() == way.running.pristine.digest()
    assert way.machine.memory.device_accesses == []
    assert _registers(way) == registers
    assert target.activity is Activity.WAITING
    assert target.next_timeout() is None, "its last answer was acknowledged: it does not repeat it"


@pytest.mark.parametrize("name", SCENARIOS)
async def test_what_reads_leaves_no_trace(name: str, tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    way = scenario(name)
    kernel, life, registers = way.kernel, way.machine, _registers(way)
    async with take_over(way, break_in=name in _BREAKS_IN) as taken:
        target = taken.target
        # info
        found = await target.discover()
        assert [module.base for module in found.modules] == [module.base for module in kernel.modules]
        assert (found.bug_check_code, *found.bug_check_parameters) == kernel.bug_check
        # registers
        for processor in kernel.processors:
            context = await target.context(processor.number)
            assert context.raw[: _CONTEXT.size] == processor.context()
            assert (await target.special_registers(processor.number))["cr3"] == processor.special_values["cr3"]
        # memory
        for address in (kernel.kernel_base, kernel.modules[3].entry_address, kernel.processors[1].prcb + 0x1FF):
            data = await target.virtual.read(VirtualAddress(address), 0x90)
            assert data == kernel.read_virtual(address, 0x90)
        # dump
        with await target.snapshot(tmp_path / "snapshot", kernel_plan) as snapshot:
            out = tmp_path / "out.dmp"
            rendered = await render(snapshot, found, out, kind=DumpKind.KERNEL, partial=True)
            for pfn in snapshot.held.pages():
                assert snapshot.page(pfn) == kernel.image.read_page(pfn)
            with DumpFile(out) as dump:
                assert (await verify(dump, snapshot)).good
            assert rendered.pages > 600
    _assert_untouched(way, registers, life)
    _, break_ins = way.packets_sent()
    assert bool(break_ins) == (name in _BREAKS_IN)


async def test_a_running_machine_is_not_stopped_and_the_user_is_told_how_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    way = scenario("running")
    registers = _registers(way)
    with pytest.raises(NoContactError) as caught:
        async with take_over(way, wait=20):
            pytest.fail("nobody told it to stop")
    packets, break_ins = way.packets_sent()
    assert {(packet.control, packet.packet_type) for packet in packets} == {(True, 6)}
    assert break_ins == []
    assert trio.current_time() == pytest.approx(20)
    text = str(caught.value)
    assert text.startswith("not a single byte came from sim:running within 20 seconds")
    assert "--break-in" in text
    target = way.running.target
    assert target.activity is Activity.RUNNING
    assert (list(way.machine.touched), dict(way.machine.counts), _registers(way)) == ([], {}, registers)


async def test_a_running_machine_stops_when_it_is_told_to(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("running")
    async with take_over(way, break_in=True) as taken:
        stopped = way.kernel.processors[way.kernel.stopped_processor]
        change = taken.target.session.change
        assert change is not None and isinstance(change.event, ExceptionChange)
        assert change.program_counter == stopped.context_values["rip"] == way.kernel.symbols["DbgBreakPointWithStatus"]
        assert (await taken.target.discover()).break_status == 1  # DBG_STATUS_CONTROL_C
    packets, break_ins = way.packets_sent()
    assert break_ins == [b"b"]
    assert packets[0].packet_type == 6, "a stopped machine would have answered this, and needed no break-in"


async def test_a_break_in_is_not_sent_to_a_machine_that_stands_still(autojump_clock: trio.testing.MockClock) -> None:
    for name in SCENARIOS:
        if name in _BREAKS_IN:
            continue
        way = scenario(name)
        async with take_over(way, break_in=True):
            pass
        assert way.packets_sent()[1] == [], name


async def test_a_machine_at_its_last_break_needs_no_reset(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("bugcheck")
    async with take_over(way) as taken:
        assert trio.current_time() < 1
        assert len(taken.of(StateChanged)) == 1
    assert all(packet.packet_type in (2, 4) for packet in way.packets_sent()[0])


async def test_a_silent_machine_is_woken_by_a_reset(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("silent")
    async with take_over(way) as taken:
        assert 1.5 <= trio.current_time() < 2.5
        assert any("asking a stopped target to repeat it" in report for report in taken.reports)
    assert [packet.packet_type for packet in way.packets_sent()[0]][:1] == [6]


async def test_a_booting_machine_is_held_at_its_next_module_load(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("booting")
    async with take_over(way) as taken:
        change = taken.target.session.change
        assert change is not None and isinstance(change.event, LoadSymbols)
        assert change.event.base == way.kernel.modules[0].base


async def test_a_booting_machine_goes_through_its_module_loads_when_told_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    way = scenario("booting")
    async with take_over(way, break_in=True, pass_module_loads=True) as taken:
        loads = [event.change.event for event in taken.of(StateChanged)]
        bases = [load.base for load in loads if isinstance(load, LoadSymbols)]
        assert bases == [module.base for module in way.kernel.modules]
        assert sum(report.startswith("passing the load of ") for report in taken.reports) == len(bases)
        change = taken.target.session.change
        assert change is not None and isinstance(change.event, ExceptionChange)
        assert b"".join(event.text for event in taken.of(Printed)) == b"KDTARGET: Refreshing KD connection\n"
    # What continues a machine is exactly what was asked for: one continue a load.
    assert [entry.request.name for entry in way.machine.touched] == ["Continue2"] * len(way.kernel.modules)


async def test_an_answer_for_somebody_else_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("abandoned-reply")
    async with take_over(way) as taken:
        assert [event.reply.name for event in taken.of(OrphanReply)] == ["ReadVirtualMemory"]
        assert any("a former debugger's ReadVirtualMemory reply was waiting" in report for report in taken.reports)
        assert taken.target.session.change is not None


async def test_a_prompt_and_a_file_request_of_a_debugger_that_went_away_are_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    way = scenario("abandoned-prompt")
    async with take_over(way) as taken:
        assert [event.path for event in taken.of(FileDeclined)] == ["\\SystemRoot\\System32\\drivers\\mydrv.sys"]
        assert [event.answer for event in taken.of(PromptAnswered)] == [b"b"]
        assert trio.current_time() < 4, "it was answered at once"
        assert b"Queue->Depth < QUEUE_LIMIT" in bytes(taken.target.console)


async def test_prints_are_shown_and_kept(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("bugcheck-attached")
    async with take_over(way) as taken:
        text = b"".join(event.text for event in taken.of(Printed))
        assert b"*** Fatal System Error: 0x000000d1" in text
        assert bytes(taken.target.console) == text
        with await taken.target.snapshot(tmp_path / "snapshot", kernel_plan) as snapshot:
            assert snapshot.console_text == text


async def test_taking_over_again_after_leaving(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("bugcheck")
    for _ in range(3):
        async with take_over(way) as taken:
            await taken.target.discover()
    assert list(way.machine.touched) == []


async def test_cancelled_while_it_waits_a_target_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("silent")
    with trio.move_on_after(1) as scope:
        async with take_over(way):
            pytest.fail("it is silent until it is asked")
    assert scope.cancelled_caught
    assert way.sent == []
