"""The target goes on, changes processors, restarts, crashes (kd-protocol 2.8, 3.9, 3.18, 3.19)."""

from __future__ import annotations

from collections import deque

import pytest

from protocol.arch import AMD64
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_data
from protocol.state_change import ExceptionChange, StateChange
from simulator.machine import Behaviour
from simulator.target import CLOCK_TICK, Activity, Print, Quiet, Stop
from tests.raw import A, ack
from tests.recording import Packet
from tests.simulator.desk import BREAK_IN, IMAGE, RESET, SYNC, Desk, waiting
from tests.small_machine import KERNEL, PC, content, small_machine


def test_a_continue_has_no_reply_and_the_script_goes_on() -> None:
    desk = waiting(IMAGE, Print(b"hi"))
    packets = desk.ask(A, ApiNumber.CONTINUE, continue_status=0x10002)
    assert [(p.packet_type, p.packet_id) for p in packets] == [(4, A), (7, A | 1)]
    change = StateChange.decode(packets[1].payload)
    assert change.event == IMAGE.image
    desk.hear(ack(A | 1))
    packets = desk.ask(A | 1, ApiNumber.CONTINUE2, continue_status=0x10001)
    assert [(p.packet_type, p.packet_id) for p in packets] == [(4, A | 1), (3, A)]
    assert packets[1].payload[0x10:] == b"hi"


def test_the_last_break_of_a_bug_check_comes_back_after_every_continue() -> None:
    desk = Desk(Stop(again=True))
    packet_id = A
    assert desk.heads() == [(7, SYNC)]
    for _ in range(3):
        desk.hear(ack(packet_id))
        packets = desk.ask(packet_id, ApiNumber.CONTINUE, continue_status=0x10002)
        packet_id ^= 1
        assert [(p.packet_type, p.packet_id) for p in packets] == [(4, packet_id ^ 1), (7, packet_id)]


def test_an_int3_that_was_not_stepped_over_is_hit_again() -> None:
    machine = small_machine()
    machine.memory.write(PC - KERNEL, b"\xcc")
    desk = waiting(machine=machine)
    assert [p.packet_type for p in desk.ask(A, ApiNumber.CONTINUE, continue_status=0x10002)] == [4, 7]
    desk.hear(ack(A | 1))
    machine.processors[0].set(rip=PC + 1)
    assert [p.packet_type for p in desk.ask(A | 1, ApiNumber.CONTINUE, continue_status=0x10002)] == [4]
    assert desk.target.activity is Activity.RUNNING


def _changes(packets: list[Packet]) -> list[tuple[int, int]]:
    """(processor, exception code) of the state changes among them."""
    changes = [StateChange.decode(packet.payload) for packet in packets if packet.packet_type == 7]
    assert all(isinstance(change.event, ExceptionChange) for change in changes)
    return [(c.processor, c.event.code) for c in changes if isinstance(c.event, ExceptionChange)]


@pytest.mark.parametrize("hand_back", [True, False])
def test_switching_processors(hand_back: bool) -> None:
    """kd-protocol 3.19, with both behaviours that were seen; the owner stands at the last break of a bug check."""
    machine = small_machine(processors=3, behaviour=Behaviour(hand_back_after_switch=hand_back))
    desk = Desk(Stop(again=True), machine=machine)
    desk.heads()
    desk.hear(ack(A))
    ids = iter([A, A | 1] * 20)

    def ask(api: ApiNumber, processor: int = 0) -> list[tuple[int, int]]:
        packet_id = next(ids)
        packets = desk.ask(
            packet_id, api, processor, **({"continue_status": 0x10002} if "CONTINUE" in api.name else {})
        )
        desk.hear(ack(packet_id ^ 1))
        return _changes(packets)

    wake = 0x80000007
    assert ask(ApiNumber.SWITCH_PROCESSOR, 2) == [(2, wake)]
    assert ask(ApiNumber.SWITCH_PROCESSOR, 2) == [(2, wake)], "the same one: it reports once more"
    assert ask(ApiNumber.SWITCH_PROCESSOR, 77) == [(2, wake)], "none that exists: likewise"
    assert ask(ApiNumber.SWITCH_PROCESSOR, 0) == [(0, wake)], "back: it is woken like any other"
    assert ask(ApiNumber.SWITCH_PROCESSOR, 1) == [(1, wake)]
    if hand_back:
        assert ask(ApiNumber.CONTINUE) == [(0, 0x80000003)], "its owner reports again"
        assert ask(ApiNumber.CONTINUE) == [(0, 0x80000003)], "and a final break stays one"
    else:
        assert ask(ApiNumber.CONTINUE) == [(1, 0x80000003)]


