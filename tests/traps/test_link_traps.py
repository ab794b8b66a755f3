"""Traps of ids, acknowledges and restarts (kd-protocol 8.1), each end against packets made by hand."""

from __future__ import annotations

import pytest

from protocol.connection import KdConnection
from protocol.conversation import OrphanReply, Replied, StateChanged
from protocol.kdcom import KdcomLink
from protocol.link import (
    BreakInSeen,
    Discard,
    Discarded,
    LinkRestarted,
    PacketAcknowledged,
    PacketFailed,
    PacketReceived,
    ResendAsked,
    Role,
)
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import PacketType, encode_control, encode_data
from simulator.target import CLOCK_TICK, Activity, KdTarget, Print
from tests.raw import A, ack, attached, change_bytes, events_of, ids_and_types, kd_events_of, reply_packet, sent
from tests.small_machine import small_machine, stopped_line, stopped_target
from tests.wire import Line, target_link

_READ = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0xFFFFF80000001000, transfer_count=8)
_VERSION = Manipulate.request(ApiNumber.GET_VERSION)


def test_t1_the_acknowledge_of_a_first_packet_carries_no_sync() -> None:
    host = KdcomLink(Role.HOST)
    host.receive_data(encode_data(7, 0x80800800, change_bytes()), 0.0)
    assert host.data_to_send() == [bytes.fromhex("69696969 0400 0000 00008080 00000000")]


def test_t1_a_target_ignores_the_echo_of_its_id_and_repeats_for_ever() -> None:
    target = target_link()
    target.send_packet(PacketType.STATE_CHANGE64, change_bytes(), 0.0, tries=0)
    first = sent(target)
    assert ids_and_types(first) == [(7, 0x80800800)]
    now = 0.0
    for _ in range(100):
        target.receive_data(ack(0x80800800), now)
        now = target.next_timeout() or 0.0
        target.handle_timeout(now)
        assert [packet.raw for packet in sent(target)] == [first[0].raw]
    assert all(
        isinstance(event, Discarded) and event.reason is Discard.STRAY_ACKNOWLEDGE for event in events_of(target)
    )
    target.receive_data(ack(0x80800000), now)
    assert events_of(target) == [PacketAcknowledged()]
    # The packet behind it carries the other id, without SYNC (kd-protocol 1.4).
    target.send_packet(PacketType.STATE_MANIPULATE, bytes(56), now, tries=0)
    assert ids_and_types(sent(target)) == [(2, 0x80800001)]


def test_t2_sync_restarts_both_counters() -> None:
    host = attached()
    # Bring both counters to where a restart changes them: ours to A | 1, the target's to A.
    host.ask(_VERSION, 0.0)
    assert ids_and_types(sent(host)) == [(2, A)]
    host.receive_data(ack(A) + reply_packet(A | 1, _VERSION.reply(0)), 0.0)
    assert ids_and_types(sent(host)) == [(4, A | 1)]
    # The machine restarts: a first packet, which is accepted whatever was expected.
    host.receive_data(encode_data(7, A | 0x800, change_bytes(0xFFFFF80000009000)), 1.0)
    assert ids_and_types(sent(host)) == [(4, A)]
    kinds = [type(event) for event in kd_events_of(host)]
    assert kinds == [Replied, LinkRestarted, StateChanged]
    # Our next request begins anew too; with a stale id it would be acknowledged and thrown away as a duplicate.
    host.ask(_READ, 1.0)
    assert ids_and_types(sent(host)) == [(2, A)]
    host.receive_data(ack(A) + reply_packet(A | 1, _READ.reply(0, data=bytes(8), actual_bytes=8)), 1.0)
    assert [type(event) for event in kd_events_of(host)] == [Replied]


def test_t2_a_restarted_target_answers_the_first_request() -> None:
    line = stopped_line()
    for _ in range(3):
        line.host.ask(_READ, line.now, repeatable=True)
        line.settle()
    assert len(line.of(Replied)) == 3
    line.target.link = target_link()  # the machine's new life
    line.target.link.send_packet(PacketType.STATE_CHANGE64, change_bytes(), line.now, tries=0)
    line.target.activity = Activity.REPORTING
    line.settle()
    line.events.clear()
    line.host.ask(_READ, line.now, repeatable=True)
    line.settle()
    assert [type(event) for event in line.events] == [Replied], "without a timer: no request went astray"


