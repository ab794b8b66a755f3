"""Gentle probes: RESET, which a running target does not notice, and GetVersion, which changes nothing.

Never a break-in, never a continue, never a write, never an answer to what a target asks. A module load is not even
acknowledged: the target would wait there for somebody to continue it.
"""

from __future__ import annotations

from collections import Counter
from math import inf

import trio

from kdbridge.overheard import Overheard
from kdbridge.transports import DatagramTransport, Transport
from protocol.kdcom import KdcomLink
from protocol.link import Link, PacketAcknowledged, PacketFailed, PacketReceived, Role
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import (
    CONTROL_PACKET_LEADER,
    INITIAL_PACKET_ID,
    LARGEST_PAYLOAD_ACCEPTED,
    PacketType,
    encode_control,
    encode_data,
)
from protocol.state_change import NewState

from .listening import Progress
from .signs import Probed

__all__ = ["probe", "probe_network"]

_RESETS = 3
_MOST_SENT = 30_000
"""Bytes; more is no probing any more, but a storm: each end answers what the other one answered."""
_WAIT = 2.0
"""Seconds to wait for what a RESET brings; a target repeats itself every second."""
_PATTERNS = {
    "": bytes(8),
    "0A": bytes.fromhex("0a010a010a020a01"),
    "0D": bytes.fromhex("0d010d000d020d01"),
    "11 and 13": bytes.fromhex("1113110111131301"),
    "FF": bytes.fromhex("ff01ff02ff01ff03"),
    "80 to FE": bytes.fromhex("80fe8b9ca5d7e6c1"),
}
"""What a line may eat, double or translate, each kind in questions of its own. It stands where nobody looks: in the
processor of a GetVersion (WinDbg has FFFF there), its padding and its unused union; a target echoes the first two."""
_ROUNDS = 2
_QUIET = 1.5
_MOST_UNANSWERED = 6
_PATIENCE = 4.0
"""Seconds to wait for one answer."""
_MARK = 0x0052_4F44
"""In the second RESET's id, at which no target looks: by it we know our own again. No break-in byte is in it."""
_BITS_A_BYTE = 10


class _Prober:
    """One end of a link, with every byte noted."""

    def __init__(self, way: Transport, overheard: Overheard) -> None:
        self._way, self.overheard = way, overheard
        self._origin = trio.current_time() - overheard.seconds
        self._network = isinstance(way, DatagramTransport)
        self.link: Link = way.link if isinstance(way, DatagramTransport) else KdcomLink(Role.HOST)
        self._packets = 0
        self.free_at = self.now
        """When the line has carried what was sent."""
        self.done = False
        """Nothing more may be said: a module load came, or a storm broke out."""

    @property
    def now(self) -> float:
        return trio.current_time()

    async def send(self, data: bytes) -> None:
        if not self._network:
            self.overheard.add(self.now - self._origin, True, data)
        self.free_at = max(self.free_at, self.now) + self.carrying(len(data))
        await self._way.send(data)

    def carrying(self, count: int) -> float:
        """Seconds that the line takes for so many bytes."""
        return count * _BITS_A_BYTE / self.overheard.baud if self.overheard.baud else 0.0

    async def until(self, seconds: float) -> list[PacketReceived | PacketAcknowledged | PacketFailed]:
        """What happens next; empty: nothing did within this time."""
        deadline = self.now + seconds
        while True:
            seen = self._taken()
            # What is a module load must not be acknowledged: then nothing more is said.
            if self.done or self.overheard.counted[True] > _MOST_SENT:
                self.done = True
                return []
            for data in self.link.data_to_send():
                # Resets are sent by `reset` alone: on a line that echoes, an answer to one would be answered for ever.
                if self._network or not _is_reset(data):
                    await self.send(data)
            if seen or self.now >= deadline:
                return seen
            due = self.link.next_timeout()
            with trio.CancelScope(deadline=min(deadline, inf if due is None else due)):
                data = await self._way.receive()
                if not self._network:
                    self.overheard.add(self.now - self._origin, False, data)
                    self.link.receive_data(data, self.now)
                continue
            self.link.handle_timeout(self.now)

    def _taken(self) -> list[PacketReceived | PacketAcknowledged | PacketFailed]:
        seen: list[PacketReceived | PacketAcknowledged | PacketFailed] = []
        while (event := self.link.next_event()) is not None:
            if self._network and isinstance(event, PacketReceived):
                self._note(event)
            if isinstance(event, PacketReceived) and _is_load(event):
                self.done = True
            elif isinstance(event, (PacketReceived, PacketAcknowledged, PacketFailed)):
                seen.append(event)
        return seen

    def _note(self, packet: PacketReceived) -> None:
        """What came in datagrams, as a line would have carried it."""
        self._packets += 1
        packet_id = INITIAL_PACKET_ID | self._packets & 1
        data = encode_data(packet.packet_type, packet_id, packet.payload[:LARGEST_PAYLOAD_ACCEPTED])
        self.overheard.add(self.now - self._origin, False, data)

    async def reset(self, mark: int = 0) -> None:
        """Ask a stopped target to begin anew."""
        self.link.send_reset(self.now)
        if not self._network:
            self.link.data_to_send()
            await self.send(encode_control(PacketType.RESET, mark))

    def noted(self) -> None:
        """How long it took."""
        self.overheard.seconds = max(self.overheard.seconds, self.now - self._origin)


