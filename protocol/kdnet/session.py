"""A session: a key for data, the peer that has it too, and how far each side has counted (kdnet 4.7)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.link import Discard, Role

from .datagram import Channel, Datagram, Sealer
from .facts import Address

__all__ = ["Renewal", "Session"]


class Renewal(enum.Enum):
    """What a new key means for the conversation."""

    FIRST = "there was no session before"
    REKEYED = "the same life of the target under another key"
    RESTARTED = "the target began a new life"


@dataclass(slots=True)
class Session:
    """One data key's life."""

    key: bytes
    version: int
    peer: Address
    sent: int = 0
    """Sequence number of the last datagram sent; the first has 1."""
    received: int = 0
    """Highest sequence number accepted: what is not above it is a repetition, or too late."""

    def seal(self, sealer: Sealer, role: Role, payload: bytes) -> bytes:
        """The datagram for a KD packet, with a number that was never used under this key."""
        self.sent += 1
        return sealer.seal(Datagram(self.version, Channel.DATA, role is Role.HOST, self.sent, payload), self.key)

    def take(self, sealer: Sealer, role: Role, raw: bytes) -> bytes | Discard | None:
        """The payload; a Discard where it is genuine but not for us now; None: not under this key."""
        opened = sealer.open(raw, self.key)
        if opened is None:
            return None
        if opened.from_host is (role is Role.HOST):
            return Discard.REFLECTED
        if opened.sequence <= self.received:
            return Discard.REPLAYED
        self.received = opened.sequence
        return opened.payload
