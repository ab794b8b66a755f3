"""KdnetLink in pairs: how the ends find each other, and one packet after the other (kdnet 4, 5)."""

from __future__ import annotations

import pytest

from protocol.errors import LocalProtocolError
from protocol.kdnet import HostChannel, KdnetLink, Sealer
from protocol.link import (
    Discard,
    Discarded,
    Link,
    PacketAcknowledged,
    PacketFailed,
    PacketReceived,
    ResendAsked,
    TargetLink,
)
from protocol.packet import PacketType, encode_control
from tests.protocol.kdnet.aes import Aes
from tests.protocol.kdnet.ends import (
    HOST_AT,
    KEY,
    TARGET_AT,
    data_packet,
    deliver,
    events_of,
    hear,
    host_link,
    joined,
    packets,
    said,
    seeded,
    session_key,
    state,
    target_link,
)

_CHANGE, _MANIPULATE, _DEBUG_IO = PacketType.STATE_CHANGE64, PacketType.STATE_MANIPULATE, PacketType.DEBUG_IO
_ACK, _RESEND, _RESET = PacketType.ACKNOWLEDGE, PacketType.RESEND, PacketType.RESET
_H, _T = 0x80000000, 0


def test_both_ends_are_links() -> None:
    host: Link = host_link()
    target: TargetLink = target_link()
    assert (host.role.value, target.role.value) == ("host", "target")


def test_poke_response_check_greeting() -> None:
    host, target = host_link(), target_link()
    target.handle_timeout(0.0)
    carried = deliver(host, target)
    # Sizes tell what they are without a key (kdnet 6): poke, response, UNUSED, RESEND.
    assert [(from_host, len(datagram)) for from_host, datagram in carried] == [
        (False, 374), (True, 358), (False, 54), (True, 54),
    ]  # fmt: skip
    assert (host.peer, target.peer) == (TARGET_AT, HOST_AT)
    assert events_of(target) == [ResendAsked()]
    assert events_of(host) == []


def test_without_a_session_nothing_is_sent_and_nothing_breaks() -> None:
    host = host_link()
    host.send_break_in(0.0)
    host.send_reset(0.0)
    assert host.datagrams_to_send() == [] and host.data_to_send() == []
    assert host.next_timeout() is None and not host.synchronized and host.peer is None and host.version is None
    host.send_packet(_MANIPULATE, bytes(56), 0.0, tries=2)
    for _ in range(2):
        due = host.next_timeout()
        assert due is not None
        host.handle_timeout(due)
    assert events_of(host) == [PacketFailed(2)] and host.datagrams_to_send() == []
    host.receive_data(b"MDBG\x05\x01" + bytes(32), 0.0)
    assert events_of(host) == [Discarded(Discard.NO_SESSION, 38, b"MDBG\x05\x01" + bytes(32))]


def test_what_waited_for_a_debugger_comes_behind_the_check() -> None:
    host, target = host_link(), target_link()
    target.send_packet(_CHANGE, b"c" * 240, 0.0, tries=0)
    target.handle_timeout(0.0)
    deliver(host, target)
    received = [event for event in events_of(host) if isinstance(event, PacketReceived)]
    assert received == [PacketReceived(_CHANGE, _T, b"c" * 240)]
    assert PacketAcknowledged() in events_of(target)


def test_a_link_takes_one_datagram_of_its_peer_as_data() -> None:
    host, target = joined()
    target.send_packet(_CHANGE, bytes(240), 0.0)
    (datagram,) = target.data_to_send()
    host.receive_data(datagram, 0.0)
    assert packets(host) == [(_CHANGE, _T)]
    host.receive_data(b"", 0.0)
    assert events_of(host) == []


def test_what_is_for_the_conversation_wakes_its_owner_and_nothing_else_does() -> None:
    host, target = joined()
    target.handle_timeout(3.0)
    ((poke, _),) = target.datagrams_to_send()
    assert not host.receive_datagram(poke, TARGET_AT, 3.0)
    assert not host.receive_datagram(b"garbage", TARGET_AT, 3.0)
    assert not host.receive_datagram(b"MDBG\x05\x00" + bytes(32), TARGET_AT, 3.0)
    target.send_packet(_CHANGE, bytes(240), 3.0)
    (datagram,) = target.data_to_send()
    assert host.receive_datagram(datagram, TARGET_AT, 3.0)
    assert not host.receive_datagram(datagram, TARGET_AT, 3.0), "a copy"


@pytest.mark.parametrize(("version", "size"), [(2, 1232), (4, 1232), (5, 1096), (7, 1096)])
def test_how_much_one_reply_carries(version: int, size: int) -> None:
    host, target = joined(version)
    assert (host.version, host.largest_transfer, target.largest_transfer) == (version, size, size)


