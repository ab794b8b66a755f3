"""A bad serial line: what its faults do to the bytes on it, each way. No I/O, no clock of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import inf, log, log1p
from typing import NamedTuple

from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import (
    CONTROL_PACKET_LEADER,
    HEADER,
    INITIAL_PACKET_ID,
    LARGEST_PAYLOAD_ACCEPTED,
    PACKET_LEADER,
    PacketType,
    encode_control,
    encode_data,
)

from .faults import LineFaults
from .waveform import resample

__all__ = ["FaultyLine", "Piece"]

_USUAL_BAUD = 115200
_STALL = 2.0
"""Seconds: longer than anybody waits in the middle of a packet."""
_FIFO = 16
_LONGEST_BURST = 48
"""Bytes at most that are lost while the receiver is late."""
_OTHERS_EVERY = 5.0
"""Seconds from one word of others on the line to their next."""
_TORN = 0.25
"""Seconds after which the rest of a packet does not come any more."""
_MESSAGE = 56
"""Bytes of a manipulate message before its data."""
_IAC = 0xFF


class Piece(NamedTuple):
    """Bytes that go on the line, after so many seconds in which it stands still."""

    pause: float
    data: bytes


class FaultyLine:
    """Both ways of a line that has these faults. One seed is one line."""

    def __init__(self, faults: LineFaults, baud: int | None = None) -> None:
        self.faults = faults
        here, there = baud or _USUAL_BAUD, faults.wrongbaud or baud or _USUAL_BAUD
        self._to_target = _Direction(faults, "target", here, there)
        self._to_host = _Direction(faults, "host", there, here)
        self._origin: float | None = None
        self._others = faults.text.encode("latin-1", "replace")
        self._packets = _packets_of_another_debugger() if faults.debugger else b""
        self._said = 0
        self._restarts = faults.restart

    def to_target(self, data: bytes, now: float) -> list[Piece]:
        """What comes out at the target when the host sends this."""
        if self.dead(now) or self.faults.deaf:
            return []
        return self._to_target.damaged(data, now)

    def to_host(self, data: bytes, now: float) -> list[Piece]:
        """What comes out at the host when the target sends this."""
        if self.dead(now) or self.faults.mute:
            return []
        return self._to_host.damaged(data, now)

    def dead(self, now: float) -> bool:
        """Whether nothing gets through at this moment."""
        die, back = self.faults.die, self.faults.back
        since = self._first_look(now)
        return die is not None and now >= since + die and (back is None or now < since + back)

    def restarts(self, now: float) -> bool:
        """Whether the target is to be reset now: true once."""
        due = self._restarts is not None and now >= self._first_look(now) + self._restarts
        if due:
            self._restarts = None
        return due

    def others(self, now: float) -> tuple[bytes, bytes]:
        """What others on the line have sent by now: what of it comes to the host, and what to the target."""
        silent = not self._others and not self._packets
        if silent or now < self._first_look(now) + self._said * _OTHERS_EVERY:
            return b"", b""
        self._said = int((now - self._first_look(now)) / _OTHERS_EVERY + 1e-6) + 1
        if self.dead(now):
            return b"", b""
        way = self.faults.way
        return self._others + (self._packets if way != "target" else b""), self._packets if way != "host" else b""

    def next_time(self, now: float) -> float | None:
        """When something happens on the line by itself; None: never."""
        times = [] if self._restarts is None else [self._first_look(now) + self._restarts]
        if self._others or self._packets:
            times.append(self._first_look(now) + self._said * _OTHERS_EVERY)
        return min(times, default=None)

    def _first_look(self, now: float) -> float:
        if self._origin is None:
            self._origin = now
        return self._origin


def _packets_of_another_debugger() -> bytes:
    request = Manipulate.request(ApiNumber.GET_VERSION).encode()
    return encode_control(PacketType.RESET) + encode_data(PacketType.STATE_MANIPULATE, INITIAL_PACKET_ID, request)


class _Hits:
    """Which of the bytes (or bits) that go by are hit, if each is with the same probability."""

    def __init__(self, share: float, draw: random.Random) -> None:
        self._share, self._draw = share, draw
        self._next = self._gap()

    def among(self, count: int) -> list[int]:
        """Places of the hits among the next `count`."""
        found: list[int] = []
        while self._next < count:
            found.append(int(self._next))
            self._next += 1 + self._gap()
        self._next -= count
        return found

    def _gap(self) -> float:
        if self._share <= 0:
            return inf
        return 0.0 if self._share >= 1 else float(int(log(1 - self._draw.random()) / log1p(-self._share)))


class _Direction:
    """One way of the line."""

    def __init__(self, faults: LineFaults, receiver: str, sent_at: int, read_at: int) -> None:
        hit = faults.way in ("both", receiver)
        self._faults = faults if hit else LineFaults()
        self._receiver = receiver
        self._speeds = (sent_at, read_at)
        self._draw = random.Random(f"{faults.seed} {receiver}")
        f = self._faults
        self._flips, self._drops, self._inserts, self._late = (
            _Hits(share, random.Random(f"{faults.seed} {receiver} {name}"))
            for name, share in (("flip", f.flip), ("drop", f.drop), ("insert", f.insert), ("overrun", f.overrun))
        )
        self._by_packet = bool(f.loss or f.dup or f.truncate or f.stall or (f.keepsum and receiver == "host"))
        self._held = b""
        self._last = -inf
        self._in_command = False

    def damaged(self, data: bytes, now: float) -> list[Piece]:
        """What is left of this, and when."""
        if not self._by_packet:
            return [Piece(0.0, self._bytes(data))]
        if self._held and now - self._last > _TORN:
            # The sender gave up in the middle of a packet; that is no fault of the line.
            data = self._held + data
            self._held = b""
            return [Piece(0.0, self._bytes(data))]
        self._last = now
        pieces: list[Piece] = []
        for unit in self._units(data):
            pieces += [Piece(pause, self._bytes(part)) for pause, part in self._packet(unit)]
        return pieces

    def _units(self, data: bytes) -> Iterator[bytes]:
        """Packets, and what is between them; the beginning of a packet is kept until its end is here."""
        data = self._held + data
        self._held = b""
        at = 0
        while at < len(data):
            leader = data[at : at + 4]
            if leader not in (PACKET_LEADER, CONTROL_PACKET_LEADER):
                if len(leader) < 4 and any(own.startswith(leader) for own in (PACKET_LEADER, CONTROL_PACKET_LEADER)):
                    self._held = data[at:]
                    return
                found = [place for own in (PACKET_LEADER, CONTROL_PACKET_LEADER) if (place := data.find(own, at)) > 0]
                end = min(found, default=len(data))
            elif len(data) - at < HEADER.size:
                self._held = data[at:]
                return
            else:
                end = at + HEADER.size
                if leader == PACKET_LEADER:
                    count = HEADER.unpack_from(data, at)[2]
                    end += count + 1 if count <= LARGEST_PAYLOAD_ACCEPTED else 0
                if end > len(data):
                    self._held = data[at:]
                    return
            yield data[at:end]
            at = end

    def _packet(self, unit: bytes) -> Iterator[tuple[float, bytes]]:
        faults, draw = self._faults, self._draw.random
        # As many draws for each packet, whatever comes of them: one fault does not move the others.
        lost, twice, cut, stands, wrong, place = draw(), draw(), draw(), draw(), draw(), draw()
        if lost < faults.loss:
            return
        if wrong < faults.keepsum and self._receiver == "host":
            unit = self._same_sum(unit)
        middle = int(place * len(unit))
        if cut < faults.truncate:
            yield 0.0, unit[:middle]
        elif stands < faults.stall:
            yield 0.0, unit[:middle]
            yield _STALL, unit[middle:]
        else:
            yield 0.0, unit
        if twice < faults.dup:
            yield 0.0, unit

    def _same_sum(self, packet: bytes) -> bytes:
        first, last = HEADER.size + _MESSAGE, len(packet) - 1
        if packet[:4] != PACKET_LEADER or packet[4] != PacketType.STATE_MANIPULATE or last - first < 2:
            return packet
        changed = bytearray(packet)
        pairs = random.Random(self._draw.random())
        for _ in range(64):
            up, down = pairs.sample(range(first, last), 2)
            most = min(255 - changed[up], changed[down])
            if most:
                by = pairs.randint(1, most)
                changed[up] += by
                changed[down] -= by
                break
        else:
            # All bytes are alike, 00 or FF: none can go down, or none up.
            return packet
        return bytes(changed)

    def _bytes(self, data: bytes) -> bytes:
        faults = self._faults
        if faults.xonxoff:
            data = data.translate(None, b"\x11\x13")
        if faults.iac:
            data = data.replace(b"\xff", b"\xff\xff") if self._receiver == "host" else self._obeyed(data)
        if faults.crlf:
            data = data.replace(b"\n", b"\r\n")
        if faults.sevenbit:
            data = bytes(byte & 0x7F for byte in data)
        if faults.parity:
            data = bytes(byte & 0x7F | ((byte & 0x7F).bit_count() & 1) << 7 for byte in data)
        sent_at, read_at = self._speeds
        if faults.inverted or (faults.wrongbaud and sent_at != read_at):
            data = resample(data, sent_at, read_at, inverted=faults.inverted)
        if faults.overrun:
            data = self._overrun(data)
        if faults.drop:
            data = _without(data, self._drops.among(len(data)))
        if faults.insert:
            data = self._with_noise(data)
        if faults.flip:
            data = self._flipped(data)
        return data

    def _obeyed(self, data: bytes) -> bytes:
        """A telnet server's way with FF: two of them are one, with another byte behind it, it is a command."""
        out = bytearray()
        for byte in data:
            if self._in_command:
                self._in_command = False
                if byte == _IAC:
                    out.append(byte)
            elif byte == _IAC:
                self._in_command = True
            else:
                out.append(byte)
        return bytes(out)

    def _overrun(self, data: bytes) -> bytes:
        gone: set[int] = set()
        for at in self._late.among(len(data)):
            start = at + _FIFO
            gone.update(range(start, min(len(data), start + self._draw.randint(1, _LONGEST_BURST))))
        return _without(data, sorted(gone))

    def _with_noise(self, data: bytes) -> bytes:
        out = bytearray()
        done = 0
        for at in self._inserts.among(len(data)):
            out += data[done:at]
            out.append(self._draw.randrange(256))
            done = at
        return bytes(out + data[done:])

    def _flipped(self, data: bytes) -> bytes:
        hits = self._flips.among(8 * len(data))
        if not hits:
            return data
        changed = bytearray(data)
        for bit in hits:
            changed[bit >> 3] ^= 1 << (bit & 7)
        return bytes(changed)


def _without(data: bytes, places: list[int]) -> bytes:
    if not places:
        return data
    kept = bytearray(data)
    for place in reversed(places):
        del kept[place]
    return bytes(kept)
