"""Traps of breakpoints and continuing (kd-protocol 8.2)."""

from __future__ import annotations

import pytest
import trio

from protocol.arch import AMD64
from protocol.conversation import Replied, StateChanged, Told
from protocol.manipulate import ApiNumber, Manipulate
from protocol.ntstatus import DBG_EXCEPTION_NOT_HANDLED, STATUS_SUCCESS, STATUS_UNSUCCESSFUL
from protocol.state_change import ExceptionChange, StateChange
from simulator.machine import Behaviour, Machine
from simulator.target import Activity
from tests.kdbridge.in_memory import client_of
from tests.small_machine import KERNEL, PC, content, small_machine, stopped_line, stopped_target
from tests.wire import Line

_MEMORY = content()
_CONTINUE = Manipulate.request(ApiNumber.CONTINUE2, continue_status=0x10002, dr7=0x400, current_symbol_start=1)


def _ask(line: Line, api: ApiNumber, *, processor: int = 0, **fields: int) -> Manipulate:
    line.events.clear()
    line.host.ask(Manipulate.request(api, processor=processor, data=b"", **fields), line.now)
    line.settle()
    replied = next(event for event in line.events if isinstance(event, Replied))
    return replied.reply


def _insert(line: Line, address: int) -> tuple[int, int]:
    reply = _ask(line, ApiNumber.WRITE_BREAK_POINT, address=address)
    return reply.status, reply.fields()["handle"]


def _byte(machine: Machine, address: int) -> bytes | None:
    return machine.memory.read(address - KERNEL, 1)


def _stop_again(line: Line) -> StateChange:
    line.host.ask(_CONTINUE, line.now)
    line.settle()
    line.events.clear()
    line.host.send_break_in(line.now)
    line.run(1.0)
    changed = next(event for event in line.events if isinstance(event, StateChanged))
    return changed.change


def test_t20_breakpoints_in_the_window_at_pc_are_gone_when_it_stops() -> None:
    machine = small_machine()
    line = stopped_line(machine)
    addresses = [PC - 1, PC, PC + 15, PC + 16]
    handles = {address: _insert(line, address)[1] for address in addresses}
    assert [_byte(machine, address) for address in addresses] == [b"\xcc"] * 4
    change = _stop_again(line)
    assert change.program_counter == PC
    original = [_MEMORY[address - KERNEL : address - KERNEL + 1] for address in addresses]
    assert [_byte(machine, address) for address in addresses] == [b"\xcc", original[1], original[2], b"\xcc"]
    # The report shows the code without them (kd-protocol 2.5).
    assert change.control_report[0x18:0x28] == _MEMORY[PC - KERNEL : PC - KERNEL + 16]
    # Their handles are dead; the others live.
    statuses = [_ask(line, ApiNumber.RESTORE_BREAK_POINT, handle=handles[address]).status for address in addresses]
    assert statuses == [STATUS_SUCCESS, STATUS_UNSUCCESSFUL, STATUS_UNSUCCESSFUL, STATUS_SUCCESS]
    assert machine.memory.read(0x2000 - 1, 18) == _MEMORY[0x2000 - 1 : 0x2011]


def test_t21_there_are_thirty_two_and_they_outlive_their_debugger() -> None:
    machine = small_machine()
    line = stopped_line(machine)
    where = [KERNEL + 0x4000 + 16 * number for number in range(33)]
    results = [_insert(line, address) for address in where]
    assert results[:32] == [(STATUS_SUCCESS, handle) for handle in range(1, 33)]
    assert results[32] == (STATUS_UNSUCCESSFUL, 0)
    # Another debugger comes, and cleans up as WinDbg does at attach (PCAP #57 to #183).
    later = Line(line.target, now=line.now)
    later.host.send_reset(later.now)
    later.settle()
    assert all(_byte(machine, address) == b"\xcc" for address in where[:32])
    for expected in (STATUS_SUCCESS, STATUS_UNSUCCESSFUL):
        statuses = {_ask(later, ApiNumber.RESTORE_BREAK_POINT, handle=handle).status for handle in range(1, 33)}
        assert statuses == {expected}, "a slot that is empty is refused, and that is normal"
    assert machine.memory.read(0, len(_MEMORY)) == _MEMORY


