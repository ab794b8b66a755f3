"""A target's end of the line, step by step as real target code does it (kd-protocol 1.4, 1.7 to 1.9, 1.11)."""

from __future__ import annotations

from collections import deque

import pytest

from protocol.errors import LocalProtocolError
from protocol.kdcom import KdcomLink
from protocol.link import (
    Discard,
    Discarded,
    LinkEvent,
    LinkTimers,
    PacketAcknowledged,
    PacketFailed,
    PacketReceived,
    ResendAsked,
    Role,
)
from protocol.packet import HEADER, PacketType, encode_control, encode_data
from protocol.state_change import KERNEL_PROCESS_ID, LoadSymbols
from simulator.events import Ask, Event, Load, OpenFile, Print, Stop
from simulator.target import KdTarget
from tests.raw import A, ack, change_bytes, events_of, ids_and_types, sent
from tests.small_machine import small_machine
from tests.wire import target_link

_ACK, _RESEND, _RESET = 4, 5, 6
_REQUEST = bytes(range(56))
_RESEND_BYTES = encode_control(_RESEND)


def _waiting() -> KdcomLink:
    """Stopped, its event acknowledged, waiting for a request: Expected is A."""
    target = target_link()
    target.send_packet(7, change_bytes(), 0.0, tries=0)
    target.receive_data(ack(A), 0.0)
    sent(target)
    events_of(target)
    return target


def _reporting() -> KdcomLink:
    """Its event was sent and not acknowledged: Expected is A, the packet under way has A with SYNC."""
    target = target_link()
    target.send_packet(7, change_bytes(), 0.0, tries=0)
    assert ids_and_types(sent(target)) == [(7, A | 0x800)]
    return target


def _reasons(events: list[LinkEvent]) -> list[Discard]:
    return [event.reason for event in events if isinstance(event, Discarded)]


def _damaged(wire: bytes, at: int) -> bytes:
    return wire[:at] + bytes([wire[at] ^ 0xFF]) + wire[at + 1 :]


# One packet of the host against 1.7's steps 12 to 18, in their order: what is answered, and what becomes of it.
@pytest.mark.parametrize(
    ("wire", "answer", "reason"),
    [
        pytest.param(HEADER.pack(0x30303030, 2, 4001, A, 0), (_RESEND, 0), Discard.BAD_SIZE, id="12 too large"),
        pytest.param(HEADER.pack(0x30303030, 2, 55, A, 0), (_RESEND, 0), Discard.BAD_SIZE, id="12 too small"),
        pytest.param(HEADER.pack(0x30303030, 3, 20, A, 0), (_RESEND, 0), Discard.BAD_SIZE, id="12 before 14"),
        pytest.param(
            encode_data(2, A, _REQUEST)[:-1] + b"\0", (_RESEND, 0), Discard.BAD_TRAILER, id="13 without trailer"
        ),
        pytest.param(encode_data(3, A, _REQUEST)[:-1] + b"\0", (_RESEND, 0), Discard.BAD_TRAILER, id="13 before 14"),
        pytest.param(encode_data(3, A, _REQUEST), (_ACK, A), Discard.UNWANTED_TYPE, id="14 of another type"),
        pytest.param(
            _damaged(encode_data(11, A, _REQUEST), 30), (_ACK, A), Discard.UNWANTED_TYPE, id="14 without its sum"
        ),
        pytest.param(encode_data(3, 7, _REQUEST), (_ACK, 7), Discard.UNWANTED_TYPE, id="14 before 15"),
        pytest.param(encode_data(2, A | 2, _REQUEST), (_RESEND, 0), Discard.BAD_ID, id="15 with another id"),
        pytest.param(encode_data(2, A | 0x800, _REQUEST), (_RESEND, 0), Discard.BAD_ID, id="15 with SYNC"),
        pytest.param(encode_data(2, A | 1, _REQUEST), (_ACK, A | 1), Discard.DUPLICATE, id="16 a second time"),
        pytest.param(
            _damaged(encode_data(2, A | 1, _REQUEST), 30), (_ACK, A | 1), Discard.DUPLICATE, id="16 before 17"
        ),
        pytest.param(
            _damaged(encode_data(2, A, _REQUEST), 30), (_RESEND, 0), Discard.BAD_CHECKSUM, id="17 without its sum"
        ),
    ],
)
def test_a_request_that_is_none(wire: bytes, answer: tuple[int, int], reason: Discard) -> None:
    target = _waiting()
    target.receive_data(wire, 0.0)
    assert ids_and_types(sent(target)) == [answer]
    assert _reasons(events_of(target)) == [reason]
    # Whatever it was, the request that was due is taken afterwards.
    target.receive_data(encode_data(2, A, _REQUEST), 0.1)
    assert events_of(target) == [PacketReceived(2, A, _REQUEST)]


