"""A target and a person with a keyboard at the other end: bytes in, packets out, time by hand."""

from __future__ import annotations

from collections import deque

from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_data
from protocol.state_change import LoadSymbols
from simulator.machine import Machine
from simulator.target import Activity, Event, KdTarget, Load, Stop
from tests.raw import A, ack
from tests.recording import Packet, split
from tests.small_machine import KERNEL, small_machine
from tests.wire import target_link

__all__ = ["BREAK_IN", "IMAGE", "RESET", "SYNC", "Desk", "waiting"]

RESET = bytes.fromhex("69696969 06000000 00000000 00000000")
BREAK_IN = b"\x62"
SYNC = A | 0x800
"""Id of a first packet."""

IMAGE = Load(LoadSymbols("\\x.sys", KERNEL, 0xFFFF_FFFF_FFFF_FFFF, 0x1234, 0x9000, unload=False))


class Desk:
    """A target, and a person with a keyboard at the other end."""

    def __init__(self, *script: Event, machine: Machine | None = None) -> None:
        self.target = KdTarget(machine or small_machine(), target_link(), script=deque(script))
        self.now = 0.0
        self.target.handle_timeout(0.0)

    def said(self) -> list[Packet]:
        packets, between = split(b"".join(self.target.data_to_send()))
        assert between == []
        return packets

    def heads(self) -> list[tuple[int, int]]:
        return [(packet.packet_type, packet.packet_id) for packet in self.said()]

    def hear(self, data: bytes) -> list[tuple[int, int]]:
        self.target.receive_data(data, self.now)
        return self.heads()

    def wait(self, seconds: float) -> list[tuple[int, int]]:
        """Time passes, timer by timer; what was said meanwhile."""
        end, heads = self.now + seconds, self.heads()
        while (due := self.target.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.target.handle_timeout(self.now)
            heads += self.heads()
        self.now = end
        return heads

    def ask(self, packet_id: int, api: ApiNumber, processor: int = 0, **fields: int) -> list[Packet]:
        request = Manipulate.request(api, processor=processor, data=b"", **fields)
        self.target.receive_data(encode_data(2, packet_id, request.encode()), self.now)
        return self.said()


def waiting(*script: Event, machine: Machine | None = None) -> Desk:
    """Stopped, its state change acknowledged; the first request carries A."""
    desk = Desk(Stop(), *script, machine=machine)
    assert desk.heads() == [(7, SYNC)]
    assert desk.hear(ack(A)) == []
    assert desk.target.activity is Activity.WAITING
    return desk
