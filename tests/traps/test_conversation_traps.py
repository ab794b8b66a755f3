"""Traps of the conversation: replies, events and prints in an order that nobody expects (kd-protocol 8.1, 8.3)."""

from __future__ import annotations

import struct
from collections import deque

import pytest

from protocol.conversation import (
    FailureReason,
    FileDeclined,
    Malformed,
    OrphanReply,
    Printed,
    PromptAnswered,
    Replied,
    RequestFailed,
    StateChanged,
    Told,
)
from protocol.debug_io import GetString, PrintString
from protocol.link import Discard, Discarded
from protocol.manipulate import NO_REPLY, ApiNumber, Manipulate
from protocol.ntstatus import STATUS_SUCCESS, STATUS_UNSUCCESSFUL
from protocol.packet import PacketType, encode_control, encode_data
from simulator.target import Activity, Ask, Event, KdTarget, OpenFile, Print
from tests.raw import A, ack, attached, change_bytes, ids_and_types, kd_events_of, reply_packet, sent
from tests.small_machine import KERNEL, content, small_machine, stopped_line
from tests.wire import Line, target_link

_READ = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=KERNEL + 0x3000, transfer_count=16)
_VERSION = Manipulate.request(ApiNumber.GET_VERSION)
_CONTINUE = Manipulate.request(
    ApiNumber.CONTINUE2, continue_status=0x10002, trace_flag=0, dr7=0x400, current_symbol_start=1
)
_ANSWER = _READ.reply(STATUS_SUCCESS, data=content()[0x3000:0x3010], actual_bytes=16)


def test_t6_an_event_while_a_reply_is_awaited_makes_the_question_be_asked_again() -> None:
    host = attached()
    host.ask(_READ, 0.0, repeatable=True)
    first = sent(host)
    host.receive_data(ack(A), 0.0)
    # Noise made the target repeat its event instead of answering: a new packet with the next id.
    host.receive_data(encode_data(7, A | 1, change_bytes(KERNEL + 0x5000)), 0.1)
    again = sent(host)
    assert ids_and_types(again) == [(4, A | 1), (2, A | 1)]
    assert again[1].payload == first[0].payload
    assert host.change is not None and host.change.program_counter == KERNEL + 0x5000
    host.receive_data(ack(A | 1) + reply_packet(A, _ANSWER), 0.2)
    events = kd_events_of(host)
    assert [type(event) for event in events] == [StateChanged, Replied]
    assert isinstance(events[1], Replied) and events[1].reply == _ANSWER


def test_t6_what_must_not_be_asked_twice_fails_instead() -> None:
    host = attached()
    write = Manipulate.request(ApiNumber.WRITE_VIRTUAL_MEMORY, address=KERNEL, transfer_count=1, data=b"x")
    host.ask(write, 0.0)
    sent(host)
    host.receive_data(ack(A) + encode_data(7, A | 1, change_bytes()), 0.1)
    assert [packet.packet_type for packet in sent(host)] == [4]
    assert RequestFailed(write, FailureReason.NO_REPLY) in kd_events_of(host)


def test_t6_a_resend_out_of_nowhere_in_mid_session() -> None:
    line = stopped_line()
    swapped: list[bytes] = []

    def resend_instead(chunk: bytes) -> list[bytes]:
        if chunk[:6] == b"0000\x02\0" and not swapped:
            swapped.append(chunk)
            return [encode_control(PacketType.RESEND)]
        return [chunk]

    line.to_target = resend_instead
    line.host.ask(_READ, line.now, repeatable=True)
    line.run(10.0, lambda: not line.host.busy)
    assert len(line.of(StateChanged)) == 1
    replies = [event.reply.data for event in line.events if isinstance(event, Replied)]
    assert replies == [content()[0x3000:0x3010]]


def test_t7_a_reply_before_the_acknowledge_of_its_request() -> None:
    line = stopped_line()
    lost: list[bytes] = []

    def lose_first_acknowledge(chunk: bytes) -> list[bytes]:
        if chunk[:6] == b"iiii\x04\0" and not lost:
            lost.append(chunk)
            return []
        return [chunk]

    line.to_host = lose_first_acknowledge
    began = line.now
    for _ in range(3):
        line.host.ask(_READ, line.now, repeatable=True)
        line.settle()
    assert lost and line.now == began, "no timer was needed"
    assert [event.reply.data for event in line.events if isinstance(event, Replied)] == [content()[0x3000:0x3010]] * 3
    requests = [chunk for chunk in line.sent_by_host if chunk[:6] == b"0000\x02\0"]
    assert len(requests) == 3, "nothing was sent twice"
    assert line.target.machine.counts["ReadVirtualMemory"] == 3, "nothing was carried out twice"


