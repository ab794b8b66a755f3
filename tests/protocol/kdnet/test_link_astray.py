"""What KdnetLink does when packets go astray, and how RESET puts it right (kdnet 5.2)."""

from __future__ import annotations

import pytest

from protocol.link import (
    Discard,
    Discarded,
    LinkRestarted,
    PacketAcknowledged,
    PacketFailed,
    PacketReceived,
    ResendAsked,
)
from protocol.packet import PacketType, encode_control
from tests.protocol.kdnet.ends import (
    HOST_AT,
    TARGET_AT,
    data_packet,
    deliver,
    events_of,
    hear,
    host_link,
    joined,
    packets,
    said,
    target_link,
)

_CHANGE, _MANIPULATE, _DEBUG_IO = PacketType.STATE_CHANGE64, PacketType.STATE_MANIPULATE, PacketType.DEBUG_IO
_ACK, _RESEND, _RESET = PacketType.ACKNOWLEDGE, PacketType.RESEND, PacketType.RESET
_H, _T = 0x80000000, 0


def test_data_where_an_acknowledge_was_due_is_asked_for_again() -> None:
    """Frames 194 to 201 of the real session: the reply was lost, a new request came (kdnet 5.2)."""
    host, target = joined()
    target.continue_session(0x60, _H + 0x5E)
    target.send_packet(_MANIPULATE, b"1" * 56, 0.0, tries=0)
    assert said(target) == [(_MANIPULATE, 0x60)]
    hear(target, host, data_packet(_MANIPULATE, _H + 0x5E))
    assert said(target) == [(_RESEND, 0)]
    assert [type(event) for event in events_of(target)] == [PacketAcknowledged, Discarded], "it counts as delivered"
    hear(target, host, data_packet(_MANIPULATE, _H + 0x5E))
    assert said(target) == [(_ACK, _H + 0x5E)]
    assert packets(target) == [(_MANIPULATE, _H + 0x5E)]
    target.send_packet(_MANIPULATE, b"2" * 56, 0.0, tries=0)
    assert said(target) == [(_MANIPULATE, 0x62)]


def test_a_repeated_request_where_an_acknowledge_was_due_is_acknowledged_again() -> None:
    host, target = joined()
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    deliver(host, target)
    events_of(target)
    target.send_packet(_MANIPULATE, bytes(56), 0.0, tries=0)
    said(target)
    hear(target, host, data_packet(_MANIPULATE, _H))
    assert said(target) == [(_ACK, _H)]
    assert not target.idle and packets(target) == []


def test_a_host_sends_again_what_is_asked_for_again() -> None:
    host, target = joined()
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    assert said(host) == [(_MANIPULATE, _H)]
    hear(host, target, encode_control(_RESEND))
    assert said(host) == [(_MANIPULATE, _H)]
    for _ in range(60):
        hear(host, target, encode_control(_RESEND))
    assert host.idle and len(said(host)) < 60, "but not for ever"
    assert isinstance(events_of(host)[0], PacketFailed)


def test_a_host_takes_the_first_id_whatever_it_is_and_then_what_is_newer() -> None:
    host, target = joined()
    for packet_id in (0x926, 0x926, 0x928, 0x92E, 0x92C, 0x930):
        hear(host, target, data_packet(_CHANGE, packet_id))
    assert said(host) == [(_ACK, n) for n in (0x926, 0x926, 0x928, 0x92E, 0x92C, 0x930)], "each is acknowledged"
    assert packets(host) == [(_CHANGE, n) for n in (0x926, 0x928, 0x92E, 0x930)]
    assert host.facts.gaps == 1
    assert host.facts.discarded == {Discard.DUPLICATE: 2}


def test_a_target_accepts_a_newcomer_who_begins_at_the_beginning() -> None:
    host, target = joined()
    target.continue_session(0x926, _H + 0x4444)
    target.handle_timeout(3.0)
    newcomer = host_link(seed=44)
    deliver(newcomer, target, 3.0)
    assert newcomer.peer == TARGET_AT
    events_of(target)
    newcomer.send_packet(_MANIPULATE, bytes(56), 3.1)
    deliver(newcomer, target, 3.1)
    assert packets(target) == [(_MANIPULATE, _H)]
    # The one before is not heard any more.
    stale = host._channel.seal(b"b")
    assert stale is not None and not target.receive_datagram(stale, HOST_AT, 3.2)
    assert target.facts.discarded == {Discard.OLD_SESSION: 1}


