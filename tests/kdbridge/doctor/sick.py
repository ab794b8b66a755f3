"""Sick lines: each sickness a small function on bytes, written for these tests alone and by nobody's codec."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from simulator.target import KdTarget

__all__ = ["SICKNESSES", "Line", "Mangle", "sickness"]

Mangle = Callable[[bytes], bytes]


def _flips(rate: float, draw: random.Random) -> Mangle:
    def mangle(data: bytes) -> bytes:
        out = bytearray(data)
        for at in range(len(out)):
            for bit in range(8):
                if draw.random() < rate:
                    out[at] ^= 1 << bit
        return bytes(out)

    return mangle


def _drops(rate: float, draw: random.Random) -> Mangle:
    return lambda data: bytes(byte for byte in data if draw.random() >= rate)


def _overrun(rate: float, draw: random.Random) -> Mangle:
    def mangle(data: bytes) -> bytes:
        out, at = bytearray(), 0
        while at < len(data):
            if draw.random() < rate:
                at += draw.randint(8, 32)
            else:
                out.append(data[at])
                at += 1
        return bytes(out)

    return mangle


def _inserts(rate: float, draw: random.Random) -> Mangle:
    def mangle(data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if draw.random() < rate:
                out.append(draw.randrange(256))
            out.append(byte)
        return bytes(out)

    return mangle


def _parity(data: bytes) -> bytes:
    return bytes(byte & 127 | ((byte & 127).bit_count() % 2) << 7 for byte in data)


def _waved(sent: int, read: int, inverted: bool) -> Mangle:
    """Sampled from a drawing of the line, four points for each of the faster side's bits."""
    fine = 4 * max(sent, read)

    def mangle(data: bytes) -> bytes:
        bit = fine // sent
        idle = [1] * (20 * bit)
        drawn = list(idle)
        for byte in data:
            for level in (0, *((byte >> k) & 1 for k in range(8)), 1):
                drawn += [level] * bit
        drawn += idle
        if inverted:
            drawn = [1 - level for level in drawn]
        width = fine / read
        out, at = bytearray(), 1
        while at < len(drawn):
            if not (drawn[at - 1] == 1 and drawn[at] == 0):
                at += 1
                continue
            points = [int(at + (k + 1.5) * width) for k in range(8)]
            out.append(sum((drawn[p] if p < len(drawn) else drawn[-1]) << k for k, p in enumerate(points)))
            at += int(9.5 * width)
        return bytes(out)

    return mangle


def _packets(share: float, draw: random.Random, what: Callable[[bytes], bytes]) -> Mangle:
    """The target writes one packet at a time."""
    return lambda data: what(data) if draw.random() < share else data


def sickness(name: str, draw: random.Random) -> tuple[Mangle, Mangle]:
    """What is done to bytes on their way to the host, and to the target. A severity is drawn where there is one."""

    def whole(data: bytes) -> bytes:
        return data

    def nothing(data: bytes) -> bytes:
        return b""

    one = {
        "flips": lambda: _flips(draw.choice([1e-4, 1e-3, 5e-3, 2e-2]), draw),
        "drops": lambda: _drops(draw.choice([1e-3, 1e-2, 4e-2]), draw),
        "overrun": lambda: _overrun(draw.choice([3e-3, 1e-2]), draw),
        "inserts": lambda: _inserts(draw.choice([1e-3, 1e-2]), draw),
        "loss": lambda: _packets(0.3, draw, nothing),
        "twice": lambda: _packets(0.4, draw, lambda data: data + data),
        "cut": lambda: _packets(0.5, draw, lambda data: data[: draw.randrange(len(data) + 1)]),
        "xonxoff": lambda: lambda data: data.translate(None, b"\x11\x13"),
        "crlf": lambda: lambda data: data.replace(b"\n", b"\r\n"),
        "cr-as-lf": lambda: lambda data: data.replace(b"\r", b"\n"),
        "seven-bit": lambda: lambda data: bytes(byte & 127 for byte in data),
        "parity": lambda: _parity,
        "inverted": lambda: _waved(115200, 115200, inverted=True),
    }
    if name in one:
        return one[name](), one[name]()
    if name == "iac":
        return lambda data: data.replace(b"\xff", b"\xff\xff"), whole
    if name.startswith("baud"):
        other = int(name.removeprefix("baud"))
        return _waved(other, 115200, inverted=False), _waved(115200, other, inverted=False)
    if name == "deaf":
        return whole, nothing
    if name == "mute":
        return nothing, whole
    if name == "flips-to-target":
        return whole, _flips(draw.choice([2e-4, 3e-3]), draw)
    return whole, whole