def test_a_request_is_acknowledged_delivered_and_the_next_one_has_the_other_id() -> None:
    target = _waiting()
    for packet_id in (A, A | 1, A, A | 1):
        target.receive_data(encode_data(2, packet_id, _REQUEST), 0.0)
        assert ids_and_types(sent(target)) == [(_ACK, packet_id)]
        assert events_of(target) == [PacketReceived(2, packet_id, _REQUEST)]


def test_an_answer_to_a_prompt_is_taken_when_it_is_what_is_wanted() -> None:
    target = _waiting()
    target.want(PacketType.DEBUG_IO)
    target.receive_data(encode_data(2, A, _REQUEST), 0.0)
    assert _reasons(events_of(target)) == [Discard.UNWANTED_TYPE]
    target.receive_data(encode_data(3, A, b"x" * 17), 0.0)
    assert events_of(target) == [PacketReceived(3, A, b"x" * 17)]


@pytest.mark.parametrize("cut", [4, 8, 15])
def test_a_header_that_stops_says_nothing(cut: int) -> None:
    target = _waiting()
    target.receive_data(encode_data(2, A, _REQUEST)[:cut], 0.0)
    assert target.next_timeout() == 1.0
    target.handle_timeout(1.0)
    assert sent(target) == [] and set(_reasons(events_of(target))) <= {Discard.TRUNCATED, Discard.NOISE}
    assert target.next_timeout() is None


@pytest.mark.parametrize("cut", [16, 40, 72])
def test_a_body_that_stops_is_asked_for_again(cut: int) -> None:
    target = _waiting()
    target.receive_data(encode_data(2, A, _REQUEST)[:cut], 0.0)
    target.handle_timeout(0.9)
    assert sent(target) == [], "not before its time"
    target.handle_timeout(1.0)
    assert ids_and_types(sent(target)) == [(_RESEND, 0)]
    target.receive_data(encode_data(2, A, _REQUEST), 1.1)
    assert events_of(target)[-1] == PacketReceived(2, A, _REQUEST)


@pytest.mark.parametrize("packet_id", [A, A | 1, 0])
def test_an_acknowledge_that_nobody_waits_for_is_ignored(packet_id: int) -> None:
    target = _waiting()
    target.receive_data(ack(packet_id), 0.0)
    assert (sent(target), _reasons(events_of(target))) == ([], [Discard.STRAY_ACKNOWLEDGE])


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 7, 11, 0xFFFF])
def test_other_control_packets_are_ignored(kind: int) -> None:
    target = _waiting()
    target.receive_data(encode_control(kind, A), 0.0)
    assert (sent(target), _reasons(events_of(target))) == ([], [Discard.BAD_TYPE])


def test_a_reset_restarts_both_counters_without_sync() -> None:
    target = _waiting()
    target.receive_data(encode_data(2, A, _REQUEST), 0.0)
    sent(target)
    events_of(target)
    target.receive_data(encode_control(_RESET), 0.0)
    assert ids_and_types(sent(target)) == [(_RESET, 0)]
    assert events_of(target) == [ResendAsked()]
    target.send_packet(7, change_bytes(), 0.0, tries=0)
    assert ids_and_types(sent(target)) == [(7, A)]
    target.receive_data(ack(A) + encode_data(2, A, _REQUEST), 0.0)
    assert events_of(target) == [PacketAcknowledged(), PacketReceived(2, A, _REQUEST)]


