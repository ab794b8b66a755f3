"""KdConnection: a long answer that comes damaged again and again is given up, and the line is free of it."""

from __future__ import annotations

from protocol.connection import KdConnection
from protocol.conversation import FailureReason, KdEvent, Replied, RequestFailed
from protocol.link import Discard, Discarded
from protocol.manipulate import ApiNumber, Manipulate
from tests.protocol.test_connection import _ACK, _VERSION, _asking, _hear
from tests.raw import A, ack, ids_and_types, reply_packet, sent

_LONG_READ = Manipulate.request(ApiNumber.READ_PHYSICAL_MEMORY, address=0x3000, transfer_count=256)


def _eight_damaged(host: KdConnection, answer: Manipulate) -> list[KdEvent]:
    wire = bytearray(reply_packet(A | 1, answer))
    wire[-3] ^= 0x10
    return [event for _ in range(8) for event in _hear(host, bytes(wire), now=1.0)]


def test_a_long_read_whose_answer_comes_damaged_again_and_again_fails_and_the_line_is_free_of_it() -> None:
    host = _asking(_LONG_READ, repeatable=True)
    events = _eight_damaged(host, _LONG_READ.reply(0, data=bytes(256), actual_bytes=256))
    assert events[-2:] == [
        Discarded(Discard.HOPELESS, 56, b""),
        RequestFailed(_LONG_READ, FailureReason.DAMAGED),
    ]
    assert ids_and_types(sent(host))[-1] == (_ACK, A | 1)
    less = _LONG_READ.less(64)
    host.ask(less, 1.1, repeatable=True)
    answer = less.reply(0, data=bytes(64), actual_bytes=64)
    assert _hear(host, ack(A | 1), reply_packet(A, answer), now=1.2) == [Replied(less, answer)]


def test_an_answer_that_cannot_be_shorter_is_waited_for() -> None:
    for request in (_LONG_READ.less(128), _VERSION):
        host = _asking(request, repeatable=True)
        events = _eight_damaged(host, request.reply(0, data=bytes(128)))
        assert {type(event) for event in events} == {Discarded} and host.busy
        assert (_ACK, A | 1) not in ids_and_types(sent(host))