async def probe(way: Transport, overheard: Overheard, progress: Progress) -> Probed:
    """Ask a stopped target to repeat itself, and then who it is, some times. TransportLostError as it comes."""
    return await _probe(_Prober(way, overheard), overheard, progress)


async def probe_network(way: DatagramTransport, overheard: Overheard, seconds: float, progress: Progress) -> Probed:
    """The same over a network, where nothing is heard without an answer, after so many seconds. `overheard` gets the
    packets as a line would have carried them."""
    prober = _Prober(way, overheard)
    stopped = False
    deadline = prober.now + seconds
    while prober.now < deadline and not prober.done:
        seen = await prober.until(deadline - prober.now)
        stopped |= any(isinstance(one, PacketReceived) and _is_stop(one) for one in seen)
    prober.noted()
    if prober.done or way.explain() is not None:
        return Probed()
    return await _probe(prober, overheard, progress, stopped=stopped)


async def _probe(prober: _Prober, overheard: Overheard, progress: Progress, *, stopped: bool = False) -> Probed:
    resets = 0
    while resets < _RESETS and not stopped and not prober.done:
        progress("asking a stopped target to repeat itself (RESET)")
        await prober.reset(_MARK if resets else 0)
        resets += 1
        stopped = await _stopped(prober)
    asked = answered = retried = silently = 0
    late: list[float] = []
    smooth: Counter[str] = Counter()
    for kind in [*_PATTERNS] * _ROUNDS if stopped else ():
        if prober.done or asked - answered > _MOST_UNANSWERED:
            break
        asked += 1
        sent, begun = overheard.counted[True], len(overheard.pieces)
        seconds = await _ask(prober, _question(_PATTERNS[kind]))
        again = overheard.counted[True] - sent > 2 * _LENGTH
        silently += again and not any(_RESEND in piece.data for piece in overheard.pieces[begun:])
        if seconds is None:
            continue
        answered += 1
        retried += again
        smooth[kind] += not again
        if not again:
            late.append(seconds)
    if stopped and not prober.done and (answered < asked or retried):
        # Is it our own voice that is in the way? Ask while all is quiet.
        await prober.until(_QUIET)
        await prober.reset(_MARK)
        resets += 1
        await _stopped(prober)
    prober.noted()
    rough = tuple(kind for kind in _PATTERNS if not smooth[kind])
    whole = asked == len(_PATTERNS) * _ROUNDS and smooth.total() == _ROUNDS * (len(_PATTERNS) - len(rough))
    return Probed(resets, asked, answered, tuple(late), retried, silently, rough if whole else ())


def _question(pattern: bytes) -> bytes:
    level, processor = (int.from_bytes(pattern[at : at + 2], "little") for at in (0, 2))
    return Manipulate(ApiNumber.GET_VERSION, level, processor, padding=pattern[4:], union=pattern * 5).encode()


async def _stopped(prober: _Prober) -> bool:
    """Whether a state change comes, and the line is quiet after it."""
    stopped = False
    deadline = prober.now + _WAIT
    while prober.now < deadline and not prober.done:
        seen = await prober.until(0.2 if stopped else deadline - prober.now)
        stopped |= any(isinstance(one, PacketReceived) and _is_stop(one) for one in seen)
        if stopped and not seen:
            break
    return stopped and prober.link.idle


_LENGTH = 16 + 56 + 1
_TRIES = 3
_RESEND = CONTROL_PACKET_LEADER + PacketType.RESEND.to_bytes(2, "little")


async def _ask(prober: _Prober, question: bytes) -> float | None:
    """Seconds that the answer was late; None: none came."""
    if not prober.link.idle:
        await prober.reset()
        await _stopped(prober)
    started = prober.now
    ahead = max(0.0, prober.free_at - started)
    received = prober.overheard.counted[False]
    prober.link.send_packet(PacketType.STATE_MANIPULATE, question, started, tries=_TRIES)
    deadline = started + _PATIENCE
    while prober.now < deadline and not prober.done:
        for one in await prober.until(deadline - prober.now):
            if isinstance(one, PacketReceived) and one.packet_type == PacketType.STATE_MANIPULATE:
                if not prober.link.idle:
                    prober.link.imply_acknowledge()
                    prober.link.next_event()
                carried = ahead + prober.carrying(_LENGTH + prober.overheard.counted[False] - received)
                return prober.now - started - carried
            if isinstance(one, PacketFailed):
                return None
    return None


def _is_reset(data: bytes) -> bool:
    return data[:6] == CONTROL_PACKET_LEADER + PacketType.RESET.to_bytes(2, "little")


def _is_stop(event: PacketReceived) -> bool:
    return event.packet_type == PacketType.STATE_CHANGE64 and not _is_load(event)


def _is_load(event: PacketReceived) -> bool:
    kind = int.from_bytes(event.payload[:2], "little")
    return event.packet_type == PacketType.STATE_CHANGE64 and kind == NewState.LOAD_SYMBOLS
