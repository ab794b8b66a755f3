"""One KD conversation overheard: what answers what, and what is odd about the ids (kd-protocol 1.8, kdnet 5).

Both ends are heard, and neither is played: nothing is sent, nothing is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.debug_io import ControlRequest, GetStringReply, TraceIo, decode_debug_io
from protocol.errors import KdError
from protocol.file_io import FileIo
from protocol.kdnet.packet import is_newer, next_id
from protocol.link import Discard
from protocol.manipulate import NO_REPLY, ApiNumber, Manipulate
from protocol.packet import SYNC_PACKET_ID, PacketType
from protocol.state_change import StateChange

from .decoded import Message, Odd, Oddity
from .frames import Medium

__all__ = ["Heard", "Talk", "decode_message"]


def decode_message(packet_type: int, to_target: bool, payload: bytes) -> Message | None:
    """What a KD packet says; None: its type has no message. Raises RemoteProtocolError."""
    match packet_type:
        case PacketType.STATE_MANIPULATE:
            return Manipulate.decode(payload)
        case PacketType.STATE_CHANGE64:
            return StateChange.decode(payload)
        case PacketType.DEBUG_IO:
            return GetStringReply.decode(payload) if to_target else decode_debug_io(payload)
        case PacketType.FILE_IO:
            return FileIo.decode(payload)
        case PacketType.TRACE_IO:
            return TraceIo.decode(payload)
        case PacketType.CONTROL_REQUEST:
            return ControlRequest.decode(payload)
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of a data packet."""

    message: Message | None
    is_reply: bool
    question: Message | None
    """What a reply answers; None: it is no reply, or nobody asked."""
    oddities: tuple[Oddity, ...]


@dataclass(slots=True)
class _Way:
    """What was last sent one way."""

    id: int | None = None
    payload: bytes = b""
    acknowledged: bool = False
    restarted: bool = False
    """A RESET has come since."""


class Talk:
    """One conversation. Feed it packets in their order, both ways."""

    def __init__(self, medium: Medium) -> None:
        self._serial = medium is Medium.SERIAL
        self._ways = {True: _Way(), False: _Way()}
        self._request: Manipulate | None = None
        self._bulk_began = False
        self._asked_last: dict[tuple[int, bool], Message] = {}

    def data(self, packet_type: int, packet_id: int, payload: bytes, *, to_target: bool) -> Heard:
        """A data packet that is whole."""
        oddities = self._number(packet_id, payload, to_target)
        again = any(odd.kind in (Odd.RETRANSMISSION, Odd.DUPLICATE) for odd in oddities)
        try:
            message = decode_message(packet_type, to_target, payload)
        except KdError as error:
            oddities.append(Oddity(Odd.DISCARD, str(error), Discard.MALFORMED_MESSAGE))
            return Heard(None, False, None, tuple(oddities))
        is_reply = to_target != (packet_type == PacketType.STATE_MANIPULATE)
        question = self._asked_last.get((packet_type, not to_target)) if is_reply else None
        if isinstance(message, Manipulate) and not again:
            oddities += self._asked(message) if to_target else self._replied(message)
        elif isinstance(message, StateChange) and not any(odd.kind is Odd.DUPLICATE for odd in oddities):
            oddities += self._unanswered()
            self._request = None
        if message is not None and not is_reply:
            self._asked_last[packet_type, to_target] = message
        return Heard(message, is_reply, question, tuple(oddities))

    def control(self, packet_type: int, packet_id: int, *, to_target: bool) -> tuple[Oddity, ...]:
        """An acknowledge, resend or reset."""
        if packet_type == PacketType.RESET:
            for way in self._ways.values():
                way.restarted = True
        if packet_type != PacketType.ACKNOWLEDGE:
            return ()
        other = self._ways[not to_target]
        if other.id is None:
            return ()
        stray = Discard.STRAY_ACKNOWLEDGE
        if self._bare(packet_id) != other.id:
            return (Oddity(Odd.DISCARD, f"it acknowledges {packet_id:08x}, and {other.id:08x} is due", stray),)
        if other.acknowledged:
            return (Oddity(Odd.DISCARD, "that was acknowledged before", stray),)
        other.acknowledged = True
        return ()

    def _bare(self, packet_id: int) -> int:
        return packet_id & ~SYNC_PACKET_ID if self._serial else packet_id

    def _number(self, packet_id: int, payload: bytes, to_target: bool) -> list[Oddity]:
        way = self._ways[to_target]
        number = self._bare(packet_id)
        oddities = self._order(way, number, payload)
        if way.id is not None and way.id != number and not way.acknowledged and not way.restarted:
            oddities.append(Oddity(Odd.UNACKNOWLEDGED, f"the packet before it, {way.id:08x}, was not acknowledged"))
        self._ways[to_target] = _Way(number, payload)
        return oddities

    def _order(self, way: _Way, number: int, payload: bytes) -> list[Oddity]:
        if way.id is None:
            return []
        if number == way.id and payload == way.payload:
            if way.restarted:
                return [Oddity(Odd.RETRANSMISSION, "the same packet again, after a RESET")]
            if way.acknowledged:
                return [Oddity(Odd.DUPLICATE, "the same packet again, though it was acknowledged", Discard.DUPLICATE)]
            return [Oddity(Odd.RETRANSMISSION, "the same packet again")]
        if way.restarted:
            return []
        if number == way.id:
            return [Oddity(Odd.GAP, f"another packet under the id {number:08x}: one between is missing")]
        if self._serial or number == next_id(way.id):
            return []
        if is_newer(number, way.id):
            return [Oddity(Odd.GAP, f"packets between {way.id:08x} and {number:08x} are missing")]
        return [Oddity(Odd.DUPLICATE, f"its id is older than {way.id:08x}", Discard.DUPLICATE)]

    def _asked(self, request: Manipulate) -> list[Oddity]:
        oddities = self._unanswered()
        self._request = None if request.api in NO_REPLY else request
        self._bulk_began = False
        return oddities

    def _unanswered(self) -> list[Oddity]:
        before = self._request
        return (
            []
            if before is None or self._bulk_began
            else [Oddity(Odd.UNANSWERED, f"the {before.name} before it was not answered")]
        )

    def _replied(self, reply: Manipulate) -> list[Oddity]:
        request = self._request
        if request is not None and request.api == reply.api:
            if reply.api == ApiNumber.READ_PHYSICAL_BULK:
                # More of them may follow, and none is acknowledged.
                self._ways[False].acknowledged = self._bulk_began = True
            else:
                self._request = None
            return []
        asked = "nothing is asked" if request is None else f"{request.name} is asked"
        return [Oddity(Odd.DISCARD, f"it answers {reply.name}, and {asked}", Discard.STALE_REPLY)]
