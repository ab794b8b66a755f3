"""The KD packet in a data datagram: one each, whole, without a trailing byte (kdnet 5)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias

from protocol.framing import ControlFrame, DataFrame
from protocol.link import Discard
from protocol.packet import CONTROL_PACKET_LEADER, HEADER, PACKET_LEADER, PacketType, checksum

from .control import Endpoint

__all__ = [
    "FIRST_HOST_ID",
    "FIRST_TARGET_ID",
    "ConnectionCheck",
    "Content",
    "encode_connection_check",
    "is_newer",
    "next_id",
    "read_packet",
]

FIRST_TARGET_ID = 0x00000000
FIRST_HOST_ID = 0x80000000

_DATA = int.from_bytes(PACKET_LEADER, "little")
_CONTROL = int.from_bytes(CONTROL_PACKET_LEADER, "little")
_CHECK_HEAD = bytes(8)
_CHECK_SIZE = 12
_STEP = 2
_IDS = 1 << 32

_DATA_TYPES = frozenset(kind for kind in PacketType if not kind.is_control and kind is not PacketType.UNUSED)
_CONTROL_TYPES = frozenset(kind for kind in PacketType if kind.is_control)


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """UNUSED: the first thing a target says under a new key. It is not acknowledged (kdnet 5.1)."""

    host: bytes
    """The host's IPv4 address, its bytes reversed."""


Content: TypeAlias = DataFrame | ControlFrame | ConnectionCheck | Discard


def next_id(packet_id: int) -> int:
    """The id of the packet behind this one. All bits count, 800h too (kdnet 5)."""
    return (packet_id + _STEP) % _IDS


def is_newer(packet_id: int, expected: int) -> bool:
    """Whether this id is the expected one, or one behind it: what lies between is lost for good."""
    return (packet_id - expected) % _IDS < _IDS // 2


def encode_connection_check(host: Endpoint) -> bytes:
    """UNUSED for a debugger at this address. How it carries an IPv6 address nobody has seen: zeros here."""
    address = ipaddress.IPv6Address(host.encode()[:16]).ipv4_mapped
    return _CHECK_HEAD + (address.packed[::-1] if address else bytes(4))


def read_packet(payload: bytes) -> Content:
    """What a payload is; a Discard where it is no packet, which only a faulty peer sends: it was authentic."""
    if len(payload) < HEADER.size:
        if len(payload) == _CHECK_SIZE and payload.startswith(_CHECK_HEAD):
            return ConnectionCheck(payload[8:])
        return Discard.BAD_SIZE
    leader, packet_type, count, packet_id, expected_sum = HEADER.unpack_from(payload)
    body = payload[HEADER.size :]
    if leader == _CONTROL:
        if packet_type not in _CONTROL_TYPES:
            return Discard.BAD_TYPE
        return Discard.BAD_SIZE if count or body else ControlFrame(packet_type, packet_id)
    if leader != _DATA:
        return Discard.NOISE
    if packet_type not in _DATA_TYPES:
        return Discard.BAD_TYPE
    if count != len(body):
        return Discard.BAD_SIZE
    if checksum(body) != expected_sum:
        return Discard.BAD_CHECKSUM
    return DataFrame(packet_type, packet_id, body, None)
