"""A debugger's end of the line: what it acknowledges, repeats, believes and gives up (kd-protocol 1.4, 1.9)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.errors import LocalProtocolError
from protocol.kdcom import KdcomLink
from protocol.link import (
    Discard,
    Discarded,
    LinkRestarted,
    LinkTimers,
    PacketAcknowledged,
    PacketFailed,
    PacketReceived,
    Role,
)
from protocol.packet import encode_control, encode_data
from tests.raw import A, ack, change_bytes, events_of, ids_and_types, sent

_ACK, _RESEND, _RESET = 4, 5, 6
_REQUEST = bytes(56)
_REPLY = bytes(55) + b"r"
_CHANGE = change_bytes()


def _attached() -> KdcomLink:
    """It has acknowledged a target's first packet: the target's next id is A | 1, ours is A."""
    host = KdcomLink(Role.HOST)
    host.receive_data(encode_data(7, A | 0x800, _CHANGE), 0.0)
    sent(host)
    events_of(host)
    return host


def _asking() -> KdcomLink:
    host = _attached()
    host.send_packet(2, _REQUEST, 0.0)
    assert ids_and_types(sent(host)) == [(2, A)]
    return host


@pytest.mark.parametrize(
    ("packet_id", "acknowledged", "synchronized"),
    [(A, A, False), (A | 1, A | 1, False), (A | 0x800, A, True), (A | 0x801, A | 1, True)],
)
def test_the_first_packet_is_taken_whatever_its_id(packet_id: int, acknowledged: int, synchronized: bool) -> None:
    host = KdcomLink(Role.HOST)
    host.receive_data(encode_data(7, packet_id, _CHANGE), 0.0)
    assert ids_and_types(sent(host)) == [(_ACK, acknowledged)]
    assert events_of(host) == [PacketReceived(7, packet_id, _CHANGE)]
    assert host.synchronized is synchronized
    # From there on the ids alternate.
    host.receive_data(encode_data(3, acknowledged ^ 1, b"x"), 0.0)
    assert events_of(host) == [PacketReceived(3, acknowledged ^ 1, b"x")]


def test_a_repetition_is_acknowledged_again_and_dropped() -> None:
    host = _attached()
    wire = encode_data(3, A | 1, b"print")
    host.receive_data(wire, 0.0)
    assert events_of(host) == [PacketReceived(3, A | 1, b"print")]
    for _ in range(3):
        host.receive_data(wire, 0.0)
        assert events_of(host) == [Discarded(Discard.DUPLICATE, 5, b"print")]
    assert ids_and_types(sent(host)) == [(_ACK, A | 1)] * 4


def test_a_first_packet_that_is_repeated_is_one_packet() -> None:
    # Our acknowledge was lost, or carried SYNC in a former debugger's life: nothing restarted.
    host = _attached()
    host.receive_data(encode_data(7, A | 0x800, _CHANGE), 1.0)
    assert events_of(host) == [Discarded(Discard.DUPLICATE, 240, _CHANGE[:64])]
    assert ids_and_types(sent(host)) == [(_ACK, A)]


@pytest.mark.parametrize("talked", [False, True], ids=["another event", "the same event after a request"])
def test_a_sync_id_is_a_restart(talked: bool) -> None:
    host = _attached()
    if talked:
        host.send_packet(2, _REQUEST, 0.0)
        host.receive_data(ack(A), 0.0)
        sent(host)
        events_of(host)
    change = _CHANGE if talked else change_bytes(0x1234)
    host.receive_data(encode_data(7, A | 0x800, change), 1.0)
    assert events_of(host) == [LinkRestarted(solicited=False), PacketReceived(7, A | 0x800, change)]
    sent(host)
    host.send_packet(2, _REQUEST, 1.0)
    assert ids_and_types(sent(host)) == [(2, A)], "NextToSend is 80800000 (1.4)"
    host.receive_data(encode_data(2, A | 1, _REPLY), 1.0)
    assert PacketReceived(2, A | 1, _REPLY) in events_of(host), "and Expected 80800001"


def test_what_the_line_gives_back_is_neither_a_reply_nor_acknowledged() -> None:
    host = _attached()
    host.send_packet(2, _REQUEST, 0.0)
    host.receive_data(ack(A) + b"".join(host.data_to_send()), 0.0)
    assert events_of(host) == [PacketAcknowledged(), Discarded(Discard.ECHOED, 56, _REQUEST)]
    assert sent(host) == []
    host.receive_data(encode_data(2, A | 1, _REPLY), 0.1)
    assert events_of(host) == [PacketReceived(2, A | 1, _REPLY)]


def test_a_restart_ends_what_was_outstanding() -> None:
    for wire in (encode_control(_RESET), encode_data(7, A | 0x800, change_bytes(0x1234))):
        host = _asking()
        host.receive_data(wire, 0.5)
        assert host.idle
        assert events_of(host)[:2] == [PacketFailed(1, restarted=True), LinkRestarted(solicited=False)]


def test_a_reset_that_was_asked_for_is_not_answered() -> None:
    host = _asking()
    host.send_reset(1.0)
    assert ids_and_types(sent(host)) == [(_RESET, 0)]
    assert events_of(host) == [PacketFailed(1, restarted=True)]
    host.receive_data(encode_control(_RESET, 0xDEADBEEF), 1.0)
    assert (sent(host), events_of(host)) == ([], [LinkRestarted(solicited=True)])
    assert host.synchronized
    # The target repeats its event without SYNC, and our next request begins anew.
    host.receive_data(encode_data(7, A, _CHANGE), 1.0)
    assert events_of(host) == [PacketReceived(7, A, _CHANGE)]
    host.send_packet(2, _REQUEST, 1.0)
    assert ids_and_types(sent(host)) == [(_ACK, A), (2, A)]


def test_ids_alternate_with_each_acknowledge() -> None:
    host = _attached()
    ids = []
    for _ in range(4):
        host.send_packet(2, _REQUEST, 0.0)
        (packet,) = sent(host)
        ids.append(packet.packet_id)
        host.receive_data(ack(packet.packet_id), 0.0)
    assert ids == [A, A | 1, A, A | 1]
    assert events_of(host) == [PacketAcknowledged()] * 4


@pytest.mark.parametrize("packet_id", [A | 1, A | 0x800, 0])
def test_an_acknowledge_of_another_packet_is_none(packet_id: int) -> None:
    host = _asking()
    host.receive_data(ack(packet_id), 0.0)
    assert not host.idle
    assert events_of(host) == [Discarded(Discard.STRAY_ACKNOWLEDGE, 16, ack(packet_id))]


def test_what_is_not_acknowledged_is_sent_again_and_given_up() -> None:
    host = KdcomLink(Role.HOST, LinkTimers(acknowledge=2.0, tries=4, first_tries=4))
    host.send_packet(2, _REQUEST, 10.0)
    (first,) = sent(host)
    # The second wait is longer: a target that is lost in the middle of a packet has to notice that the line is quiet.
    for due in (12.0, 16.0, 18.0):
        assert host.next_timeout() == due
        host.handle_timeout(due)
        assert [packet.raw for packet in sent(host)] == [first.raw], "with the same id"
    host.handle_timeout(20.0)
    assert (events_of(host), sent(host), host.next_timeout()) == ([PacketFailed(4)], [], None)
    # The counter stands where it stood: the target may have taken it.
    host.send_packet(2, _REQUEST, 21.0, tries=1)
    assert ids_and_types(sent(host)) == [(2, A)]
    host.handle_timeout(23.0)
    assert events_of(host) == [PacketFailed(1)]


def test_a_resend_is_answered_at_once_but_not_for_ever() -> None:
    host = _asking()
    for _ in range(50):
        host.receive_data(encode_control(_RESEND), 0.0)
    assert ids_and_types(sent(host)) == [(2, A)] * 50
    assert events_of(host) == []
    host.receive_data(encode_control(_RESEND), 0.0)
    assert (sent(host), [type(event) for event in events_of(host)]) == ([], [PacketFailed])
    # Where nothing is outstanding there is nothing to send again.
    host.receive_data(encode_control(_RESEND), 0.0)
    assert [event.reason for event in events_of(host) if isinstance(event, Discarded)] == [Discard.UNWANTED_TYPE]


def test_a_reply_may_imply_the_acknowledge() -> None:
    host = _asking()
    host.receive_data(encode_data(2, A | 1, b"r" * 56), 0.0)
    assert events_of(host) == [PacketReceived(2, A | 1, b"r" * 56)] and not host.idle, "by itself it proves nothing"
    host.imply_acknowledge()
    assert (events_of(host), host.idle) == ([PacketAcknowledged()], True)
    host.imply_acknowledge()
    assert events_of(host) == []
    host.receive_data(ack(A), 0.0)
    assert [type(event) for event in events_of(host)] == [Discarded], "the late one is a stray"
    sent(host)
    host.send_packet(2, _REQUEST, 0.0)
    assert ids_and_types(sent(host)) == [(2, A | 1)]


@pytest.mark.parametrize("at", [17, -2])
def test_a_packet_that_does_not_add_up_is_asked_for_again(at: int) -> None:
    host = _attached()
    wire = bytearray(encode_data(3, A | 1, b"print" * 4))
    wire[at] ^= 0x40
    host.receive_data(bytes(wire), 0.0)
    assert ids_and_types(sent(host)) == [(_RESEND, 0)]
    assert [event.reason for event in events_of(host) if isinstance(event, Discarded)] == [Discard.BAD_CHECKSUM]
    host.receive_data(encode_data(3, A | 1, b"print" * 4), 0.0)
    assert events_of(host) == [PacketReceived(3, A | 1, b"print" * 4)]


def test_a_packet_without_its_trailer_is_asked_for_again() -> None:
    host = _attached()
    host.receive_data(encode_data(3, A | 1, b"print")[:-1] + b"\0", 0.0)
    assert ids_and_types(sent(host)) == [(_RESEND, 0)]
    assert Discarded(Discard.BAD_TRAILER, 1, b"0") in events_of(host)


@pytest.mark.parametrize(("cut", "asked"), [(4, False), (15, False), (16, True), (21, True)])
def test_a_packet_that_stops_is_asked_for_again_if_its_header_was_whole(cut: int, asked: bool) -> None:
    host = _attached()
    host.receive_data(encode_data(3, A | 1, b"print")[:cut], 5.0)
    assert host.next_timeout() == 6.0
    host.handle_timeout(6.0)
    assert ids_and_types(sent(host)) == ([(_RESEND, 0)] if asked else [])
    lost = [event for event in events_of(host) if isinstance(event, Discarded)]
    assert sum(event.count for event in lost) == cut and host.next_timeout() is None


def test_while_a_request_waits_a_torn_reply_is_not_asked_for() -> None:
    # The request itself will be repeated: two demands at once would give two answers.
    host = _asking()
    host.receive_data(encode_data(2, A | 1, _REQUEST)[:40], 0.2)
    host.handle_timeout(1.2)
    assert [packet for packet in sent(host) if packet.packet_type == _RESEND] == []


def test_one_packet_at_a_time() -> None:
    host = _asking()
    with pytest.raises(LocalProtocolError, match="one packet at a time"):
        host.send_packet(2, _REQUEST, 0.0)


def test_a_break_in_is_one_byte_alone() -> None:
    host = KdcomLink(Role.HOST)
    host.send_break_in(0.0)
    host.send_reset(0.0)
    assert host.data_to_send() == [b"\x62", encode_control(_RESET)]
    assert host.data_to_send() == []


def test_packets_of_one_chunk_are_taken_one_by_one() -> None:
    # What the first one means may decide what the second is: here whether an acknowledge is late.
    host = _asking()
    host.receive_data(encode_data(2, A | 1, b"r" * 56) + ack(A) + encode_data(3, A, b"print"), 0.0)
    assert host.next_event() == PacketReceived(2, A | 1, b"r" * 56)
    host.imply_acknowledge()
    assert events_of(host) == [
        PacketAcknowledged(),
        Discarded(Discard.STRAY_ACKNOWLEDGE, 16, ack(A)),
        PacketReceived(3, A, b"print"),
    ]
    assert ids_and_types(sent(host)) == [(_ACK, A | 1), (_ACK, A)]


def test_no_bytes_are_nothing() -> None:
    host = _attached()
    host.receive_data(b"", 99.0)
    assert (host.next_timeout(), host.next_event()) == (None, None)


def _damaged(packet_type: int, packet_id: int) -> bytes:
    wire = bytearray(encode_data(packet_type, packet_id, bytes(300)))
    wire[100] ^= 1
    return bytes(wire)


def _cut(packet_type: int, packet_id: int) -> bytes:
    return encode_data(packet_type, packet_id, bytes(300))[:-40] + b"?" * 40


@pytest.mark.parametrize("spoil", [_damaged, _cut])
def test_a_reply_of_which_eight_copies_came_damaged_can_be_done_away_with(
    spoil: Callable[[int, int], bytes],
) -> None:
    host = _asking()
    host.receive_data(ack(A), 0.0)
    events_of(host)
    for _ in range(7):
        host.receive_data(spoil(2, A | 1), 0.1)
        events_of(host)
        assert not host.skip_damaged()
        assert ids_and_types(sent(host)) == [(_RESEND, 0)]
    host.receive_data(spoil(2, A | 1), 0.1)
    events_of(host)
    assert host.skip_damaged() and not host.skip_damaged()
    assert ids_and_types(sent(host)) == [(_ACK, A | 1)]
    # To the target it came; a copy that is late is a duplicate, and the next reply has the other id.
    host.send_packet(2, _REQUEST, 0.2)
    host.receive_data(ack(A | 1) + encode_data(2, A | 1, _REPLY) + encode_data(2, A, _REPLY), 0.2)
    assert events_of(host) == [
        PacketAcknowledged(),
        Discarded(Discard.DUPLICATE, 56, _REPLY),
        PacketReceived(2, A, _REPLY),
    ]


def test_what_is_no_reply_or_not_the_one_waited_for_is_never_acknowledged_away() -> None:
    for packet_type, packet_id in ((7, A | 1), (3, A | 1), (2, A)):
        host = _asking()
        host.receive_data(ack(A) + _damaged(packet_type, packet_id) * 20, 0.0)
        events_of(host)
        assert not host.skip_damaged(), (packet_type, packet_id)
    host = _asking()
    host.receive_data(_damaged(2, A | 1) * 20, 0.0)
    assert not host.skip_damaged(), "whether the target has our request is not known yet"


def test_a_whole_packet_or_a_restart_makes_the_count_begin_anew() -> None:
    for between in (encode_data(3, A | 1, b"print"), encode_control(_RESET)):
        host = _asking()
        host.receive_data(ack(A) + _damaged(2, A | 1) * 7 + between, 0.0)
        events_of(host)
        host.receive_data(_damaged(2, A) * 7, 0.1)
        events_of(host)
        assert not host.skip_damaged()
        host.receive_data(_damaged(2, A), 0.1)
        events_of(host)
        assert host.skip_damaged()