def _running() -> Line:
    line = Line(KdTarget(small_machine(), target_link()))
    line.run(1.0)
    assert line.target.activity is Activity.RUNNING
    return line


def test_t3_a_running_target_looks_at_one_byte_a_tick() -> None:
    line = _running()
    line.host.send_break_in(line.now)
    began = line.now
    line.run(5.0, lambda: line.host.change is not None)
    alone = line.now - began
    assert alone <= 1.5 * CLOCK_TICK

    # A RESET in front of it is eaten first, byte by byte, and never answered.
    line = _running()
    line.host.send_reset(line.now)
    line.host.send_break_in(line.now)
    began = line.now
    line.run(5.0, lambda: line.host.change is not None)
    assert line.now - began == pytest.approx(17 * CLOCK_TICK, abs=CLOCK_TICK / 2)
    assert line.of(LinkRestarted) == []
    reports = [event for event in line.of(StateChanged) if isinstance(event, StateChanged)]
    assert len(reports) == 1


def test_t4_a_break_in_to_a_stopped_target_stops_it_again_after_the_continue() -> None:
    line = stopped_line()
    line.host.send_break_in(line.now)
    line.run(3.0)
    # After a quiet byte timeout its state change is sent again (kd-protocol 1.11).
    assert [event.repeated for event in line.of(StateChanged)] == [True]
    line.events.clear()
    line.host.ask(Manipulate.request(ApiNumber.CONTINUE2, continue_status=0x10002, dr7=0x400), line.now)
    line.run(3.0)
    assert len(line.of(StateChanged)) == 1, "the spurious break"
    line.events.clear()
    line.host.ask(Manipulate.request(ApiNumber.CONTINUE2, continue_status=0x10002, dr7=0x400), line.now)
    line.run(10.0)
    assert line.of(StateChanged) == [] and line.target.activity is Activity.RUNNING


def test_t4_a_reset_wakes_a_stopped_target_without_a_trace() -> None:
    line = stopped_line()
    line.host.send_reset(line.now)
    line.run(3.0)
    assert [event.repeated for event in line.of(StateChanged)] == [True]
    line.events.clear()
    line.host.ask(Manipulate.request(ApiNumber.CONTINUE2, continue_status=0x10002, dr7=0x400), line.now)
    line.run(10.0)
    assert line.of(StateChanged) == [] and line.target.activity is Activity.RUNNING


def test_t4_a_break_in_right_before_a_packet_counts_as_both() -> None:
    target = target_link()
    target.receive_data(b"b" + encode_data(2, A, _VERSION.encode()), 0.0)
    assert [type(event) for event in events_of(target)] == [Discarded, BreakInSeen, PacketReceived]
    # A byte between them makes the target forget it (kd-protocol 1.7 step 3).
    target = target_link()
    target.receive_data(b"b\r" + encode_data(2, A, _VERSION.encode()), 0.0)
    assert BreakInSeen() not in events_of(target)


def test_t5_resend_repeats_the_event_never_the_reply() -> None:
    line = stopped_line()
    line.host.ask(_READ, line.now, repeatable=True)
    line.settle()
    replies = len(line.sent_by_target)
    line.target.receive_data(encode_control(PacketType.RESEND), line.now)
    line.settle()
    later = b"".join(line.sent_by_target[replies:])
    assert later[:6] == b"0000\x07\0", "a state change"
    assert b"0000\x02\0" not in later
    # With the next id, as a new packet: the host tells it from a repetition of the reply and takes it.
    assert [event.repeated for event in line.of(StateChanged)] == [True]


def test_t8_a_request_instead_of_an_acknowledge_is_thrown_away_and_asked_for_again() -> None:
    target = target_link()
    target.send_packet(PacketType.STATE_CHANGE64, change_bytes(), 0.0, tries=0)
    sent(target)
    request = encode_data(2, A, _VERSION.encode())
    target.receive_data(request, 0.0)
    assert isinstance(events_of(target)[0], PacketAcknowledged), "it implies the acknowledge"
    assert [packet.packet_type for packet in sent(target)] == [5], "RESEND"
    # The same packet with the same id is then accepted normally (PCAP #195 to #200).
    target.receive_data(request, 0.1)
    received = [event for event in events_of(target) if isinstance(event, PacketReceived)]
    assert received == [PacketReceived(2, A, _VERSION.encode())]
    assert ids_and_types(sent(target)) == [(4, A)]


