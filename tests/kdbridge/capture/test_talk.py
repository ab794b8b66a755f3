"""A conversation on the network overheard, packet by packet."""

from __future__ import annotations

from kdbridge.capture.decoded import Odd
from kdbridge.capture.frames import Medium
from kdbridge.capture.talk import Talk
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import PacketType


def _hear(talk: Talk, number: int, message: Manipulate, *, to_target: bool) -> list[Odd]:
    heard = talk.data(PacketType.STATE_MANIPULATE, number, message.encode(), to_target=to_target)
    return [odd.kind for odd in heard.oddities]


def test_many_replies_that_nobody_acknowledges_are_not_odd_where_a_bulk_read_is_answered() -> None:
    talk = Talk(Medium.NETWORK)
    for asked, first in ((0x80000000, 0), (0x80000002, 6)):
        request = Manipulate.request(ApiNumber.READ_PHYSICAL_BULK, address=0x1000, transfer_count=2400)
        assert _hear(talk, asked, request, to_target=True) == []
        talk.control(PacketType.ACKNOWLEDGE, asked, to_target=False)
        for part in range(3):
            reply = request.reply(0, data=bytes(800), address=0x1000 + 800 * part, actual_bytes=800)
            assert _hear(talk, first + 2 * part, reply, to_target=False) == []
    read = Manipulate.request(ApiNumber.READ_PHYSICAL_MEMORY, address=0, transfer_count=1)
    assert _hear(talk, 0x80000004, read, to_target=True) == []
    talk.control(PacketType.ACKNOWLEDGE, 0x80000004, to_target=False)
    assert _hear(talk, 12, read.reply(0, data=b"x", actual_bytes=1), to_target=False) == []
    assert _hear(talk, 14, read.reply(0, data=b"x", actual_bytes=1), to_target=False) == [
        Odd.UNACKNOWLEDGED,
        Odd.DISCARD,
    ]