def test_request_acknowledge_reply_acknowledge() -> None:
    host, target = joined()
    for number in range(3):
        host.send_packet(_MANIPULATE, b"q" * 56, 0.0)
        assert (host.idle, target.idle) == (False, True)
        deliver(host, target)
        assert packets(target) == [(_MANIPULATE, _H + 2 * number)]
        assert events_of(host) == [PacketAcknowledged()]
        target.send_packet(_MANIPULATE, b"r" * 56, 0.0, tries=0)
        deliver(host, target)
        assert packets(host) == [(_MANIPULATE, _T + 2 * number)]
        assert events_of(target) == [PacketAcknowledged()]
        assert (host.idle, target.idle) == (True, True)


def test_one_packet_at_a_time() -> None:
    host, _ = joined()
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    with pytest.raises(LocalProtocolError):
        host.send_packet(_MANIPULATE, bytes(56), 0.0)


def test_bit_800_is_a_bit_of_the_number() -> None:
    host, target = joined()
    hear(host, target, data_packet(_CHANGE, 0x926))
    assert said(host) == [(_ACK, 0x926)], "not 126"
    host.imply_acknowledge()
    assert events_of(host) == [PacketReceived(_CHANGE, 0x926, bytes(56))]
    target.continue_session(0x7FE, _H)
    for packet_id in (0x7FE, 0x800, 0x802):
        target.send_packet(_CHANGE, bytes(240), 0.0)
        assert said(target) == [(_CHANGE, packet_id)]
        hear(target, host, encode_control(_ACK, packet_id))
        assert target.idle


def test_a_repetition_has_the_same_id_and_a_new_number() -> None:
    host, target = joined()
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    (first,) = host.data_to_send()
    assert host.next_timeout() == 0.5
    host.handle_timeout(0.4)
    assert host.data_to_send() == []
    host.handle_timeout(0.5)
    (second,) = host.data_to_send()
    key = session_key(host)
    one, two = (Sealer(KEY, Aes()).open(datagram, key) for datagram in (first, second))
    assert one is not None and two is not None
    assert one.payload == two.payload and two.sequence == one.sequence + 1
    # Both arrive: the second is a repetition, acknowledged and no event.
    for datagram in (first, second):
        target.receive_datagram(datagram, HOST_AT, 0.6)
    assert said(target) == [(_ACK, _H), (_ACK, _H)]
    assert packets(target) == [(_MANIPULATE, _H)]


@pytest.mark.parametrize(("tries", "seconds"), [(None, 5.0), (3, 1.5)])
def test_a_request_nobody_acknowledges_is_given_up(tries: int | None, seconds: float) -> None:
    host, _ = joined()
    host.send_packet(_MANIPULATE, bytes(56), 0.0, tries=tries)
    now = 0.0
    while not host.idle:
        now = host.next_timeout() or 0.0
        host.handle_timeout(now)
    assert now == seconds
    assert events_of(host) == [PacketFailed(int(seconds * 2))]
    host.data_to_send()
    # The target may have carried it out: its id is used up.
    host.send_packet(_MANIPULATE, bytes(56), now)
    assert said(host) == [(_MANIPULATE, _H + 2)]


def test_a_target_gives_up_a_notification_sooner_before_first_contact() -> None:
    host, target = joined()
    target.send_packet(_DEBUG_IO, bytes(20), 0.0)
    for number in range(1, 5):
        target.handle_timeout(0.5 * number)
    assert events_of(target) == []
    target.handle_timeout(2.5)
    assert events_of(target) == [PacketFailed(5)]
    target.data_to_send()
    target.send_packet(_DEBUG_IO, bytes(20), 3.0)
    hear(target, host, encode_control(_ACK, 2))
    target.send_packet(_DEBUG_IO, bytes(20), 3.0)
    events_of(target)
    for number in range(1, 20):
        target.handle_timeout(3.0 + 0.5 * number)
    assert events_of(target) == []
    target.handle_timeout(13.0)
    assert events_of(target) == [PacketFailed(20)]


def test_a_target_repeats_an_exception_for_ever() -> None:
    _, target = joined()
    target.send_packet(_CHANGE, bytes(240), 0.0, tries=0)
    for number in range(1, 500):
        target.handle_timeout(0.5 * number)
        assert said(target) == [(_CHANGE, _T)] * (2 if number == 1 else 1)


def test_an_acknowledge_of_something_else_is_none() -> None:
    host, target = joined()
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    said(host)
    for packet_id in (0, _H + 2, _H | 0x800, _H ^ 1):
        hear(host, target, encode_control(_ACK, packet_id))
    assert not host.idle
    assert host.facts.discarded == {Discard.STRAY_ACKNOWLEDGE: 4}


def test_state_tells_two_links_apart() -> None:
    """The witness of the tests that say "nothing changed"."""
    one = KdnetLink(HostChannel(KEY, Aes(), seeded(1)))
    two = KdnetLink(HostChannel(KEY, Aes(), seeded(1)))
    assert state(one) == state(two)
    two.send_packet(_MANIPULATE, bytes(56), 0.0)
    assert state(one) != state(two)
    host, target = joined()
    before = state(host)
    hear(host, target, b"")
    assert state(host) != before, "its receive sequence moved"