def test_t22_a_second_breakpoint_at_an_address_is_refused() -> None:
    machine = small_machine()
    line = stopped_line(machine)
    assert _insert(line, KERNEL + 0x4000) == (STATUS_SUCCESS, 1)
    assert _insert(line, KERNEL + 0x4000) == (STATUS_UNSUCCESSFUL, 0)
    assert _insert(line, KERNEL + 0x4001) == (STATUS_SUCCESS, 2)
    # The first one's original byte is not forgotten over it.
    assert _ask(line, ApiNumber.RESTORE_BREAK_POINT, handle=1).status == STATUS_SUCCESS
    assert _byte(machine, KERNEL + 0x4000) == _MEMORY[0x4000:0x4001]


def test_t23_a_breakpoint_on_a_page_that_is_not_there_is_accepted() -> None:
    machine = small_machine(holes=[5])
    line = stopped_line(machine)
    assert _insert(line, KERNEL + 0x5000) == (STATUS_SUCCESS, 1)
    assert _ask(line, ApiNumber.RESTORE_BREAK_POINT, handle=1).status == STATUS_SUCCESS


async def test_t24_continuing_from_a_hard_coded_int3_steps_over_it(autojump_clock: object) -> None:
    machine = small_machine()
    machine.memory.write(PC - KERNEL, b"\xcc")
    client = client_of(stopped_target(machine))
    await client.session.attach(wait=30.0)
    assert await client.session.resume() is False
    assert client.target.activity is Activity.RUNNING
    assert machine.processors[0].program_counter == PC + 1
    apis = [entry.request.api for entry in machine.touched]
    assert apis == [ApiNumber.SET_CONTEXT, ApiNumber.CONTINUE2]
    assert machine.memory.read(PC - KERNEL, 1) == b"\xcc", "code is left alone"
    # Everything else of the registers is what it was.
    changed = AMD64.context.decode(machine.processors[0].context)
    first = AMD64.context.decode(small_machine().processors[0].context)
    assert {name for name in AMD64.context.fields if changed[name] != first[name]} == {"rip"}


@pytest.mark.parametrize("byte", [b"\x90", b"\x0f", b"\xcd"])
async def test_t24_nothing_is_skipped_where_no_int3_stands(byte: bytes, autojump_clock: object) -> None:
    machine = small_machine()
    machine.memory.write(PC - KERNEL, byte)
    client = client_of(stopped_target(machine))
    await client.session.attach(wait=30.0)
    await client.session.resume()
    assert machine.processors[0].program_counter == PC
    assert [entry.request.api for entry in machine.touched] == [ApiNumber.CONTINUE2]


async def test_t24_a_machine_continued_from_its_int3_without_moving_stops_there_again(autojump_clock: object) -> None:
    machine = small_machine()
    machine.memory.write(PC - KERNEL, b"\xcc")
    line = stopped_line(machine)
    change = _stop_again(line)
    assert isinstance(change.event, ExceptionChange)
    line.events.clear()
    line.host.ask(_CONTINUE, line.now)
    line.settle()
    assert [event.change.program_counter for event in line.of(StateChanged)] == [PC], "the loop that T24 is about"


async def test_t25_a_continue_keeps_debug_registers_and_trace_range(autojump_clock: object) -> None:
    machine = small_machine()
    machine.processors[0].set_special(kernel_dr7=0x455)
    client = client_of(stopped_target(machine))
    await client.session.attach(wait=30.0)
    await client.session.resume()
    (told,) = (entry.request for entry in machine.touched)
    assert told.fields() == {
        "continue_status": 0x10002, "trace_flag": 0, "dr7": 0x455, "current_symbol_start": 1, "current_symbol_end": 0,
    }  # fmt: skip
    assert AMD64.special_registers.decode(machine.processors[0].special_registers)["kernel_dr7"] == 0x455