def test_reset_aligns_both_counters_and_repeats_what_is_pending() -> None:
    """As at first contact with a kernel that has been up for a while (kdnet 5.2, 10)."""
    host, target = joined()
    target.continue_session(0x926, _H + 0x100)
    target.send_packet(_CHANGE, bytes(240), 0.0, tries=0)
    assert said(target) == [(_CHANGE, 0x926)]
    host.send_reset(0.1)
    assert said(host) == [(_RESET, _H)]
    hear(target, host, encode_control(_RESET, _H))
    assert said(target) == [(_RESET, 0x926), (_CHANGE, 0x926)]
    hear(host, target, encode_control(_RESET, 0x926))
    hear(host, target, data_packet(_CHANGE, 0x926))
    assert [type(event) for event in events_of(host)] == [LinkRestarted, PacketReceived]
    assert said(host) == [(_ACK, 0x926)] and host.synchronized
    hear(target, host, data_packet(_MANIPULATE, _H))
    # The acknowledge was lost here: data in its place is asked for again, and then taken.
    assert said(target) == [(_RESEND, 0)]
    hear(target, host, data_packet(_MANIPULATE, _H))
    assert (_MANIPULATE, _H) in packets(target)


def test_reset_of_a_target_that_waits_makes_it_say_again_why_it_stopped() -> None:
    host, target = joined()
    host.send_reset(0.0)
    deliver(host, target)
    assert events_of(target) == [ResendAsked()]
    assert events_of(host) == [LinkRestarted(solicited=True)]
    # What it says then is new, whatever id it has.
    target.send_packet(_CHANGE, bytes(240), 0.0, tries=0)
    deliver(host, target)
    assert packets(host) == [(_CHANGE, _T)]


def test_reset_ends_what_was_outstanding_and_its_id() -> None:
    host, target = joined()
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    deliver(host, target)  # it arrives; suppose the acknowledge did not
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    said(host)
    host.send_reset(0.1)
    assert said(host) == [(_RESET, _H + 4)], "the next id, which nothing had yet"
    assert PacketFailed(1, restarted=True) in events_of(host)
    assert host.idle


def test_of_several_resets_the_first_answer_counts() -> None:
    host, target = joined()
    target.continue_session(0x926, _H)
    target.send_packet(_CHANGE, bytes(240), 0.0, tries=0)
    target.data_to_send()
    for _ in range(3):
        host.send_reset(0.0)
    deliver(host, target)
    assert [type(event) for event in events_of(host)] == [LinkRestarted, PacketReceived, Discarded]
    assert host.facts.discarded == {Discard.DUPLICATE: 2}
    assert events_of(target).count(PacketAcknowledged()) == 1


def test_a_reset_that_nobody_asked_for_is_answered_once() -> None:
    host, target = joined()
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    said(host)
    hear(host, target, encode_control(_RESET, 0x40))
    assert said(host) == [(_RESET, _H), (_MANIPULATE, _H)]
    hear(host, target, encode_control(_RESET, 0x40))
    assert said(host) == []
    assert events_of(host) == [], "the same life, the same key: nothing restarted"
    hear(host, target, data_packet(_CHANGE, 0x40))
    assert packets(host) == [(_CHANGE, 0x40)]


@pytest.mark.parametrize(("first", "known"), [(0, True), (2, False), (0x926, False)])
def test_counters_agree_in_a_life_that_began_with_us(first: int, known: bool) -> None:
    host, target = joined()
    assert not host.synchronized
    hear(host, target, data_packet(_CHANGE, first))
    assert host.synchronized is known
    hear(host, target, encode_control(_RESET, first + 2))
    assert host.synchronized


def test_under_another_key_what_was_outstanding_is_over_and_ids_go_on() -> None:
    host, target = host_link(), target_link()
    responses = []
    for at in (0.0, 3.0):
        target.handle_timeout(at)
        for datagram, _ in target.datagrams_to_send():
            host.receive_datagram(datagram, TARGET_AT, at)
        responses += host.datagrams_to_send()
    for number, (response, _) in enumerate(responses):
        if number == 1:
            host.send_packet(_MANIPULATE, bytes(56), 3.1)
            assert said(host) == [(_RESEND, 0), (_MANIPULATE, _H)]
        target.receive_datagram(response, HOST_AT, 3.1)
        for datagram in target.data_to_send():
            host.receive_datagram(datagram, TARGET_AT, 3.1)
    # Its target takes any id now, so the request must not come a second time under the same one.
    assert events_of(host) == [PacketFailed(1, restarted=True)]
    host.send_packet(_MANIPULATE, bytes(56), 3.2)
    assert said(host) == [(_RESEND, 0), (_MANIPULATE, _H + 2)]


def test_what_is_no_packet_is_dropped_though_genuine() -> None:
    host, target = joined()
    for payload in (b"", bytes(16), b"b", encode_control(_RESEND), data_packet(12, 0)):
        hear(host, target, payload)
    assert host.facts.discarded == {
        Discard.BAD_SIZE: 1, Discard.NOISE: 1, Discard.UNWANTED_TYPE: 2, Discard.BAD_TYPE: 1,
    }  # fmt: skip
    assert host.data_to_send() == []
