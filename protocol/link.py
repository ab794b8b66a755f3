"""What every link has in common: packets, in order and once, over a wire that loses, damages and repeats them.

`KdcomLink` does this for a byte stream, a KDNET link for datagrams. Who sits above cannot tell which it has.
A link never blocks and never reads a clock: `now` is an argument, in seconds from any origin, never decreasing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from .packet import PacketType

__all__ = [
    "BreakInSeen",
    "Discard",
    "Discarded",
    "Link",
    "LinkEvent",
    "LinkRestarted",
    "LinkTimers",
    "PacketAcknowledged",
    "PacketFailed",
    "PacketReceived",
    "ResendAsked",
    "Role",
    "TargetLink",
]


class Role(enum.Enum):
    """Which end we are."""

    HOST = "host"
    TARGET = "target"


class Discard(enum.Enum):
    """Why bytes were thrown away. Nothing is dropped without one of these."""

    NOISE = "bytes that belong to no packet"
    BAD_TYPE = "a packet type that does not exist"
    BAD_SIZE = "a byte count no packet may have"
    BAD_ID = "a packet id that is neither of the two"
    BAD_TRAILER = "a data packet without its trailing byte AA"
    BAD_CHECKSUM = "a data packet whose bytes do not add up"
    TRUNCATED = "a packet that stopped in the middle"
    DUPLICATE = "a packet that had been received before"
    STRAY_ACKNOWLEDGE = "an acknowledge of a packet that is not outstanding"
    UNWANTED_TYPE = "a packet of a type that was not asked for"
    SKIPPED_BODY = "a request sent where an acknowledge was due"
    POLLED = "a byte that a running target looked at and threw away"
    MALFORMED_MESSAGE = "a packet whose message makes no sense"
    ECHOED = "what we had sent, given back by the line"
    STALE_REPLY = "a reply to a question that is no longer open"
    HOPELESS = "a long reply of which no copy came whole, acknowledged all the same, and asked for in smaller pieces"
    NOT_KDNET = "a datagram that does not begin with MDBG"
    BAD_DATAGRAM = "a datagram of a size or on a channel that KDNET does not have"
    NOT_AUTHENTIC = "a datagram that does not authenticate: another key, or a forgery"
    NO_SESSION = "data before there is a session: its key was agreed with a debugger that is gone"
    REFLECTED = "a datagram of our own direction"
    REPLAYED = "a datagram that is no newer than the last one: repeated, or late"
    OLD_SESSION = "data under the key of the session before this one"
    OTHER_MACHINE = "a poke of another machine with the same key"
    STALE_RESPONSE = "a response to none of the last pokes"


class PacketReceived(NamedTuple):
    """A data packet: checked, new, in order; it has been acknowledged."""

    packet_type: int
    packet_id: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class PacketAcknowledged:
    """The peer has the packet that we sent."""


@dataclass(frozen=True, slots=True)
class PacketFailed:
    """The packet that we sent was given up: after `tries` without an acknowledge, or because the peer restarted."""

    tries: int
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class LinkRestarted:
    """The counters begin anew. `solicited`: as we had asked; else the peer did it by itself (T2)."""

    solicited: bool


@dataclass(frozen=True, slots=True)
class ResendAsked:
    """Target only: the host wants the event again (RESEND, RESET, or a break-in byte and silence)."""


@dataclass(frozen=True, slots=True)
class BreakInSeen:
    """Target only: a break-in byte was heard; ControlCPending."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """Bytes thrown away, and why. `sample` holds the first of them, for a person to look at."""

    reason: Discard
    count: int
    sample: bytes


LinkEvent: TypeAlias = (
    PacketReceived | PacketAcknowledged | PacketFailed | LinkRestarted | ResendAsked | BreakInSeen | Discarded
)


@dataclass(frozen=True, slots=True)
class LinkTimers:
    """Seconds and tries. A target's own are 1 s a byte, 5 tries until first contact and 20 after (kd-protocol 1.13)."""

    byte: float = 1.0
    """Silence in the middle of a packet after which it is given up."""
    acknowledge: float = 1.0
    """Silence after which a packet that was not acknowledged is sent again."""
    tries: int = 5
    first_tries: int = 5


class Link(Protocol):
    """Packets over a wire."""

    @property
    def role(self) -> Role:
        """Which end this is."""
        ...

    @property
    def idle(self) -> bool:
        """No packet of ours waits for its acknowledge."""
        ...

    @property
    def synchronized(self) -> bool:
        """Host: both counters are known to agree; if not, a RESET settles it before the first request."""
        ...

    def receive_data(self, chunk: bytes, now: float) -> None:
        """Bytes as they came (a stream), or one datagram."""
        ...

    def next_event(self) -> LinkEvent | None:
        """The next thing that happened; None: more data or time is needed."""
        ...

    def send_packet(self, packet_type: int, payload: bytes, now: float, *, tries: int | None = None) -> None:
        """Send a data packet; PacketAcknowledged or PacketFailed will follow. One at a time."""
        ...

    def imply_acknowledge(self) -> None:
        """What is outstanding did arrive, or nobody acknowledges it. PacketAcknowledged follows.

        A host knows from the reply that the request had arrived (T7); a target's bulk replies are never acknowledged.
        """
        ...

    def skip_damaged(self) -> bool:
        """Host: be rid of a reply of which copy after copy came damaged, by acknowledging it. False: there is none."""
        ...

    def send_break_in(self, now: float) -> None:
        """Host: ask a running target to stop."""
        ...

    def send_reset(self, now: float) -> None:
        """Host: ask a stopped target to begin anew and repeat its state change."""
        ...

    def data_to_send(self) -> list[bytes]:
        """What is to be written now: one element, one write (one datagram)."""
        ...

    def next_timeout(self) -> float | None:
        """When handle_timeout wants to be called; None: never, as things are."""
        ...

    def handle_timeout(self, now: float) -> None:
        """Time has passed. Harmless when called early."""
        ...


class TargetLink(Link, Protocol):
    """What a target needs of its end beyond a link: it polls while it runs, and wants one type of packet at a time."""

    def want(self, packet_type: PacketType) -> None:
        """Which type of packet is waited for; others are acknowledged and ignored."""
        ...

    def set_polling(self, polling: bool, now: float) -> None:
        """Running: what comes is kept, and `poll` looks at it piece by piece. Stopped: everything is read."""
        ...

    @property
    def polled(self) -> int:
        """Running: how much waits to be looked at."""
        ...

    def poll(self) -> bool:
        """Running: look at the next piece, as at each clock tick. True: it was a break-in byte."""
        ...

    def give_up(self) -> None:
        """A new life begins: the machine restarts, and no debugger is known."""
        ...

    def continue_session(self, next_to_send: int, expected: int) -> None:
        """Begin in the middle of a conversation with a debugger that is gone, with these packet ids."""
        ...