SICKNESSES = (
    "", "flips", "drops", "overrun", "inserts", "loss", "twice", "cut", "xonxoff", "crlf", "cr-as-lf", "seven-bit",
    "parity", "inverted", "iac", "baud57600", "baud38400", "baud19200", "baud9600", "baud230400", "deaf", "mute",
    "flips-to-target", "echo", "latency", "login", "sac", "debugger",
)  # fmt: skip

_TEXTS: dict[str, tuple[bytes, ...]] = {
    "login": (b"\r\nUbuntu 22.04.3 LTS server ttyS0\r\n\r\nserver login: ",),
    "sac": (b"\r\nComputer is booting, SAC started and initialized.\r\nSAC>",),
    # kd-protocol 1.16, worked bytes: an acknowledge, and a ReadVirtual of another debugger.
    "debugger": (
        bytes.fromhex("69696969 0400 0000 00008080 00000000"),
        bytes.fromhex("30303030 0200 3800 01008080 09040000 30310000")
        + bytes(12) + bytes.fromhex("00000000 80F7FFFF 30030000") + bytes(28) + b"\xaa",
        bytes.fromhex("69696969 0400 0000 01008080 00000000"),
    ),
}  # fmt: skip
_EVERY = 1.7
_BYTE = 10 / 115200
"""Seconds."""


@dataclass
class Line:
    """A Transport to a target over a sick line of 115200 baud."""

    target: KdTarget
    sick: str = ""
    seed: int = 0
    url: str = "serial:/dev/ttyUSB0"
    notes: tuple[str, ...] = ()
    heard: bytearray = field(default_factory=bytearray)
    """All that came out at the host's end."""
    clean: bytearray = field(default_factory=bytearray)
    """What it would have been on a healthy line."""
    sent: list[bytes] = field(default_factory=list)
    lost: bool = False
    """Something that was sent did not arrive as it was sent."""

    def __post_init__(self) -> None:
        self._to_host, self._to_target = sickness(self.sick, random.Random(f"{self.seed} {self.sick}"))
        self._coming: list[tuple[float, bytes]] = []
        self._going: list[tuple[float, bytes]] = []
        self._free = [0.0, 0.0]
        self._next = random.Random(self.seed).uniform(0.1, 1.0)
        self._turn = 0
        self._news = trio.Event()

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(data)
        now = trio.current_time()
        at = self._through(0, data, now)
        if self.sick == "echo":
            self._coming.append((at, data))
        arrived = self._to_target(data)
        self.lost |= arrived != data
        if arrived:
            self._going.append((at, arrived))
        self._news.set()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            now = trio.current_time()
            self._collect(now)
            ready = b"".join(data for at, data in self._coming if at <= now)
            self._coming = [(at, data) for at, data in self._coming if at > now]
            if ready:
                self.heard += ready
                return ready
            due = self.target.next_timeout()
            times = [at for at, _ in (*self._coming, *self._going)] + ([] if due is None else [due])
            if self.sick in _TEXTS:
                times.append(self._next)
            self._news = trio.Event()
            with trio.CancelScope(deadline=max(now + 1e-6, min(times, default=float("inf")))):
                await self._news.wait()

    async def aclose(self) -> None:
        return

    def _through(self, way: int, data: bytes, now: float) -> float:
        self._free[way] = max(self._free[way], now) + len(data) * _BYTE
        return self._free[way]

    def _collect(self, now: float) -> None:
        for at, data in self._going:
            if at <= now:
                self.target.receive_data(data, now)
        self._going = [(at, data) for at, data in self._going if at > now]
        due = self.target.next_timeout()
        if due is not None and due <= now:
            self.target.handle_timeout(now)
        late = 0.016 if self.sick == "latency" else 0.0
        for chunk in self.target.data_to_send():
            self.clean += chunk
            self._coming.append((self._through(1, chunk, now) + late, self._to_host(chunk)))
        if self.sick in _TEXTS and now >= self._next:
            self._next = now + _EVERY
            said = _TEXTS[self.sick]
            self._coming.append((self._through(1, b"", now), said[self._turn % len(said)]))
            self._turn += 1
