"""What went over a line, both ways, and when: the engine keeps the beginning of it, and the doctor judges by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["MOST_KEPT", "Overheard", "Piece"]

MOST_KEPT = 1 << 18
"""Bytes that are kept of each direction. More is counted only."""


class Piece(NamedTuple):
    """Bytes that were written or read at once."""

    at: float
    sent: bool
    data: bytes


@dataclass(slots=True)
class Overheard:
    """A record of one line. Times are in seconds from when listening began."""

    baud: int | None = None
    """Speed of our end; None: it has none that we know of."""
    pieces: list[Piece] = field(default_factory=list)
    seconds: float = 0.0
    """How long the line was listened to."""
    counted: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    """Bytes sent (True) and received (False), also those that were not kept."""

    def add(self, at: float, sent: bool, data: bytes) -> None:
        """Note what was sent or what came."""
        room = MOST_KEPT - self.counted[sent]
        self.counted[sent] += len(data)
        if room > 0 and data:
            self.pieces.append(Piece(at, sent, data[:room]))
        self.seconds = max(self.seconds, at)

    @property
    def received(self) -> bytes:
        """All that came."""
        return b"".join(piece.data for piece in self.pieces if not piece.sent)

    @property
    def sent(self) -> bytes:
        """All that was sent."""
        return b"".join(piece.data for piece in self.pieces if piece.sent)

    @property
    def unasked(self) -> bytes:
        """What came before anything was sent."""
        parts = []
        for piece in self.pieces:
            if piece.sent:
                break
            parts.append(piece.data)
        return b"".join(parts)

    @property
    def in_answer(self) -> bytes:
        """What came after something had been sent."""
        first = next((at for at, piece in enumerate(self.pieces) if piece.sent), len(self.pieces))
        return b"".join(piece.data for piece in self.pieces[first:] if not piece.sent)

    @property
    def quiet(self) -> float:
        """Seconds of silence at the end."""
        last = max((piece.at for piece in self.pieces if not piece.sent), default=0.0)
        return self.seconds - last