def test_t8_a_host_acknowledges_first_and_answers_resend_with_the_same_packet() -> None:
    host = attached()
    host.ask(_VERSION, 0.0)
    first = sent(host)
    host.receive_data(encode_control(PacketType.RESEND, 0xDEADBEEF), 0.1)
    assert [packet.raw for packet in sent(host)] == [first[0].raw]
    # A state change and a question that waits: the acknowledge goes out before the request.
    host = KdConnection(KdcomLink(Role.HOST))
    host.receive_data(encode_data(7, 0x80800800, change_bytes()), 0.0)
    host.ask(_VERSION, 0.0)
    assert ids_and_types(sent(host)) == [(4, A), (2, A)]


def test_t9_reset_while_a_reply_is_unacknowledged_repeats_that_reply_with_new_ids() -> None:
    target = stopped_target()
    line = Line(target)
    line.settle()
    # A former debugger asked, and vanished before it could acknowledge the second reply.
    old = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0xFFFFF80000003000, transfer_count=4)
    target.link.receive_data(encode_control(PacketType.RESET), 0.0)
    events_of(target.link)
    target.data_to_send()
    target.send_reply(old.reply(0, data=b"abcd", actual_bytes=4), 0.0)
    assert ids_and_types(sent(target.link)) == [(2, A)]
    target.receive_data(encode_control(PacketType.RESET), 0.0)
    assert ids_and_types(sent(target.link)) == [(6, 0), (2, A)]
    # A debugger that comes now acknowledges the orphan and resets again: then it has the state change.
    line.host.send_reset(0.0)
    line.settle()
    orphans = [event.reply.data for event in line.events if isinstance(event, OrphanReply)]
    assert orphans == [b"abcd"]
    line.host.send_reset(0.0)
    line.settle()
    assert line.host.change is not None
    line.host.ask(_VERSION, 0.0, repeatable=True)
    line.settle()
    assert [event.request.api for event in line.of(Replied)] == [ApiNumber.GET_VERSION]


def test_t14_an_unsolicited_reset_is_answered_once() -> None:
    line = stopped_line()
    reset = encode_control(PacketType.RESET)
    line.host.receive_data(reset, line.now)
    line.settle()
    assert line.sent_by_host.count(reset) == 1
    assert line.sent_by_target.count(reset) == 1, "the target answers ours; that one is not answered"
    line.host.ask(_VERSION, line.now, repeatable=True)
    line.run(5.0, lambda: bool(line.of(Replied)))
    assert len(line.of(Replied)) == 1


@pytest.mark.parametrize("packet_id", [0, 0xDEADBEEF, 0x18359B, A | 1])
def test_t15_ids_of_reset_and_resend_are_never_looked_at(packet_id: int) -> None:
    host = attached()
    host.ask(_VERSION, 0.0)
    first = sent(host)
    host.receive_data(encode_control(PacketType.RESEND, packet_id), 0.1)
    assert [packet.raw for packet in sent(host)] == [first[0].raw]
    target = target_link()
    target.receive_data(encode_control(PacketType.RESET, packet_id), 0.0)
    assert events_of(target) == [ResendAsked()]
    assert [packet.packet_type for packet in sent(target)] == [6]
    target.receive_data(encode_control(PacketType.RESEND, packet_id), 0.0)
    assert events_of(target) == [ResendAsked()]


def test_t18_a_debugger_that_misses_twenty_acknowledges_is_declared_absent() -> None:
    target = target_link()
    target.send_packet(PacketType.STATE_CHANGE64, change_bytes(), 0.0, tries=0)
    target.receive_data(ack(A), 0.0)
    sent(target)
    events_of(target)
    target.send_packet(PacketType.DEBUG_IO, bytes(16), 0.0)
    tries = len(sent(target))
    while target.next_timeout() is not None:
        target.handle_timeout(target.next_timeout() or 0.0)
        tries += len(sent(target))
    assert tries == 20
    assert events_of(target) == [PacketFailed(20)]
    target.send_packet(PacketType.STATE_CHANGE64, change_bytes(), 99.0, tries=0)
    assert ids_and_types(sent(target)) == [(7, 0x80800800)], "and the next packet carries SYNC"


def test_t18_before_first_contact_five_tries_are_enough() -> None:
    line = Line(KdTarget(small_machine(), target_link()))
    line.target.script.append(Print(b"nobody hears this"))
    line.to_host = lambda chunk: []
    line.run(60.0)
    assert len(line.sent_by_target) == 5
    assert line.target.activity is Activity.RUNNING
