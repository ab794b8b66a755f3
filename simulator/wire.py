"""A serial line: its speed, when bytes that are sent now arrive at the other end, and what is wrong with it.

No clock of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from .damage import FaultyLine, Piece
from .faults import LineFaults

__all__ = ["Pacer", "Resettable", "Talker", "Wire"]

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
            self._queue.append((max(now, self._free_at), data))
            return
        a_byte = _BITS_A_BYTE / self.baud
        step = max(1, int(self.lump / a_byte))
        at = max(now, self._free_at)
        for start in range(0, len(data), step):
            part = data[start : start + step]
            at += len(part) * a_byte
            self._queue.append((at, part))
        self._free_at = at

    def send_pieces(self, pieces: Sequence[Piece], written: int, now: float) -> None:
        """Put on the line what became of so many bytes. Those that got lost took their time too."""
        come = 0
        for pause, part in pieces:
            come += len(part)
            self._free_at = max(now, self._free_at) + pause
            self.send(part, now)
        if come < written and self.baud is not None:
            self._free_at = max(now, self._free_at) + (written - come) * _BITS_A_BYTE / self.baud
            self._queue.append((self._free_at, b""))

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


@runtime_checkable
class Resettable(Protocol):
    """A talker with a reset button."""

    def reset(self, now: float) -> None:
        """Begin a new life."""
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
    faults: LineFaults | FaultyLine | None = None
    """What is wrong with the line; a FaultyLine goes on where it was on the wire before."""
    _to_target: Pacer = field(init=False)
    _to_host: Pacer = field(init=False)
    _line: FaultyLine | None = field(init=False)
    _beside: Pacer = field(init=False)
    """What comes to the host and not from the target."""
    _adapter: deque[tuple[float, bytes]] = field(default_factory=deque)
    """What has come to the host's adapter, and when it hands it on."""
    _writing_since: float | None = None
    _written: float = 0.0
    """Seconds that went by while the target was writing."""

    def __post_init__(self) -> None:
        self._to_target, self._to_host, self._beside = Pacer(self.baud), Pacer(self.baud), Pacer(self.baud)
        faults = self.faults
        if isinstance(faults, LineFaults):
            faults = None if faults == LineFaults(seed=faults.seed) else FaultyLine(faults, self.baud)
        self._line = faults

    def send(self, data: bytes, now: float) -> None:
        """Put bytes on the line to the target."""
        if self._line is None:
            self._to_target.send(data, now)
            return
        self._to_target.send_pieces(self._line.to_target(data, now), len(data), now)
        if self._line.faults.echo and not self._line.dead(now):
            self._beside.send(data, now)

    def receive(self, now: float) -> bytes:
        """Let the target do what is due by now. What has come out of the line at this end; may be empty."""
        if self._line is not None:
            self._happen(self._line, now)
        ready = self._to_host.arrived(now)
        if self._to_host.next_arrival() is None:
            if self._writing_since is not None:
                self._written += now - self._writing_since
                self._writing_since = None
            self._run(now)
            ready += self._to_host.arrived(now)
        return ready if self._line is None else self._handed_on(self._line, ready, now)

    def next_time(self, now: float) -> float | None:
        """When to look again, if nothing is sent before; None: never."""
        coming = self._to_host.next_arrival()
        if coming is not None:
            times: list[float | None] = [coming]
        else:
            due = self.target.next_timeout()
            times = [self._to_target.next_arrival(), None if due is None else due + self._written]
        if self._line is not None:
            held = self._adapter[0][0] if self._adapter else None
            times += [held, self._beside.next_arrival(), self._line.next_time(now)]
        return min((time for time in times if time is not None), default=None)

    def _happen(self, line: FaultyLine, now: float) -> None:
        """What happens on the line by itself."""
        to_host, to_target = line.others(now)
        if to_host:
            self._beside.send(to_host, now)
        if to_target:
            self._to_target.send(to_target, now)
        if line.restarts(now) and isinstance(self.target, Resettable):
            self._to_target, self._to_host = Pacer(self.baud), Pacer(self.baud)
            self.target.reset(now - self._written)

    def _handed_on(self, line: FaultyLine, ready: bytes, now: float) -> bytes:
        for part in (self._beside.arrived(now), ready):
            if part and not line.dead(now):
                self._adapter.append((now + line.faults.latency / 1000, part))
        out = b""
        while self._adapter and self._adapter[0][0] <= now:
            out += self._adapter.popleft()[1]
        return out

    def _run(self, now: float) -> None:
        there = now - self._written
        arrived = self._to_target.arrived(now)
        if arrived and (self._line is None or not self._line.dead(now)):
            self.target.receive_data(arrived, there)
        due = self.target.next_timeout()
        # Added up as next_time does: what is due by that sum is due, and not a rounding error later.
        if due is not None and due + self._written <= now:
            self.target.handle_timeout(max(there, due))
        for chunk in self.target.data_to_send():
            if self._line is None:
                self._to_host.send(chunk, now)
                continue
            self._to_host.send_pieces(self._line.to_host(chunk, now), len(chunk), now)
        if self._to_host.next_arrival() is not None:
            self._writing_since = now
