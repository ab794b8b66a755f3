"""A serial line's speed: when bytes that are sent now arrive at the other end. No clock of its own."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Pacer", "Talker", "Wire"]

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


class Talker(Protocol):
    """A state machine at the end of a line."""

    def receive_data(self, chunk: bytes, now: float) -> None:
        """Bytes have come."""
        ...

    def data_to_send(self) -> list[bytes]:
        """What is to be written now."""
        ...

    def next_timeout(self) -> float | None:
        """When handle_timeout wants to be called."""
        ...

    def handle_timeout(self, now: float) -> None:
        """Time has passed."""
        ...


@dataclass(slots=True)
class Wire:
    """A target at the end of a line of `baud` bits a second, seen from the other end.

    A target never reads while it writes (kd-protocol 1.1), nor do its timers run: it counts from the end of what it
    wrote. So for the target time stands still while its bytes are under way; else a slow line would carry every
    packet several times.
    """

    target: Talker
    baud: int | None = None
    _to_target: Pacer = field(init=False)
    _to_host: Pacer = field(init=False)
    _writing_since: float | None = None
    _written: float = 0.0
    """Seconds that went by while the target was writing."""

    def __post_init__(self) -> None:
        self._to_target, self._to_host = Pacer(self.baud), Pacer(self.baud)

    def send(self, data: bytes, now: float) -> None:
        """Put bytes on the line to the target."""
        self._to_target.send(data, now)

    def receive(self, now: float) -> bytes:
        """Let the target do what is due by now. What has come out of the line at this end; may be empty."""
        ready = self._to_host.arrived(now)
        if self._to_host.next_arrival() is None:
            if self._writing_since is not None:
                self._written += now - self._writing_since
                self._writing_since = None
            self._run(now)
            ready += self._to_host.arrived(now)
        return ready

    def next_time(self, now: float) -> float | None:
        """When to look again, if nothing is sent before; None: never."""
        coming = self._to_host.next_arrival()
        if coming is not None:
            return coming
        due = self.target.next_timeout()
        times = [self._to_target.next_arrival(), None if due is None else due + self._written]
        return min((time for time in times if time is not None), default=None)

    def _run(self, now: float) -> None:
        there = now - self._written
        arrived = self._to_target.arrived(now)
        if arrived:
            self.target.receive_data(arrived, there)
        due = self.target.next_timeout()
        if due is not None and due <= there:
            self.target.handle_timeout(there)
        for chunk in self.target.data_to_send():
            self._to_host.send(chunk, now)
        if self._to_host.next_arrival() is not None:
            self._writing_since = now