# ---- sending (1.8) ---------------------------------------------------------------------------------------------------


def _tries(target: KdcomLink, most: int = 100) -> int:
    """How often the packet under way is sent while nobody answers, the first time included."""
    count = len(sent(target))
    while (due := target.next_timeout()) is not None and count < most:
        target.handle_timeout(due)
        count += len(sent(target))
    return count


def test_before_the_first_contact_five_tries_and_twenty_after() -> None:
    target = target_link()
    target.send_packet(3, bytes(16), 0.0)
    assert _tries(target) == 5
    assert events_of(target) == [PacketFailed(5)]
    target = _waiting()
    target.send_packet(3, bytes(16), 0.0)
    assert _tries(target) == 20
    assert events_of(target) == [PacketFailed(20)]


def test_other_budgets_can_be_had_and_zero_is_for_ever() -> None:
    for tries in (1, 3):
        target = _waiting()
        target.send_packet(3, bytes(16), 0.0, tries=tries)
        assert _tries(target) == tries
    target = target_link(acknowledge=0.5)
    target.send_packet(7, change_bytes(), 0.0, tries=0)
    assert _tries(target, 500) == 500 and target.next_timeout() == pytest.approx(250.0)


_IMAGE = LoadSymbols("x.sys", 0xFFFFF80000010000, KERNEL_PROCESS_ID, 0, 0x1000, False)


