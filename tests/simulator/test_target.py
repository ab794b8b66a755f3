"""The target's command loop, held against the tables of kd-protocol 1.7 to 1.11, with bytes made by hand."""

from __future__ import annotations

import pytest

from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_control, encode_data
from simulator.target import CLOCK_TICK, Activity, Ask, Event, OpenFile, Print, Quiet, Stop
from tests.raw import A, ack
from tests.simulator.desk import BREAK_IN, IMAGE, RESET, SYNC, Desk, waiting
from tests.small_machine import KERNEL, PC, content, small_machine

RESEND = bytes.fromhex("69696969 05000000 00000000 00000000")


def replying() -> Desk:
    """Its reply to a version request, with id A | 1, is not acknowledged yet."""
    desk = waiting()
    assert [(p.packet_type, p.packet_id) for p in desk.ask(A, ApiNumber.GET_VERSION)] == [(4, A), (2, A | 1)]
    assert desk.target.activity is Activity.REPLYING
    return desk


def running() -> Desk:
    desk = Desk()
    assert desk.wait(1.0) == [] and desk.target.activity is Activity.RUNNING
    return desk


# ---- what goes without saying ----------------------------------------------------------------------------------------


def test_late_attach_goes_as_the_reference_works_it_out() -> None:
    """kd-protocol 7.4, line by line."""
    desk = Desk(Stop())
    assert desk.heads() == [(7, 0x80800800)]
    assert desk.wait(3.5) == [(7, 0x80800800)] * 3, "each acknowledge timeout"
    assert desk.hear(ack(0x80800000)) == []
    packets = desk.ask(0x80800000, ApiNumber.GET_VERSION)
    assert [(p.packet_type, p.packet_id) for p in packets] == [(4, 0x80800000), (2, 0x80800001)]
    assert desk.hear(ack(0x80800001)) == []
    packets = desk.ask(0x80800001, ApiNumber.READ_VIRTUAL_MEMORY, address=PC, transfer_count=8)
    assert [(p.packet_type, p.packet_id) for p in packets] == [(4, 0x80800001), (2, 0x80800000)]


def test_a_stopped_target_is_silent_and_wants_no_timer() -> None:
    desk = waiting()
    assert desk.target.next_timeout() is None
    assert desk.wait(3600.0) == []


def test_an_idle_running_target_wants_no_timer() -> None:
    assert running().target.next_timeout() is None


def test_a_state_change_says_what_the_processor_is() -> None:
    desk = Desk(Stop(), machine=small_machine(processors=3))
    (packet,) = desk.said()
    raw = packet.payload
    # Offsets of kd-protocol 2.1, 2.2 and 2.5.
    assert len(raw) == 240
    assert raw[:4] == b"\x30\x30\0\0" and int.from_bytes(raw[6:8], "little") == 0
    assert int.from_bytes(raw[8:12], "little") == 3
    assert int.from_bytes(raw[0x18:0x20], "little") == PC
    assert raw[0x20:0x24] == bytes.fromhex("03000080") and raw[0xB8] == 1
    assert raw[0xC0:0xD0] == bytes.fromhex("f00fffff00000000 0004000000000000")
    assert int.from_bytes(raw[0xD0:0xD4], "little") == 0x246 and raw[0xD4] == 16
    assert raw[0xD8:0xE8] == content()[PC - KERNEL : PC - KERNEL + 16]
    assert raw[0xE8:0xF0] == bytes.fromhex("10002b002b005300")


# ---- retry budgets (1.8) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind"), [(IMAGE, 7), (Print(b"hello"), 3), (OpenFile("\\x"), 11)], ids=["load", "print", "create"]
)
def test_nobody_there_costs_five_tries_and_then_it_goes_on(event: Event, kind: int) -> None:
    desk = Desk(event)
    assert desk.wait(60.0) == [(kind, SYNC)] * 5
    assert desk.target.activity is Activity.RUNNING


@pytest.mark.parametrize(
    ("event", "kind"), [(IMAGE, 7), (Print(b"hello"), 3), (OpenFile("\\x"), 11)], ids=["load", "print", "create"]
)
def test_a_debugger_that_was_there_once_is_given_twenty_tries(event: Event, kind: int) -> None:
    desk = waiting(event, Stop())
    desk.ask(A, ApiNumber.CONTINUE, continue_status=0x10002)
    heads = desk.wait(60.0)
    assert heads[:20] == [(kind, A | 1)] * 19 + [(7, SYNC)], "the first of the twenty was said with the continue"
    assert set(heads[20:]) == {(7, SYNC)}, "given up: counters restart, and SYNC says so"


