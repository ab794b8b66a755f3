"""The target's half of KdnetLink: running, stopped, restarted (kdnet 14)."""

from __future__ import annotations

from protocol.link import (
    BreakInSeen,
    Discard,
    Discarded,
    LinkRestarted,
    PacketFailed,
    PacketReceived,
    ResendAsked,
)
from protocol.packet import PacketType, encode_control
from tests.protocol.kdnet.ends import (
    HOST_AT,
    data_packet,
    deliver,
    events_of,
    hear,
    joined,
    packets,
    said,
)

_CHANGE, _MANIPULATE, _DEBUG_IO = PacketType.STATE_CHANGE64, PacketType.STATE_MANIPULATE, PacketType.DEBUG_IO
_ACK, _RESEND, _RESET = PacketType.ACKNOWLEDGE, PacketType.RESEND, PacketType.RESET
_H, _T = 0x80000000, 0


def test_a_running_target_hears_break_in_and_nothing_else() -> None:
    host, target = joined()
    target.set_polling(True, 0.0)
    host.send_reset(0.0)
    host.send_break_in(0.0)
    deliver(host, target)
    assert target.polled == 2 and target.data_to_send() == []
    assert [target.poll(), target.poll(), target.poll()] == [False, True, False]
    assert events_of(target) == [Discarded(Discard.POLLED, 16, encode_control(_RESET, _H))]


def test_what_a_running_target_kept_is_read_when_it_stops() -> None:
    host, target = joined()
    target.set_polling(True, 0.0)
    host.send_reset(0.0)
    deliver(host, target)
    target.set_polling(False, 1.0)
    assert events_of(target) == [ResendAsked()]
    assert [kind for kind, _ in said(target)] == [_RESET]


def test_a_running_target_keeps_so_much_and_no_more() -> None:
    host, target = joined()
    target.set_polling(True, 0.0)
    for _ in range(200):
        hear(target, host, b"b")
    assert target.polled == 64
    assert target.facts.discarded == {Discard.POLLED: 136}


def test_a_target_that_says_something_reads_what_it_kept() -> None:
    host, target = joined()
    target.set_polling(True, 0.0)
    hear(target, host, b"b")
    target.send_packet(_DEBUG_IO, bytes(20), 0.1)
    assert events_of(target) == [BreakInSeen()]


def test_a_break_in_to_a_stopped_target_is_remembered_by_its_owner() -> None:
    host, target = joined()
    host.send_break_in(0.0)
    (datagram,) = host.data_to_send()
    assert len(datagram) == 38
    target.receive_datagram(datagram, HOST_AT, 0.0)
    assert events_of(target) == [BreakInSeen()] and target.data_to_send() == []


def test_a_target_wants_one_type_at_a_time() -> None:
    host, target = joined()
    target.want(PacketType.FILE_IO)
    hear(target, host, data_packet(_MANIPULATE, _H))
    hear(target, host, data_packet(PacketType.FILE_IO, _H + 2, bytes(64)))
    assert said(target) == [(_ACK, _H), (_ACK, _H + 2)]
    assert packets(target) == [(PacketType.FILE_IO, _H + 2)]
    assert target.facts.discarded == {Discard.UNWANTED_TYPE: 1}


def test_a_target_pokes_while_it_is_stopped_and_while_it_waits() -> None:
    _, target = joined()
    target.send_packet(_CHANGE, bytes(240), 0.0, tries=0)
    pokes = 0
    now = 0.0
    while now < 60.0:
        now = target.next_timeout() or 0.0
        target.handle_timeout(now)
        pokes += sum(len(datagram) == 374 for datagram, _ in target.datagrams_to_send())
    assert pokes == 20


def test_a_machine_that_restarts_is_known_by_its_new_life() -> None:
    host, target = joined()
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    deliver(host, target)
    host.send_packet(_MANIPULATE, bytes(56), 0.0)
    host.data_to_send()
    events_of(host)
    target.give_up()
    assert target.peer is None and target.idle
    target.handle_timeout(1.0)
    target.send_packet(_CHANGE, b"n" * 240, 1.0, tries=0)
    deliver(host, target, 1.0)
    events = [event for event in events_of(host) if not isinstance(event, Discarded)]
    assert events == [
        LinkRestarted(solicited=False), PacketFailed(1, restarted=True), PacketReceived(_CHANGE, _T, b"n" * 240),
    ]  # fmt: skip
    assert host.synchronized
    host.send_packet(_MANIPULATE, bytes(56), 1.1)
    assert said(host) == [(_MANIPULATE, _H)], "both count anew"
