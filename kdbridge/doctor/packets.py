"""Packets in a stream of bytes that need not be whole: good ones, and where damaged ones begin and end.

The engine's reader throws a damaged packet away. Here it is kept, because what is wrong with it tells what is wrong
with the line.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from protocol.packet import (
    HEADER,
    INITIAL_PACKET_ID,
    LARGEST_PAYLOAD_ACCEPTED,
    SYNC_PACKET_ID,
    TRAILING_BYTE,
    PacketType,
    checksum,
)

__all__ = ["Found", "Scan", "Shape", "is_header", "scan"]

_LEADER = re.compile(rb"0000|iiii")
_DATA = int.from_bytes(b"0000", "little")
_DATA_TYPES = frozenset(
    packet_type for packet_type in PacketType
    if not packet_type.is_control and packet_type not in (PacketType.UNUSED, PacketType.POLL_BREAKIN)
)  # fmt: skip
_CONTROL_TYPES = frozenset(packet_type for packet_type in PacketType if packet_type.is_control)
_ID_BITS = SYNC_PACKET_ID | 1
_SIZE = HEADER.size
_MOST = 20_000
"""Packets that are looked at."""


class Shape(enum.Enum):
    """In what shape a packet came."""

    GOOD = "good"
    CHANGED = "of its full length, with other bytes in it"
    SHORT = "with bytes missing"
    LONG = "with bytes too many"
    UNFINISHED = "not all here yet"


class Found(NamedTuple):
    """A packet. `body` is its payload where it is good, else all that came between its header and what follows it."""

    at: int
    packet_type: int
    packet_id: int
    size: int
    """Bytes of payload that its header announces."""
    sum: int
    body: bytes
    shape: Shape

    @property
    def control(self) -> bool:
        """An acknowledge, resend or reset."""
        return self.packet_type in _CONTROL_TYPES

    @property
    def missing(self) -> int:
        """Bytes of payload and trailer that did not come."""
        return self.size + 1 - len(self.body) if self.shape is Shape.SHORT else 0

    @property
    def key(self) -> tuple[int, int, int]:
        """Alike in packets of the same content: type, length, sum."""
        return self.packet_type, self.size, self.sum


class Scan(NamedTuple):
    """All that was found in a stream."""

    found: tuple[Found, ...]
    broken: tuple[int, ...]
    """Where a leader stands and no header behind it."""
    between: bytes
    """Bytes that belong to no packet."""

    @property
    def good(self) -> tuple[Found, ...]:
        """Packets with data, whole."""
        return tuple(one for one in self.found if one.shape is Shape.GOOD and not one.control)

    @property
    def controls(self) -> tuple[Found, ...]:
        """Acknowledges, resends and resets."""
        return tuple(one for one in self.found if one.control)

    @property
    def damaged(self) -> tuple[Found, ...]:
        """Packets with data that are not what was sent."""
        return tuple(one for one in self.found if one.shape not in (Shape.GOOD, Shape.UNFINISHED))


def scan(stream: bytes, *, ended: bool = True) -> Scan:
    """Look for packets. `ended`: silence followed, so that half a packet at the end will not be completed."""
    heads = _heads(stream)
    found: list[Found] = []
    between: list[bytes] = []
    done = 0
    for number, at in enumerate(heads):
        if at < done or len(found) >= _MOST:
            continue
        between.append(stream[done:at])
        follows = next((head for head in heads[number + 1 : number + 64] if head >= at + _SIZE), len(stream))
        one, done = _read(stream, at, follows, ended)
        found.append(one)
    between.append(stream[done:])
    spans = [(one.at, one.at + _SIZE + len(one.body) + (one.shape is Shape.GOOD)) for one in found]
    return Scan(tuple(found), _broken(stream, spans), b"".join(between))


def _heads(stream: bytes) -> list[int]:
    """Where a leader stands that a header follows."""
    heads = []
    at = 0
    while (match := _LEADER.search(stream, at)) is not None:
        at = match.start()
        if len(stream) - at >= _SIZE and is_header(stream, at):
            heads.append(at)
        at += 1
    return heads


def is_header(stream: bytes, at: int) -> bool:
    """Whether a header of a packet can stand at this place, where there are bytes enough for one."""
    leader, packet_type, count, packet_id, _ = HEADER.unpack_from(stream, at)
    if leader != _DATA:
        return packet_type in _CONTROL_TYPES and count == 0
    known = packet_type in _DATA_TYPES and count <= LARGEST_PAYLOAD_ACCEPTED
    return known and packet_id & ~_ID_BITS == INITIAL_PACKET_ID


def _read(stream: bytes, at: int, follows: int, ended: bool) -> tuple[Found, int]:
    """The packet at this place, and where it ends. `follows`: where the next one begins, or the stream ends."""
    leader, packet_type, count, packet_id, expected = HEADER.unpack_from(stream, at)
    if leader != _DATA:
        return Found(at, packet_type, packet_id, 0, 0, b"", Shape.GOOD), at + _SIZE
    start, end = at + _SIZE, at + _SIZE + count
    payload = stream[start:end]
    trailer = end < len(stream) and stream[end] == TRAILING_BYTE
    if trailer and checksum(payload) == expected:
        return Found(at, packet_type, packet_id, count, expected, payload, Shape.GOOD), end + 1
    body = stream[start:follows]
    if len(body) > count and (trailer or follows == len(stream) or len(body) == count + 1):
        shape = Shape.CHANGED if trailer or len(body) == count + 1 else Shape.LONG
        body = body[: count + 1] if shape is Shape.CHANGED else body
    elif len(body) > count:
        shape = Shape.LONG
    else:
        shape = Shape.UNFINISHED if follows == len(stream) and not ended else Shape.SHORT
    return Found(at, packet_type, packet_id, count, expected, body, shape), start + len(body)


def _broken(stream: bytes, spans: list[tuple[int, int]]) -> tuple[int, ...]:
    broken = []
    span = 0
    at = 0
    while (match := _LEADER.search(stream, at)) is not None:
        at = match.start()
        while span < len(spans) and spans[span][1] <= at:
            span += 1
        if span < len(spans) and spans[span][0] <= at:
            at = max(spans[span][1], at + 1)
            continue
        if len(stream) - at >= _SIZE:
            broken.append(at)
        at += 4
    return tuple(broken)
