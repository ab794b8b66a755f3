"""A packet that was sent and waits for its acknowledge, and when it is sent again."""

from __future__ import annotations

from dataclasses import dataclass

from .link import Role

__all__ = ["Outstanding"]


@dataclass(slots=True)
class Outstanding:
    """The one packet that an end of a line has on the way."""

    packet_type: int
    payload: bytes
    tries: int | None
    """Tries left; None: it is sent for ever."""
    sent_at: float
    tries_made: int = 1
    resends: int = 0

    def due(self, role: Role, wait: float, last_byte: float) -> float:
        """When it is sent again, after `wait` seconds of quiet. Bytes that still come put it off, but not for ever."""
        # A host's second wait is longer than a target's for a byte: one that is lost in the middle of a packet has to
        # notice that the line is quiet.
        wait *= 2 if role is Role.HOST and self.tries_made == 2 else 1
        return min(max(self.sent_at, last_byte) + wait, self.sent_at + 10 * wait)
