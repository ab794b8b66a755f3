"""On a link whose restarts are new lives, nothing that was asked of one life is answered by the next."""

from __future__ import annotations

import pytest

from protocol.connection import KdConnection
from protocol.conversation import Conversation, FailureReason, KdEvent, RequestFailed, StateChanged
from protocol.kdcom import KdcomLink
from protocol.link import LinkRestarted, Role
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_data
from tests.raw import A, ack, change_bytes, kd_events_of, reply_packet, sent

_READ = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0xFFFFF80000003000, transfer_count=4)
_OTHER = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0xFFFFF80000004000, transfer_count=4)
_NEW_LIFE = encode_data(7, A | 0x800, change_bytes(0xFFFFF80000009000))


def _attached(*, lives: bool) -> KdConnection:
    host = KdConnection(KdcomLink(Role.HOST), restart_is_new_life=lives)
    host.receive_data(encode_data(7, A | 0x800, change_bytes()), 0.0)
    sent(host), kd_events_of(host)
    return host


def _hear(host: KdConnection, data: bytes, now: float = 0.0) -> list[KdEvent]:
    host.receive_data(data, now)
    return kd_events_of(host)


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_read_fails_at_once_and_is_not_asked_again(acknowledged: bool) -> None:
    host = _attached(lives=True)
    host.ask(_READ, 0.0, repeatable=True)
    sent(host)
    if acknowledged:
        host.receive_data(ack(A), 0.0)
    events = _hear(host, _NEW_LIFE)
    kinds = [type(event) for event in events]
    assert kinds == [LinkRestarted, RequestFailed, StateChanged]
    assert events[1] == RequestFailed(_READ, FailureReason.RESTARTED)
    assert [packet.packet_type for packet in sent(host)] == [4], "nothing but the acknowledge"
    assert not host.busy and host.life == 2
    for now in range(1, 60):
        host.handle_timeout(float(now))
    assert sent(host) == []


def test_over_a_serial_line_a_read_is_asked_again() -> None:
    host = _attached(lives=False)
    host.ask(_READ, 0.0, repeatable=True)
    sent(host)
    assert [type(event) for event in _hear(host, _NEW_LIFE)] == [LinkRestarted, StateChanged]
    assert [packet.packet_type for packet in sent(host)] == [4, 2]
    assert host.life == 1


def test_why_the_former_life_stopped_says_nothing_of_this_one() -> None:
    host = _attached(lives=True)
    assert host.change is not None and host.state is Conversation.STOPPED
    events = _hear(host, _NEW_LIFE)
    assert [type(event) for event in events] == [LinkRestarted, StateChanged]
    assert isinstance(events[1], StateChanged) and not events[1].repeated
    assert host.change is not None and host.change.program_counter == 0xFFFFF80000009000


def test_a_question_that_waits_behind_an_abandoned_one_fails_too() -> None:
    host = _attached(lives=True)
    host.ask(_READ, 0.0, repeatable=True)
    host.abandon()
    host.ask(_OTHER, 0.0, repeatable=True)
    sent(host)
    events = _hear(host, _NEW_LIFE)
    assert [event for event in events if isinstance(event, RequestFailed)] == [
        RequestFailed(_OTHER, FailureReason.RESTARTED)
    ]
    assert [packet.packet_type for packet in sent(host)] == [4]


def test_the_new_life_is_asked_as_any_other() -> None:
    host = _attached(lives=True)
    _hear(host, _NEW_LIFE)
    sent(host)
    host.ask(_READ, 1.0, repeatable=True)
    (packet,) = sent(host)
    host.receive_data(ack(packet.packet_id), 1.0)
    answer = _READ.reply(0, data=b"abcd", actual_bytes=4)
    (replied,) = _hear(host, reply_packet(A | 1, answer), 1.0)
    assert replied.reply == answer  # type: ignore[union-attr]
    assert host.life == 2


def test_a_restart_that_was_asked_for_is_no_new_life() -> None:
    host = _attached(lives=True)
    host.send_reset(0.0)
    sent(host)
    reset = bytes.fromhex("69696969 06000000 00000000 00000000")
    assert LinkRestarted(solicited=True) in _hear(host, reset)
    assert host.life == 1
