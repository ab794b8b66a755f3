"""Where bytes become packets: the one place that splits a KDCOM byte stream.

Both ends search for leaders, but not alike. A target takes the first four leader bytes and believes the header
behind them (kd-protocol 1.7). A host is smarter: it validates the header before believing it, and after a false
leader goes on one byte behind it (T12, T13).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .link import Discard, Role
from .packet import (
    CONTROL_PACKET_LEADER,
    HEADER,
    INITIAL_PACKET_ID,
    LARGEST_PAYLOAD_ACCEPTED,
    PACKET_LEADER,
    PACKET_MAX_SIZE,
    SYNC_PACKET_ID,
    TRAILING_BYTE,
    PacketType,
    checksum,
)

__all__ = ["ControlFrame", "DataFrame", "Frame", "FrameReader", "HeaderFrame", "Rubbish"]


class DataFrame(NamedTuple):
    """A data packet that is whole. `flaw` names what is wrong with it, None: nothing."""

    packet_type: int
    packet_id: int
    payload: bytes
    flaw: Discard | None


class ControlFrame(NamedTuple):
    """An acknowledge, resend or reset."""

    packet_type: int
    packet_id: int


class HeaderFrame(NamedTuple):
    """The header of a data packet, its body left in the stream: what a target sees that waits for an acknowledge."""

    packet_type: int
    packet_id: int
    byte_count: int


class Rubbish(NamedTuple):
    """Bytes that belong to no packet."""

    reason: Discard
    data: bytes


# Four of these come and go for each page that is read: a NamedTuple is made in a third of a frozen dataclass's time.
Frame: TypeAlias = DataFrame | ControlFrame | HeaderFrame | Rubbish

_LEADERS = (PACKET_LEADER, CONTROL_PACKET_LEADER)
_DATA = int.from_bytes(PACKET_LEADER, "little")
_DATA_TYPES = frozenset(
    {
        PacketType.STATE_CHANGE32,
        PacketType.STATE_MANIPULATE,
        PacketType.DEBUG_IO,
        PacketType.STATE_CHANGE64,
        PacketType.TRACE_IO,
        PacketType.CONTROL_REQUEST,
        PacketType.FILE_IO,
    }
)
_CONTROL_TYPES = frozenset({PacketType.ACKNOWLEDGE, PacketType.RESEND, PacketType.RESET})
_ID_BITS = SYNC_PACKET_ID | 1
_HEADER_SIZE = HEADER.size


class FrameReader:
    """Feed it chunks, take frames. Keeps at most one unfinished packet."""

    __slots__ = ("_buffer", "_role", "cut")

    def __init__(self, role: Role) -> None:
        self._role = role
        self._buffer = bytearray()
        self.cut: tuple[int, int] | None = None
        """Type and id of the data packet that was given up last, as its end was missing; None where none had begun."""

    def feed(self, chunk: bytes) -> None:
        """Bytes as they came."""
        self._buffer += chunk

    @property
    def pending(self) -> int:
        """Bytes of a packet that has begun and is not whole."""
        return len(self._buffer)

    def drop(self) -> Rubbish | None:
        """Give up the packet that has begun: what is left of the line went quiet, or lost its meaning."""
        if not self._buffer:
            return None
        self.cut = None
        if self._buffer.startswith(PACKET_LEADER) and len(self._buffer) >= _HEADER_SIZE:
            self.cut = HEADER.unpack_from(self._buffer)[1:4:2]
        # The first byte can be no leader any more; what follows it may still hold a whole packet.
        data = bytes(self._buffer[:1])
        del self._buffer[:1]
        return Rubbish(Discard.TRUNCATED, data)

    def next(self, *, headers_only: bool = False, least: int = 0) -> Frame | None:
        """The next frame, or None: more bytes are needed.

        `headers_only` and `least` are the target's: leave bodies in the stream; refuse smaller payloads.
        """
        buffer = self._buffer
        if not buffer:
            return None
        size = len(buffer)
        if size < _HEADER_SIZE or buffer[:4] not in _LEADERS:
            start = self._find_leader()
            if start:
                data = bytes(buffer[:start])
                del buffer[:start]
                return Rubbish(Discard.NOISE, data)
            if size < _HEADER_SIZE:
                return None
        leader, packet_type, count, packet_id, expected_sum = HEADER.unpack_from(buffer)
        # A target that waits for an acknowledge looks at the id alone: the body is not its business (1.9).
        whole = leader != _DATA or not headers_only
        flaw = self._header_flaw(leader, packet_type, count, packet_id, least) if whole else None
        if flaw is not None:
            # A host was fooled by payload that looks like a leader: one byte on. A target has eaten the header.
            skip = 1 if self._role is Role.HOST else _HEADER_SIZE
            data = bytes(buffer[:skip])
            del buffer[:skip]
            return Rubbish(flaw, data)
        if leader != _DATA:
            del buffer[:_HEADER_SIZE]
            return ControlFrame(packet_type, packet_id)
        if headers_only:
            del buffer[:_HEADER_SIZE]
            return HeaderFrame(packet_type, packet_id, count)
        end = _HEADER_SIZE + count
        if size <= end:
            return None
        if buffer[end] != TRAILING_BYTE:
            if self._role is Role.HOST:
                self.cut = (packet_type, packet_id)
                data = bytes(buffer[:1])
                del buffer[:1]
                return Rubbish(Discard.BAD_TRAILER, data)
            wrong: Discard | None = Discard.BAD_TRAILER
        else:
            wrong = None
        payload = bytes(memoryview(buffer)[_HEADER_SIZE:end])
        del buffer[: end + 1]
        if wrong is None and checksum(payload) != expected_sum:
            wrong = Discard.BAD_CHECKSUM
        return DataFrame(packet_type, packet_id, payload, wrong)

    def _header_flaw(self, leader: int, packet_type: int, count: int, packet_id: int, least: int) -> Discard | None:
        if self._role is Role.TARGET:
            if leader == _DATA:
                return None if least <= count <= PACKET_MAX_SIZE else Discard.BAD_SIZE
            return None if packet_type in _CONTROL_TYPES else Discard.BAD_TYPE
        if packet_type not in (_DATA_TYPES if leader == _DATA else _CONTROL_TYPES):
            return Discard.BAD_TYPE
        if leader != _DATA:
            return None if count == 0 else Discard.BAD_SIZE
        if count > LARGEST_PAYLOAD_ACCEPTED:
            return Discard.BAD_SIZE
        return None if packet_id & ~_ID_BITS == INITIAL_PACKET_ID else Discard.BAD_ID

    def _find_leader(self) -> int:
        """Offset of the first leader; what may be the beginning of one counts as one."""
        buffer = self._buffer
        if buffer.startswith((PACKET_LEADER, CONTROL_PACKET_LEADER)):
            return 0
        found = [at for at in (buffer.find(PACKET_LEADER), buffer.find(CONTROL_PACKET_LEADER)) if at >= 0]
        if found:
            return min(found)
        for length in (3, 2, 1):
            if buffer.endswith((PACKET_LEADER[:length], CONTROL_PACKET_LEADER[:length])):
                return len(buffer) - length
        return len(buffer)