@pytest.mark.parametrize("event", [Stop(), Ask(b"(boipt)? ")], ids=["exception", "prompt"])
def test_exceptions_and_prompts_are_repeated_for_ever(event: Event) -> None:
    desk = Desk(event)
    assert len(desk.wait(1000.0)) >= 1000


def test_replies_are_repeated_for_ever() -> None:
    assert set(replying().wait(1000.0)) == {(2, A | 1)}


# ---- RESEND, RESET and 62 in each activity (1.9 and 1.11) ------------------------------------------------------------


def test_resend() -> None:
    desk = Desk(Stop())
    desk.heads()
    assert desk.hear(RESEND) == [(7, SYNC)], "waiting for the acknowledge of P: P again, same id"
    assert replying().hear(RESEND) == [(2, A | 1)]
    assert waiting().hear(RESEND) == [(7, A | 1)], "waiting for a request: the event as a new packet, current id"


def test_reset() -> None:
    desk = Desk(Stop())
    desk.heads()
    assert desk.hear(RESET) == [(6, 0), (7, A)], "ids reset, RESET answered, the packet again without SYNC"
    assert replying().hear(RESET) == [(6, 0), (2, A)], "the same reply with the reset id"
    assert waiting().hear(RESET) == [(6, 0), (7, A)]
    desk = running()
    assert desk.hear(RESET) == [] and desk.wait(5.0) == []
    assert desk.target.activity is Activity.RUNNING, "sixteen ticks took it byte by byte"


def test_break_in_byte() -> None:
    for desk, again in ((Desk(Stop()), (7, SYNC)), (replying(), (2, A | 1)), (waiting(), (7, A | 1))):
        desk.heads()
        assert desk.hear(BREAK_IN) == []
        assert desk.wait(0.9) == [], "only silence tells it from a packet's beginning"
        assert desk.wait(0.2) == [again]
    desk = running()
    assert desk.hear(BREAK_IN) == []
    assert desk.wait(2 * CLOCK_TICK) == [(7, SYNC)]


def test_a_break_in_byte_right_before_a_packet_counts_beside_the_packet() -> None:
    desk = waiting()
    request = Manipulate.request(ApiNumber.CONTINUE, continue_status=0x10002).encode()
    assert desk.hear(BREAK_IN + encode_data(2, A, request)) == [(4, A)]
    assert desk.wait(2 * CLOCK_TICK) == [(7, A | 1)], "it goes on, and breaks at the next tick"


def test_a_break_in_byte_behind_the_last_packet_stops_a_machine_that_runs_by_then() -> None:
    desk = waiting()
    request = Manipulate.request(ApiNumber.CONTINUE, continue_status=0x10002).encode()
    assert desk.hear(encode_data(2, A, request) + BREAK_IN) == [(4, A)]
    assert desk.target.activity is Activity.RUNNING
    assert desk.wait(1.1) == [(7, A | 1)]


def test_after_each_print_a_break_in_is_heard() -> None:
    desk = Desk(Print(b"one"), Print(b"two"))
    assert desk.heads() == [(3, SYNC)]
    desk.hear(BREAK_IN)
    assert desk.wait(1.1) == [(3, SYNC)], "transmitting: after the quiet time the packet again"
    assert desk.hear(ack(A)) == [(7, A | 1)], "not the second print: the break comes first"


@pytest.mark.parametrize("poke", [RESEND, RESET, BREAK_IN])
def test_a_prompt_is_asked_again_whole(poke: bytes) -> None:
    desk = Desk(Ask(b"(bipt)? "), Stop())
    desk.heads()
    desk.hear(ack(A))
    assert desk.target.activity is Activity.ASKING
    desk.target.receive_data(poke, desk.now)
    packets = desk.said()
    if poke == BREAK_IN:
        desk.target.handle_timeout(desk.now + 1.5)
        packets += desk.said()
    (prompt,) = (packet for packet in packets if not packet.control)
    assert prompt.packet_type == 3 and prompt.payload[0x10:] == b"(bipt)? "


def test_one_byte_is_looked_at_each_tick() -> None:
    desk = running()
    began = desk.now
    desk.hear(bytes(31) + BREAK_IN)
    heads: list[tuple[int, int]] = []
    while not heads:
        heads = desk.wait(CLOCK_TICK / 4)
    assert desk.now - began == pytest.approx(32 * CLOCK_TICK, abs=CLOCK_TICK)


def test_what_came_behind_the_break_in_is_read_while_it_reports() -> None:
    """A RESET that is queued behind the 62: the report goes out first, then both are answered (1.8 step 3)."""
    desk = running()
    desk.hear(BREAK_IN + RESET)
    assert desk.wait(2 * CLOCK_TICK) == [(7, SYNC), (6, 0), (7, A)]


