"""KD_PACKET: sixteen bytes of header, a payload, and on a serial line one trailing byte (kd-protocol 1.2 to 1.6)."""

from __future__ import annotations

import enum
import struct
import zlib

from .errors import LocalProtocolError

__all__ = [
    "BREAK_IN_BYTE",
    "CONTROL_PACKET_LEADER",
    "HEADER",
    "INITIAL_PACKET_ID",
    "LARGEST_PAYLOAD_ACCEPTED",
    "PACKET_LEADER",
    "PACKET_MAX_SIZE",
    "SYNC_PACKET_ID",
    "TRAILING_BYTE",
    "PacketType",
    "checksum",
    "encode_control",
    "encode_data",
]

PACKET_LEADER = b"0000"
CONTROL_PACKET_LEADER = b"iiii"
TRAILING_BYTE = 0xAA
BREAK_IN_BYTE = b"b"
"""Sent alone and unframed, host to target: 62."""

INITIAL_PACKET_ID = 0x80800000
SYNC_PACKET_ID = 0x00000800
"""A flag in the id of a target's first packet: both counters were restarted."""

PACKET_MAX_SIZE = 4000
"""Largest payload a KDCOM target sends or takes, the message's own header included."""

LARGEST_PAYLOAD_ACCEPTED = 4096 + 64
"""What we still take for a packet from others (some stubs send 4,096); more is a damaged header."""

HEADER = struct.Struct("<IHHII")
"""PacketLeader, PacketType, ByteCount, PacketId, Checksum."""

assert HEADER.size == 16

_DATA_LEADER = int.from_bytes(PACKET_LEADER, "little")
_CONTROL_LEADER = int.from_bytes(CONTROL_PACKET_LEADER, "little")


class PacketType(enum.IntEnum):
    """PACKET_TYPE_…: 4, 5 and 6 are control packets, the others carry data (kd-protocol 1.3)."""

    UNUSED = 0
    STATE_CHANGE32 = 1
    STATE_MANIPULATE = 2
    DEBUG_IO = 3
    ACKNOWLEDGE = 4
    RESEND = 5
    RESET = 6
    STATE_CHANGE64 = 7
    POLL_BREAKIN = 8
    TRACE_IO = 9
    CONTROL_REQUEST = 10
    FILE_IO = 11

    @property
    def is_control(self) -> bool:
        """Control packets have no payload and no trailing byte."""
        return PacketType.ACKNOWLEDGE <= self <= PacketType.RESET


def checksum(payload: bytes | bytearray | memoryview) -> int:
    """Sum of all payload bytes, mod 2^32 (kd-protocol 1.5).

    Adler-32's low half over 256 bytes is their plain sum (at most 65,280, below its modulus): five times
    faster than adding bytes one by one.
    """
    if len(payload) <= 64:
        return sum(payload)
    adler = zlib.adler32
    return sum([adler(payload[at : at + 256], 0) & 0xFFFF for at in range(0, len(payload), 256)])


def encode_data(packet_type: int, packet_id: int, payload: bytes, *, trailer: bool = True) -> bytes:
    """A data packet as it goes on the wire; KDNET leaves the trailing byte out."""
    if len(payload) > LARGEST_PAYLOAD_ACCEPTED:
        raise LocalProtocolError(f"a payload of {len(payload)} bytes does not fit a packet ({PACKET_MAX_SIZE})")
    head = HEADER.pack(_DATA_LEADER, packet_type, len(payload), packet_id, checksum(payload))
    return head + payload + b"\xaa" if trailer else head + payload


def encode_control(packet_type: int, packet_id: int = 0) -> bytes:
    """An acknowledge (with the id it acknowledges), resend or reset (any id: nobody looks, T15)."""
    return HEADER.pack(_CONTROL_LEADER, packet_type, 0, packet_id, 0)