@pytest.mark.parametrize(
    ("says", "kind", "gives_up"),
    [
        (Load(_IMAGE), 7, True),
        (Print(b"hello"), 3, True),
        (OpenFile("x.sys"), 11, True),
        (Stop(), 7, False),
        (Ask(b"(boipt)? "), 3, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_said_to_nobody_is_given_up_or_said_for_ever(says: Event, kind: int, gives_up: bool) -> None:
    target = KdTarget(small_machine(), target_link(), script=deque([says]))
    written: list[bytes] = []
    now = 0.0
    while now < 100.0:
        target.handle_timeout(now)
        written += target.data_to_send()
        due = target.next_timeout()
        now = max(now + 0.01, 100.0 if due is None else due)
    assert {chunk[4] for chunk in written} == {kind}
    assert len(written) == 5 if gives_up else len(written) > 50


def test_giving_up_starts_anew_with_sync() -> None:
    target = _waiting()
    target.receive_data(encode_data(2, A, _REQUEST), 0.0)
    target.send_packet(3, bytes(16), 0.0, tries=1)
    target.handle_timeout(5.0)
    sent(target)
    events_of(target)
    assert target.idle
    # NextToSend is 80800800 and Expected 80800000 (1.8, below the table).
    target.send_packet(7, change_bytes(), 9.0, tries=0)
    assert ids_and_types(sent(target)) == [(7, A | 0x800)]
    target.receive_data(ack(A) + encode_data(2, A, _REQUEST), 9.0)
    assert events_of(target) == [PacketAcknowledged(), PacketReceived(2, A, _REQUEST)]


def test_sync_stays_on_all_repetitions_of_the_first_packet_and_on_no_other() -> None:
    target = _reporting()
    for _ in range(3):
        target.handle_timeout(target.next_timeout() or 0.0)
    assert ids_and_types(sent(target)) == [(7, A | 0x800)] * 3
    target.receive_data(ack(A), 9.0)
    ids = []
    for _ in range(4):
        target.send_packet(3, bytes(16), 9.0)
        (packet,) = sent(target)
        ids.append(packet.packet_id)
        target.receive_data(ack(packet.packet_id), 9.0)
    assert ids == [A | 1, A, A | 1, A]


def test_a_resend_sends_again_and_costs_no_try() -> None:
    target = _waiting()
    target.send_packet(3, bytes(16), 0.0)
    first = sent(target)
    for _ in range(60):
        target.receive_data(_RESEND_BYTES, 0.0)
        assert [packet.raw for packet in sent(target)] == [first[0].raw]
    assert 1 + _tries(target) == 20
    assert events_of(target) == [PacketFailed(20)]


def test_a_reset_in_between_changes_the_id_of_the_next_try() -> None:
    target = _waiting()
    target.send_packet(3, bytes(16), 0.0)
    assert ids_and_types(sent(target)) == [(3, A | 1)]
    target.receive_data(encode_control(_RESET), 0.0)
    assert ids_and_types(sent(target)) == [(_RESET, 0), (3, A)]
    target.receive_data(ack(A | 1), 0.0)
    assert PacketAcknowledged() not in events_of(target), "the old id is acknowledged by nobody"
    target.receive_data(ack(A), 0.0)
    assert events_of(target) == [PacketAcknowledged()]


def test_the_wait_begins_anew_with_every_byte_that_comes() -> None:
    target = target_link(acknowledge=2.0)
    target.send_packet(3, bytes(16), 0.0)
    assert target.next_timeout() == 2.0
    target.receive_data(b"\r", 1.5)
    assert target.next_timeout() == 3.5
    target.handle_timeout(2.0)
    assert len(sent(target)) == 1
    target.handle_timeout(3.5)
    assert len(sent(target)) == 1 and target.next_timeout() == 5.5


def test_one_packet_at_a_time() -> None:
    target = _reporting()
    with pytest.raises(LocalProtocolError, match="one packet at a time"):
        target.send_packet(3, bytes(16), 0.0)


# ---- the acknowledgement questions (1.9) -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [17, 56, 4000])
def test_the_expected_packet_implies_the_acknowledge_whatever_its_size(size: int) -> None:
    target = _reporting()
    wire = encode_data(2, A, b"x" * size)
    target.receive_data(wire, 0.0)
    assert ids_and_types(sent(target)) == [(_RESEND, 0)]
    events = events_of(target)
    assert events[0] == PacketAcknowledged() and target.idle
    assert not any(isinstance(event, PacketReceived) for event in events), "its body is not read"
    target.send_packet(3, bytes(16), 0.0)
    assert ids_and_types(sent(target)) == [(3, A | 1)], "and the counter went on, without SYNC"


def test_another_packet_is_acknowledged_and_the_wait_goes_on() -> None:
    target = _waiting()
    target.receive_data(encode_data(2, A, _REQUEST), 0.0)
    target.send_packet(2, _REQUEST, 0.0, tries=0)
    sent(target)
    events_of(target)
    # The host repeats its request: it missed our acknowledge.
    target.receive_data(encode_data(2, A, _REQUEST), 0.1)
    assert ids_and_types(sent(target)) == [(_ACK, A)]
    assert not target.idle
    assert _reasons(events_of(target)) == [Discard.SKIPPED_BODY, Discard.NOISE]


def test_an_acknowledge_with_the_wrong_id_is_ignored() -> None:
    target = _reporting()
    for packet_id in (A | 1, A | 0x800, 0):
        target.receive_data(ack(packet_id), 0.0)
        assert not target.idle
    assert set(_reasons(events_of(target))) == {Discard.STRAY_ACKNOWLEDGE}
    target.receive_data(ack(A) + ack(A), 0.0)
    assert events_of(target) == [PacketAcknowledged(), Discarded(Discard.STRAY_ACKNOWLEDGE, 16, ack(A))]


def test_in_the_middle_of_a_conversation_that_others_began() -> None:
    target = KdcomLink(Role.TARGET, LinkTimers(tries=20))
    target.continue_session(A | 1, A | 1)
    target.send_packet(2, _REQUEST, 0.0)
    assert ids_and_types(sent(target)) == [(2, A | 1)]
    target.receive_data(ack(A | 1) + encode_data(2, A | 1, _REQUEST), 0.0)
    assert events_of(target) == [PacketAcknowledged(), PacketReceived(2, A | 1, _REQUEST)]
