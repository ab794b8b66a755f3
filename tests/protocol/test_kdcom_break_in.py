"""A break-in byte in every condition of a target, and the line of one that runs (kd-protocol 1.7, 1.11)."""

from __future__ import annotations

import pytest

from protocol.kdcom import KdcomLink
from protocol.link import BreakInSeen, Discard, Discarded, PacketAcknowledged, PacketReceived, ResendAsked
from protocol.packet import HEADER, encode_control, encode_data
from tests.raw import A, ack, change_bytes, events_of, sent
from tests.wire import target_link

_RESET = 6
_REQUEST = bytes(range(56))


def _waiting() -> KdcomLink:
    """Stopped, its event acknowledged, waiting for a request: Expected is A."""
    target = target_link()
    target.send_packet(7, change_bytes(), 0.0, tries=0)
    target.receive_data(ack(A), 0.0)
    sent(target)
    events_of(target)
    return target


def test_a_running_target_looks_at_one_byte_at_a_time() -> None:
    target = _waiting()
    target.set_polling(True, 0.0)
    target.receive_data(b"i\0b..", 0.0)
    assert target.polled == 5
    assert [target.poll() for _ in range(5)] == [False, False, True, False, False]
    assert (target.polled, target.poll()) == (0, False)
    assert [event.sample for event in events_of(target) if isinstance(event, Discarded)] == [b"i", b"\0", b".", b"."]
    assert sent(target) == [] and target.next_timeout() is None


def test_what_a_running_target_did_not_look_at_is_read_when_it_stops() -> None:
    target = _waiting()
    target.set_polling(True, 0.0)
    target.receive_data(encode_data(2, A, _REQUEST), 0.0)
    assert events_of(target) == []
    target.set_polling(False, 1.0)
    assert events_of(target) == [PacketReceived(2, A, _REQUEST)]


def test_waiting_for_an_acknowledge_a_running_target_reads_everything() -> None:
    target = _waiting()
    target.set_polling(True, 0.0)
    target.receive_data(b"zzz", 0.0)
    target.send_packet(3, bytes(16), 0.0)
    target.receive_data(ack(A | 1), 0.0)
    assert PacketAcknowledged() in events_of(target) and target.polled == 0


def test_a_line_that_nobody_looks_at_keeps_64_kib_at_most() -> None:
    target = _waiting()
    target.set_polling(True, 0.0)
    for _ in range(40):
        target.receive_data(b"x" * 4096, 0.0)
    assert target.polled == 1 << 16
    lost = [event for event in events_of(target) if isinstance(event, Discarded)]
    assert {event.reason for event in lost} == {Discard.POLLED}
    assert sum(event.count for event in lost) == 40 * 4096 - (1 << 16)


def test_a_stopped_target_hears_a_break_in_when_the_line_stays_quiet() -> None:
    target = _waiting()
    target.receive_data(b"b", 1.0)
    assert target.next_timeout() == 2.0
    target.handle_timeout(1.5)
    assert BreakInSeen() not in events_of(target)
    target.handle_timeout(2.0)
    assert events_of(target) == [BreakInSeen(), ResendAsked()]
    assert target.next_timeout() is None


def test_waiting_for_an_acknowledge_it_sends_its_packet_again_instead() -> None:
    target = target_link(acknowledge=5.0)
    target.send_packet(7, change_bytes(), 0.0, tries=0)
    first = sent(target)
    target.receive_data(b"b", 1.0)
    target.handle_timeout(2.0)
    assert [packet.raw for packet in sent(target)] == [first[0].raw]
    assert BreakInSeen() in events_of(target)


@pytest.mark.parametrize(
    ("before", "heard"),
    [(b"b", True), (b"bb", True), (b"xb", True), (b"\xffb", True), (b"bx", False), (b"b\0", False), (b"x", False)],
)
@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(encode_data(2, A, _REQUEST), id="a request"),
        pytest.param(encode_control(_RESET), id="a reset"),
        pytest.param(encode_control(99), id="a control packet of no type"),
        pytest.param(HEADER.pack(0x30303030, 2, 9999, A, 0), id="a header of no size"),
    ],
)
def test_a_break_in_counts_if_a_leader_is_the_next_thing(before: bytes, heard: bool, packet: bytes) -> None:
    target = _waiting()
    target.receive_data(before + packet, 0.0)
    assert (BreakInSeen() in events_of(target)) is heard
    target.handle_timeout(9.0)
    assert events_of(target) == [], "and is not told a second time when the line is quiet"


def test_leader_bytes_do_not_make_it_forget() -> None:
    # 1.7 step 2: only another byte does.
    target = _waiting()
    target.receive_data(b"b0i", 0.0)
    while (due := target.next_timeout()) is not None:
        target.handle_timeout(due)
    assert BreakInSeen() in events_of(target)


def test_bytes_inside_a_header_are_no_break_in() -> None:
    target = _waiting()
    target.receive_data(HEADER.pack(0x69696969, 99, 0, A, 0x62000000), 0.0)
    assert target.next_timeout() is None
    target.handle_timeout(9.0)
    assert not {BreakInSeen(), ResendAsked()} & set(events_of(target))