# ---- packets while it waits for an acknowledge (1.9) -----------------------------------------------------------------


def test_a_request_instead_of_the_acknowledge_is_an_implied_one_and_is_asked_for_again() -> None:
    desk = Desk(Stop())
    desk.heads()
    request = encode_data(2, A, Manipulate.request(ApiNumber.GET_VERSION).encode())
    assert desk.hear(request) == [(5, 0)]
    assert desk.target.activity is Activity.WAITING
    assert desk.target.machine.counts == {}, "its body was skipped"
    assert desk.hear(request) == [(4, A), (2, A | 1)]


def test_an_unexpected_id_instead_of_the_acknowledge_is_acknowledged_and_changes_nothing() -> None:
    desk = Desk(Stop())
    desk.heads()
    assert desk.hear(encode_data(2, A | 1, Manipulate.request(ApiNumber.GET_VERSION).encode())) == [(4, A | 1)]
    assert desk.target.activity is Activity.REPORTING


def test_an_acknowledge_and_the_next_request_may_come_in_one_piece() -> None:
    desk = replying()
    request = encode_data(2, A | 1, Manipulate.request(ApiNumber.GET_VERSION).encode())
    assert desk.hear(ack(A | 1) + request) == [(4, A | 1), (2, A)]


@pytest.mark.parametrize(
    ("event", "answer"),
    [
        (Ask(b"(bipt)? "), bytes.fromhex("31320000 0600 0000 08000000 01000000") + b"i"),
        (OpenFile("\\x"), bytes.fromhex("30340000 0f0000c0") + bytes(56)),
    ],
    ids=["prompt", "file"],
)
def test_so_may_an_acknowledge_and_an_answer(event: Event, answer: bytes) -> None:
    desk = Desk(event)
    kind = desk.said()[0].packet_type
    assert desk.hear(ack(A) + encode_data(kind, A, answer)) == [(4, A)]
    assert desk.target.activity is Activity.RUNNING


# ---- packets while it waits for a request (1.7) ----------------------------------------------------------------------


def test_a_wrong_type_is_acknowledged_and_ignored() -> None:
    desk = waiting()
    assert desk.hear(encode_data(3, A, bytes(56))) == [(4, A)]
    assert desk.hear(encode_data(2, A, Manipulate.request(ApiNumber.GET_VERSION).encode())) == [(4, A), (2, A | 1)]


def test_what_is_wrong_with_a_request_is_answered_by_resend() -> None:
    good = encode_data(2, A, Manipulate.request(ApiNumber.GET_VERSION).encode())
    spoiled = {
        "trailer": good[:-1] + b"\xab",
        "checksum": good[:20] + b"\x01" + good[21:],
        "too short a payload": encode_data(2, A, bytes(55)),
        "id": encode_data(2, 0x80800002, Manipulate.request(ApiNumber.GET_VERSION).encode()),
    }
    for name, packet in spoiled.items():
        desk = waiting()
        assert desk.hear(packet) == [(5, 0)], name
        desk.wait(1.5)
        assert desk.hear(good) == [(4, A), (2, A | 1)], name


def test_a_duplicate_is_acknowledged_and_not_carried_out() -> None:
    desk = replying()
    desk.hear(ack(A | 1))
    assert desk.hear(encode_data(2, A, Manipulate.request(ApiNumber.GET_VERSION).encode())) == [(4, A)]
    assert desk.target.machine.counts == {"GetVersion": 1}


def test_a_packet_that_stops_in_the_middle_is_given_up_after_a_second() -> None:
    desk = waiting()
    good = encode_data(2, A, Manipulate.request(ApiNumber.GET_VERSION).encode())
    assert desk.hear(good[:40]) == []
    assert desk.wait(1.1) == [(5, 0)]
    assert desk.hear(good) == [(4, A), (2, A | 1)]


def test_timers_that_were_served_are_over() -> None:
    """Else whoever serves it would spin: after a few calls of handle_timeout(now) the next one lies in the future."""
    pokes = (RESET, RESEND, BREAK_IN, b"00", b"0000\x02\0\x38\0", encode_control(4, A), b"b0000", bytes(20))
    for make in (waiting, replying, running, lambda: Desk(Stop()), lambda: Desk(Ask(b"? ")), lambda: Desk(Quiet(5.0))):
        for poke in pokes:
            desk = make()
            desk.target.receive_data(poke, desk.now)
            for second in range(20):
                desk.now = max(desk.now, float(second))
                calls = 0
                while (due := desk.target.next_timeout()) is not None and due <= desk.now:
                    desk.target.handle_timeout(desk.now)
                    desk.target.data_to_send()
                    calls += 1
                    assert calls < 4, (make, poke)
