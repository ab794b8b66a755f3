"""A serial line's speed: when bytes that are sent now arrive at the other end. No clock of its own."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["Pacer"]

_BITS_A_BYTE = 10  # 8N1: a start bit, eight data bits, a stop bit


@dataclass(slots=True)
class Pacer:
    """One direction of a line of `baud` bits a second; None: as fast as it goes.

    Bytes come out in lumps of at most `lump` seconds, as a UART's FIFO hands them to its driver.
    """

    baud: int | None
    lump: float = 0.004
    _queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    _free_at: float = 0.0

    def send(self, data: bytes, now: float) -> None:
        """Put bytes on the line; they start when the bytes before them are through."""
        if self.baud is None:
            self._queue.append((now, data))
            return
        a_byte = _BITS_A_BYTE / self.baud
        step = max(1, int(self.lump / a_byte))
        at = max(now, self._free_at)
        for start in range(0, len(data), step):
            part = data[start : start + step]
            at += len(part) * a_byte
            self._queue.append((at, part))
        self._free_at = at

    def arrived(self, now: float) -> bytes:
        """What has come out at the other end by now."""
        parts: list[bytes] = []
        while self._queue and self._queue[0][0] <= now:
            parts.append(self._queue.popleft()[1])
        return b"".join(parts)

    def next_arrival(self) -> float | None:
        """When the next bytes come out; None: nothing is under way."""
        return self._queue[0][0] if self._queue else None