def test_a_breakpoint_in_the_window_of_a_processor_that_is_switched_in_is_gone() -> None:
    machine = small_machine(processors=2)
    desk = waiting(machine=machine)
    handle = machine.breakpoints.insert(PC + 0x20 + 4)
    assert machine.memory.read(PC - KERNEL + 0x24, 1) == b"\xcc"
    packets = desk.ask(A, ApiNumber.SWITCH_PROCESSOR, 1)
    assert StateChange.decode(packets[1].payload).program_counter == PC + 0x20
    assert machine.memory.read(PC - KERNEL + 0x24, 1) == content()[PC - KERNEL + 0x24 :][:1]
    assert not machine.breakpoints.remove(handle)


def test_reboot_is_acknowledged_and_the_new_stream_starts_with_sync() -> None:
    desk = waiting()
    desk.target.restart = lambda: (small_machine(seed=9), deque([Quiet(2.0, b"POST OK\r\n"), IMAGE]))
    request = Manipulate.request(ApiNumber.REBOOT).encode()
    desk.target.receive_data(encode_data(2, A, request), 0.0)
    assert b"".join(desk.target.data_to_send()) == ack(A) + b"POST OK\r\n"
    assert desk.wait(1.9) == []
    assert desk.wait(0.2) == [(7, SYNC)]
    assert desk.target.lives == 2
    assert desk.hear(ack(A)) == []
    packets = desk.ask(A, ApiNumber.READ_VIRTUAL_MEMORY, address=PC + 0x100, transfer_count=16)
    assert packets[1].payload[56:] == content(9)[PC - KERNEL + 0x100 :][:16], "another machine's memory"


def test_quiet_hears_nothing_until_it_is_over() -> None:
    desk = waiting(Quiet(30.0), Stop())
    desk.ask(A, ApiNumber.CONTINUE, continue_status=0x10002)
    assert desk.target.activity is Activity.QUIET
    assert desk.hear(RESET + BREAK_IN) == [] and desk.wait(29.0) == []
    # What was queued meanwhile is read then: RESET first, and the 62 makes it break once more (7.3 C).
    heads = desk.wait(1.5)
    assert heads[:3] == [(7, A | 1), (6, 0), (7, A)]
    desk.hear(ack(A))
    desk.wait(2.0)
    assert [p.packet_type for p in desk.ask(A, ApiNumber.CONTINUE, continue_status=0x10002)] == [4]
    assert desk.wait(2 * CLOCK_TICK) == [(7, A | 1)]


def test_a_crash_that_was_asked_for_is_silent_until_its_last_break() -> None:
    desk = waiting()
    desk.target.crash = lambda machine: machine.processors[0].set(rcx=4)
    assert [p.packet_type for p in desk.ask(A, ApiNumber.CAUSE_BUG_CHECK)] == [4]
    assert desk.wait(15.0) == [], "no fatal print, no first break (T59)"
    assert desk.wait(10.0)[0] == (7, A | 1)
    assert AMD64.context.decode(desk.target.machine.processors[0].context)["rcx"] == 4
    desk.hear(ack(A | 1))
    assert [p.packet_type for p in desk.ask(A | 1, ApiNumber.CONTINUE, continue_status=0x10002)] == [4, 7]


def test_a_breakpoint_table_with_a_continue_status_replies_first() -> None:
    desk = waiting()
    table = (PC + 0x100).to_bytes(8, "little") + bytes(8)
    request = Manipulate.request(ApiNumber.WRITE_BREAK_POINT_EX, data=table, count=1, continue_status=0x10002)
    assert desk.hear(encode_data(2, A, request.encode())) == [(4, A), (2, A | 1)]
    assert desk.hear(ack(A | 1)) == []
    assert desk.target.activity is Activity.RUNNING


def test_a_breakpoint_whose_page_was_absent_is_put_in_at_the_next_continue() -> None:
    machine = small_machine(holes=[7])
    desk = waiting(machine=machine)
    desk.ask(A, ApiNumber.WRITE_BREAK_POINT, address=KERNEL + 0x7010)
    desk.hear(ack(A | 1))
    machine.memory.unreadable.clear()
    machine.translate = lambda root, address: address - KERNEL
    machine.forget_translations()
    assert machine.memory.read(0x7010, 1) == content()[0x7010:0x7011]
    desk.ask(A | 1, ApiNumber.CONTINUE, continue_status=0x10002)
    assert machine.memory.read(0x7010, 1) == b"\xcc"