def test_t7_another_answer_does_not_acknowledge() -> None:
    host = attached()
    host.ask(_READ, 0.0)
    sent(host)
    stale = _VERSION.reply(STATUS_SUCCESS)
    host.receive_data(reply_packet(A | 1, stale), 0.0)
    events = kd_events_of(host)
    assert events[0] == OrphanReply(stale)
    assert isinstance(events[1], Discarded) and events[1].reason is Discard.STALE_REPLY
    # Still unacknowledged: it is sent again when its time has come.
    sent(host)
    host.handle_timeout(host.next_timeout() or 0.0)
    assert ids_and_types(sent(host)) == [(2, A)]
    host.receive_data(ack(A) + reply_packet(A, _ANSWER), 1.0)
    assert kd_events_of(host) == [Replied(_READ, _ANSWER)]


def test_t7_a_reply_of_the_same_api_to_another_address_is_not_the_answer() -> None:
    host = attached()
    host.ask(_READ, 0.0)
    other = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=KERNEL, transfer_count=16)
    host.receive_data(ack(A) + reply_packet(A | 1, other.reply(0, data=bytes(16), actual_bytes=16)), 0.0)
    assert not any(isinstance(event, Replied) for event in kd_events_of(host))
    host.receive_data(reply_packet(A, _ANSWER), 0.0)
    assert kd_events_of(host) == [Replied(_READ, _ANSWER)]


def test_t18_prints_between_the_acknowledge_and_the_reply() -> None:
    host = attached()
    host.ask(_READ, 0.0)
    sent(host)
    host.receive_data(ack(A), 0.0)
    packet_id = A | 1
    for number in range(30):
        text = b"line %d\n" % number
        host.receive_data(encode_data(3, packet_id, PrintString(6, 0, text).encode()), 0.0)
        assert ids_and_types(sent(host)) == [(4, packet_id)], "acknowledged at once"
        packet_id ^= 1
    host.receive_data(reply_packet(packet_id, _ANSWER), 0.0)
    events = kd_events_of(host)
    assert [event.text for event in events if isinstance(event, Printed)] == [b"line %d\n" % n for n in range(30)]
    assert events[-1] == Replied(_READ, _ANSWER)


def test_t19_prompts_and_file_requests_are_always_answered() -> None:
    script: deque[Event] = deque([Print(b"hi"), OpenFile("\\Windows\\x.sys"), Ask(b"Break, Ignore (bi)? ")])
    line = Line(KdTarget(small_machine(), target_link(), script=script))
    line.run(5.0, lambda: line.host.change is not None)
    assert [type(event) for event in line.events] == [Printed, FileDeclined, PromptAnswered, StateChanged]
    assert FileDeclined("\\Windows\\x.sys") in line.events
    assert PromptAnswered(b"Break, Ignore (bi)? ", b"b") in line.events
    # What WinDbg sends when it declines: the 64 bytes echoed, status C000000F (PCAP #237).
    declined = next(chunk for chunk in line.sent_by_host if chunk[:6] == b"0000\x0b\0")
    assert struct.unpack_from("<HII", declined, 6)[0] == 64
    assert declined[16:24] == bytes.fromhex("30340000 0f0000c0")


def test_t19_a_prompt_is_answered_while_a_request_is_open() -> None:
    host = attached()
    host.ask(_READ, 0.0, repeatable=True)
    sent(host)
    prompt = GetString(6, 0, b"(boipt)? ", 4)
    # The request's acknowledge got lost; one packet at a time: the answer waits for it, then goes out.
    host.receive_data(encode_data(3, A | 1, prompt.encode()), 0.0)
    assert ids_and_types(sent(host)) == [(4, A | 1)]
    host.receive_data(ack(A), 0.0)
    assert ids_and_types(sent(host)) == [(3, A | 1)]
    host.receive_data(ack(A | 1) + reply_packet(A, _ANSWER), 0.0)
    assert [type(event) for event in kd_events_of(host)] == [PromptAnswered, Replied]


@pytest.mark.parametrize("api", sorted(NO_REPLY))
def test_t27_requests_without_a_reply_end_with_their_acknowledge(api: ApiNumber) -> None:
    host = attached()
    request = Manipulate.request(api)
    host.ask(request, 0.0)
    assert ids_and_types(sent(host)) == [(2, A)]
    host.receive_data(ack(A), 0.0)
    assert kd_events_of(host) == [Told(request)]
    assert host.next_timeout() is None, "nothing more is waited for"


def test_t27_the_list_is_the_reference_s() -> None:
    # kd-protocol 3.2: the rows whose reply column says no.
    assert {int(api) for api in NO_REPLY} == {
        0x3136, 0x313B, 0x313C, 0x3140, 0x3141, 0x3142, 0x3149, 0x3150, 0x315A,
    }  # fmt: skip


