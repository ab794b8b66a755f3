"""DecodedPacket: one packet of a conversation, what it means, and what is odd about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from protocol.debug_io import ControlRequest, GetString, GetStringReply, PrintString, TraceIo
from protocol.file_io import FileIo
from protocol.kdnet import Datagram
from protocol.kdnet.control import Poke, Response
from protocol.kdnet.packet import ConnectionCheck
from protocol.link import Discard
from protocol.manipulate import Manipulate
from protocol.packet import PacketType
from protocol.state_change import StateChange

from .frames import Medium

__all__ = ["DecodedPacket", "Kind", "Message", "Odd", "Oddity"]

Message = (
    Manipulate | StateChange | PrintString | GetString | GetStringReply | TraceIo | ControlRequest | FileIo | Poke
    | Response | ConnectionCheck
)  # fmt: skip
"""What a packet can say, as the codecs of `protocol` give it."""


class Kind(enum.Enum):
    """What a packet is. KD's own types have Microsoft's names."""

    STATE_CHANGE32 = "StateChange32"
    STATE_MANIPULATE = "Manipulate"
    DEBUG_IO = "DebugIo"
    ACKNOWLEDGE = "Acknowledge"
    RESEND = "Resend"
    RESET = "Reset"
    STATE_CHANGE64 = "StateChange"
    TRACE_IO = "TraceIo"
    CONTROL_REQUEST = "ControlRequest"
    FILE_IO = "FileIo"
    POLL_BREAKIN = "PollBreakIn"
    UNUSED = "Unused"
    BREAK_IN = "BreakIn"
    POKE = "Poke"
    RESPONSE = "Response"
    SOLICITATION = "Solicitation"
    """An empty control datagram: a host asks for a poke."""
    NOISE = "Noise"
    """Bytes that are no packet."""
    OPAQUE = "Opaque"
    """A datagram that cannot be decrypted."""

    @classmethod
    def of(cls, packet_type: int) -> Kind:
        """The kind of a KD packet of this type."""
        return cls[PacketType(packet_type).name]


class Odd(enum.Enum):
    """In what way a packet is odd."""

    RETRANSMISSION = "retransmission"
    DUPLICATE = "duplicate"
    """Sent again although it had been acknowledged."""
    UNACKNOWLEDGED = "unacknowledged"
    """The packet before it never was."""
    UNANSWERED = "unanswered"
    """The request before it never was."""
    GAP = "gap"
    """Packets before it are missing."""
    MOVED = "moved"
    """The target has another address now."""
    DISCARD = "discard"
    """No receiver takes it; `Oddity.reason` says why."""
    AUTHENTICATION = "authentication"
    """It does not authenticate."""
    UNDECRYPTED = "undecrypted"
    """There is no key to open it with."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """One thing that is odd. `text` is for a person."""

    kind: Odd
    text: str
    reason: Discard | None = None


@dataclass(frozen=True, slots=True)
class DecodedPacket:
    """One packet. Serial: a KD packet or what lay between two. Network: a datagram."""

    number: int
    """From 1."""
    time: float
    """Seconds since 1970, UTC: when its last byte came."""
    to_target: bool | None
    """None: a datagram that could not be opened, from an end that is not known either."""
    medium: Medium
    source: str
    destination: str
    kind: Kind
    id: int | None
    """Of a KD packet with a header."""
    text: str
    api: str = ""
    """Microsoft's name of the request, state change, print or file operation."""
    message: Message | None = None
    """None: it has none, or none that makes sense."""
    payload: bytes = field(default=b"", repr=False)
    """Of a KD packet, behind its header; of a control datagram, all of it."""
    raw: bytes = field(default=b"", repr=False)
    """As it was on the wire. Of a serial packet that was damaged, what is left of it."""
    datagram: Datagram | None = None
    """Network: what was in it, decrypted and authentic."""
    session: int = 0
    """Network: which data key it is under, from 1; 0: none."""
    oddities: tuple[Oddity, ...] = ()
    is_reply: bool = False
    """An answer: from the target to a request, from the host to a prompt or a file request."""