def test_t25_dr7_of_a_continue_goes_to_every_processor_and_no_trace_flag_clears_tf() -> None:
    machine = small_machine(processors=2)
    machine.processors[0].set(e_flags=0x346)
    line = stopped_line(machine)
    line.host.ask(Manipulate.request(ApiNumber.CONTINUE2, continue_status=0x10002, dr7=0x777), line.now)
    line.settle()
    for processor in machine.processors:
        registers = AMD64.special_registers.decode(processor.special_registers)
        assert (registers["kernel_dr7"], registers["kernel_dr6"]) == (0x777, 0)
    assert AMD64.context.decode(machine.processors[0].context)["e_flags"] == 0x246


def test_t26_a_failure_status_makes_the_control_set_be_ignored() -> None:
    machine = small_machine()
    line = stopped_line(machine)
    refusal = Manipulate.request(
        ApiNumber.CONTINUE2, continue_status=DBG_EXCEPTION_NOT_HANDLED, trace_flag=1, dr7=0x777
    )
    before = machine.processors[0].context, machine.processors[0].special_registers
    line.host.ask(refusal, line.now)
    line.settle()
    assert line.of(Told) == [Told(refusal)]
    assert (machine.processors[0].context, machine.processors[0].special_registers) == before
    assert line.target.activity is Activity.RUNNING


@pytest.mark.parametrize("hand_back", [True, False])
def test_t29_after_a_switch_two_continues_are_needed(hand_back: bool) -> None:
    machine = small_machine(processors=3, behaviour=Behaviour(hand_back_after_switch=hand_back))
    line = stopped_line(machine)
    _stop_again(line)
    line.events.clear()
    line.host.ask(Manipulate.request(ApiNumber.SWITCH_PROCESSOR, processor=2), line.now)
    line.settle()
    (switched,) = (event.change for event in line.of(StateChanged))
    assert (switched.processor, switched.program_counter) == (2, PC + 0x40)
    assert isinstance(switched.event, ExceptionChange) and switched.event.code == 0x80000007
    line.events.clear()
    line.host.ask(_CONTINUE, line.now)
    line.settle()
    assert [event.change.processor for event in line.of(StateChanged)] == ([0] if hand_back else [])
    if hand_back:
        line.host.ask(_CONTINUE, line.now)
        line.settle()
    assert line.target.activity is Activity.RUNNING


def test_t29_a_switch_to_where_one_is_repeats_the_report() -> None:
    line = stopped_line(small_machine(processors=2))
    _stop_again(line)
    for processor in (0, 99):
        line.events.clear()
        line.host.ask(Manipulate.request(ApiNumber.SWITCH_PROCESSOR, processor=processor), line.now)
        line.settle()
        assert [event.change.processor for event in line.of(StateChanged)] == [0]


async def test_t28_the_engine_sends_a_continue_three_times_at_most(autojump_clock: object) -> None:
    machine = small_machine()
    client = client_of(stopped_target(machine))
    await client.session.attach(wait=30.0)
    client.line.sent.clear()
    client.line.to_host = lambda chunk: [] if chunk[:6] == b"iiii\x04\0" and machine.counts["Continue2"] else [chunk]
    began = trio.current_time()
    with pytest.raises(Exception, match="Continue2 was sent, but the target did not acknowledge it") as caught:
        await client.session.resume()
    assert type(caught.value).__name__ == "TargetLostError"
    assert client.sent.count(bytes.fromhex("3c310000")) == 3
    assert trio.current_time() - began < 30
    assert machine.counts["Continue2"] == 1