@pytest.mark.parametrize("api", [0x3140, 0x3141, 0x3142, 0x315A])
def test_t27_a_target_sends_nothing_but_the_acknowledge(api: int) -> None:
    line = stopped_line()
    line.host.ask(Manipulate(api), line.now)
    line.settle()
    assert [chunk[:6] for chunk in line.sent_by_target] == [b"iiii\x04\0"]
    line.host.ask(_READ, line.now)
    line.settle()
    assert len(line.of(Replied)) == 1, "and both ends are still in step"


@pytest.mark.parametrize("api", [0x314A, 0x314F, 0x3151, 0x3154, 0x315D, 0x3161, 0xFFFFFFFF])
def test_t27_an_unknown_api_is_answered_with_the_header_and_a_failure(api: int) -> None:
    line = stopped_line()
    request = Manipulate(api, union=bytes(range(40)), padding=b"garb")
    line.host.ask(request, line.now)
    line.settle()
    replied = next(event for event in line.events if isinstance(event, Replied))
    assert replied.reply.status == STATUS_UNSUCCESSFUL == 0xC0000001
    assert replied.reply.encode() == request.encode()[:8] + bytes.fromhex("010000c0") + request.encode()[12:]


def _cut_acknowledges(line: Line) -> None:
    line.to_host = lambda chunk: [] if chunk[:6] == b"iiii\x04\0" else [chunk]


def test_t28_a_continue_whose_acknowledge_was_lost_is_sent_three_times_at_most() -> None:
    line = stopped_line()
    _cut_acknowledges(line)
    line.host.ask(_CONTINUE, line.now, tries=3)
    line.run(60.0, lambda: not line.host.busy)
    assert len(line.sent_by_host) == 3
    assert line.of(RequestFailed) == [RequestFailed(_CONTINUE, FailureReason.NOT_ACKNOWLEDGED)]
    # The running machine ate the repetitions, byte by byte, and carried out none of them.
    line.run(30.0)
    assert line.target.activity is Activity.RUNNING
    assert line.target.machine.counts["Continue2"] == 1


@pytest.mark.parametrize(
    "says",
    [
        encode_data(3, A | 1, PrintString(6, 0, b"running").encode()),
        encode_data(7, A | 1, change_bytes(KERNEL + 0x7000)),
        encode_data(7, A | 0x800, change_bytes(KERNEL + 0x7000)),
    ],
    ids=["a print", "another stop", "a restart"],
)
def test_t28_whatever_a_target_says_next_shows_that_it_went_on(says: bytes) -> None:
    host = attached()
    host.ask(_CONTINUE, 0.0, tries=3)
    sent(host)
    host.receive_data(says, 0.5)
    events = kd_events_of(host)
    if says[9] & 0x08:
        # Every counter began anew: that is told, and what became of the continue is left open.
        assert RequestFailed(_CONTINUE, FailureReason.RESTARTED) in events
    else:
        assert Told(_CONTINUE) in events
    assert [packet.packet_type for packet in sent(host)] == [4]
    assert host.next_timeout() is None, "and the continue is never sent again"


def test_t28_the_same_event_repeated_shows_nothing() -> None:
    # Sent before the continue arrived: the continue stays outstanding.
    host = attached()
    host.ask(_CONTINUE, 0.0, tries=3)
    host.receive_data(encode_data(7, A | 1, change_bytes()), 0.0)
    assert not any(isinstance(event, Told) for event in kd_events_of(host))


def test_t28_a_break_in_byte_inside_a_repeated_packet_stops_the_running_machine() -> None:
    line = stopped_line()
    _cut_acknowledges(line)
    line.host.ask(Manipulate(ApiNumber.CONTINUE2, padding=b"xbx\0", union=_CONTINUE.union), line.now, tries=3)
    line.run(20.0)
    assert line.target.machine.counts["Continue2"] == 1
    assert line.of(StateChanged) != [], "which is why it is not sent for ever"


def test_t55_a_refusal_may_be_shorter_than_a_header() -> None:
    for size in (12, 16, 20, 55):
        host = attached()
        host.ask(_READ, 0.0)
        refusal = _READ.reply(0xC0000002).encode()[:16].ljust(size, b"\0")[:size]
        host.receive_data(ack(A) + encode_data(2, A | 1, refusal), 0.0)
        replied = next(event for event in kd_events_of(host) if isinstance(event, Replied))
        assert (replied.reply.status, replied.reply.data) == (0xC0000002, b"")


@pytest.mark.parametrize(("size", "status"), [(11, 0xC0000002), (16, 0), (55, 0x103), (0, 0)])
def test_t55_a_short_success_is_no_message(size: int, status: int) -> None:
    host = attached()
    host.ask(_READ, 0.0)
    host.receive_data(ack(A) + encode_data(2, A | 1, _READ.reply(status).encode()[:size]), 0.0)
    events = kd_events_of(host)
    assert [type(event) for event in events] == [Malformed, Discarded]
    host.receive_data(reply_packet(A, _ANSWER), 0.1)
    assert kd_events_of(host) == [Replied(_READ, _ANSWER)]
