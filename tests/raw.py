"""One end of a line alone, with the other end's packets made by hand: small words for tests of links."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.connection import KdConnection
from protocol.conversation import KdEvent
from protocol.kdcom import KdcomLink
from protocol.link import Link, LinkEvent, Role
from protocol.manipulate import Manipulate
from protocol.packet import encode_control, encode_data
from tests.recording import Packet, split

__all__ = ["A", "ack", "attached", "change_bytes", "events_of", "ids_and_types", "kd_events_of", "reply_packet", "sent"]

A = 0x80800000
"""INITIAL_PACKET_ID; A | 1 is the other one."""


def ack(packet_id: int) -> bytes:
    return encode_control(4, packet_id)


def events_of(link: Link) -> list[LinkEvent]:
    events: list[LinkEvent] = []
    while (event := link.next_event()) is not None:
        events.append(event)
    return events


def kd_events_of(host: KdConnection) -> list[KdEvent]:
    events: list[KdEvent] = []
    while (event := host.next_event()) is not None:
        events.append(event)
    return events


def sent(end: Link | KdConnection) -> list[Packet]:
    """The packets it has written; a break-in byte would not be one, and fails here."""
    packets, between = split(b"".join(end.data_to_send()))
    assert between == []
    return packets


def ids_and_types(packets: Iterable[Packet]) -> list[tuple[int, int]]:
    return [(packet.packet_type, packet.packet_id) for packet in packets]


def change_bytes(pc: int = 0xFFFFF800_00002000) -> bytes:
    """A state change made by offsets alone (kd-protocol 2.1): exception 80000003, processor 0 of 1."""
    raw = bytearray(240)
    raw[0:4] = (0x3030).to_bytes(4, "little")
    raw[8] = 1
    raw[0x18:0x20] = pc.to_bytes(8, "little")
    raw[0x20:0x24] = (0x80000003).to_bytes(4, "little")
    raw[0x38] = 1
    raw[0xB8] = 1
    raw[0xC8:0xCA] = b"\x00\x04"
    return bytes(raw)


def attached() -> KdConnection:
    """A debugger that has just acknowledged a state change with SYNC: its next request carries A, the reply A | 1."""
    host = KdConnection(KdcomLink(Role.HOST))
    host.receive_data(encode_data(7, A | 0x800, change_bytes()), 0.0)
    assert ids_and_types(sent(host)) == [(4, A)]
    kd_events_of(host)
    return host


def reply_packet(packet_id: int, reply: Manipulate) -> bytes:
    return encode_data(2, packet_id, reply.encode())
