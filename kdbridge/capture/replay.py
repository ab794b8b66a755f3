"""replay: a machine that was recorded, as a target that answers again. It can only be read.

replay:FILE[?key=w.x.y.z&keyfile=PATH&stop=N]

Whatever the recording was made on, the machine answers over a serial line here: it says why it stopped, and gives what
the recording holds. `stop` chooses among several stops, numbered from 1; else it is the one that was asked most.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import trio

from kdbridge.errors import FileError, UsageError
from kdbridge.transports.address import TargetAddress
from kdbridge.transports.net_key import VARIABLE, find_any_key
from protocol.errors import RemoteProtocolError
from protocol.kdcom import KdcomLink
from protocol.kdnet import ControlKey
from protocol.kdnet.control import Poke
from protocol.link import Discard, PacketReceived, ResendAsked, Role
from protocol.manipulate import HEADER_SIZE, NO_REPLY, ApiNumber, Manipulate
from protocol.packet import SYNC_PACKET_ID, PacketType

from .conversation import Conversation
from .decoded import DecodedPacket, Kind, Odd
from .frames import Medium
from .reader import read_frames
from .recorded import RecordedPacket, RecordedStop, stops_of

__all__ = ["RecordedMachine", "ReplayTransport", "open_replay"]

_TAKEN = {Kind.STATE_CHANGE64: PacketType.STATE_CHANGE64, Kind.STATE_MANIPULATE: PacketType.STATE_MANIPULATE}
_MEMORY = (ApiNumber.READ_VIRTUAL_MEMORY, ApiNumber.READ_PHYSICAL_MEMORY)


class RecordedMachine:
    """The target's end of a line, of a machine that stands where it was recorded. No clock of its own."""

    def __init__(self, stop: RecordedStop) -> None:
        self._stop = stop
        self._link = KdcomLink(Role.TARGET)
        self._reporting = False
        self._started = False
        self.missing_memory = 0
        """Requests for memory that the recording does not hold."""
        self.first_missing = ""
        """The first of them, in words."""
        self.refusal = ""
        """What the recording lacks for the last answer, where that is no memory; empty: nothing."""

    def receive_data(self, chunk: bytes, now: float) -> None:
        """Bytes from the debugger."""
        self._link.receive_data(chunk, now)
        self._drain(now)

    def data_to_send(self) -> list[bytes]:
        """What is to be written now."""
        return self._link.data_to_send()

    def next_timeout(self) -> float | None:
        """When handle_timeout wants to be called."""
        return self._link.next_timeout() if self._started else 0.0

    def handle_timeout(self, now: float) -> None:
        """Say why it stopped; send again what was not acknowledged."""
        if not self._started:
            self._started = True
            self._report(now)
        self._link.handle_timeout(now)
        self._drain(now)

    def _report(self, now: float) -> None:
        if self._link.idle:
            self._link.send_packet(PacketType.STATE_CHANGE64, self._stop.state_change, now, tries=0)

    def _drain(self, now: float) -> None:
        while (event := self._link.next_event()) is not None:
            if isinstance(event, ResendAsked):
                self._report(now)
            elif isinstance(event, PacketReceived) and len(event.payload) >= HEADER_SIZE:
                self._answer(Manipulate.decode(event.payload), now)

    def _answer(self, request: Manipulate, now: float) -> None:
        answer = self._stop.answer(request)
        self.refusal = answer.missing
        if answer.missing and request.api in _MEMORY:
            self.missing_memory += 1
            self.first_missing = self.first_missing or answer.missing
            self.refusal = ""
        if request.api not in NO_REPLY and self._link.idle:
            self._link.send_packet(PacketType.STATE_MANIPULATE, answer.reply.encode(), now, tries=0)


class ReplayTransport:
    """A line to a recorded machine. Time passes for it while somebody receives."""

    def __init__(self, url: str, machine: RecordedMachine, notes: tuple[str, ...]) -> None:
        self._url = url
        self._machine = machine
        self._notes = notes
        self.tell: Callable[[str], None] = lambda text: None
        """Is told in words when memory is asked for that the recording does not hold."""
        self._told = False
        self._sent = trio.Event()

    @property
    def url(self) -> str:
        """As it was asked for. A key is masked."""
        return self._url

    @property
    def notes(self) -> tuple[str, ...]:
        """Which recording, and which of its stops."""
        return self._notes

    def refusal(self) -> str:
        """Why the last answer was a refusal, where that is because of the recording; empty: it is not."""
        return self._machine.refusal

    async def send(self, data: bytes) -> None:
        """Put bytes on the line."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._machine.receive_data(data, trio.current_time())
        self._sent.set()
        if self._machine.missing_memory and not self._told:
            self._told = True
            self.tell(f"{self._machine.first_missing}; memory that it does not hold counts as unreadable")

    async def receive(self) -> bytes:
        """The next bytes from the machine."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            data = self.receive_within(0)
            if data:
                return data
            wake = self._machine.next_timeout()
            self._sent = trio.Event()
            with trio.CancelScope(deadline=inf if wake is None else wake):
                await self._sent.wait()

    def receive_within(self, seconds: float) -> bytes | None:
        """What the machine says now: it needs no time."""
        now = trio.current_time()
        due = self._machine.next_timeout()
        if due is not None and due <= now:
            self._machine.handle_timeout(now)
        return b"".join(self._machine.data_to_send()) or None

    async def aclose(self) -> None:
        """Say how often the recording could not answer."""
        if (count := self._machine.missing_memory) > 1:
            self.tell(f"{count} requests were for memory that the recording does not hold")


def open_replay(address: TargetAddress) -> ReplayTransport:
    """Read the recording. Raises FileError, UsageError for a key or a stop that it does not have."""
    key, notes = find_any_key(address, os.environ)
    told: list[str] = []
    stops = [stop for stop in stops_of(_packets(address, key, told.append)) if _is_stop(stop)]
    if not stops:
        raise FileError(
            f"{address.url}: the recording holds no machine that stopped; kdbridge decode shows what it holds"
        )
    number = _chosen(address, stops)
    stop = stops[number - 1]
    place = f"stopped at {stop.change.program_counter:#x}, {stop.replies} answers"
    which = f"stop {number} of {len(stops)}: {place}" if len(stops) > 1 else place
    hint = "; stop=N takes another" if len(stops) > 1 else ""
    return ReplayTransport(
        address.url, RecordedMachine(stop), (f"a recording of a machine: {which}{hint}", *notes, *told)
    )


def _packets(address: TargetAddress, key: ControlKey | None, report: Callable[[str], None]) -> Iterator[RecordedPacket]:
    conversation = Conversation(key)
    lives: set[bytes] = set()
    closed = 0
    replies = new_life = False
    for frame in read_frames(Path(address.place), report=report):
        for packet in conversation.feed(frame):
            closed += packet.kind is Kind.OPAQUE
            if isinstance(packet.message, Poke):
                new_life = new_life or (bool(lives) and packet.message.life not in lives)
                lives.add(packet.message.life)
            if packet.kind not in _TAKEN or _is_dropped(packet):
                continue
            if packet.kind is Kind.STATE_CHANGE64:
                # Over a serial line, a first packet once more (kd-protocol 1.6); over a network, its poke told.
                synchronizes = packet.medium is Medium.SERIAL and bool((packet.id or 0) & SYNC_PACKET_ID)
                new_life = new_life or (synchronizes and replies)
                replies = False
            replies = replies or (packet.kind is Kind.STATE_MANIPULATE and not packet.to_target)
            kind = _TAKEN[packet.kind]
            yield RecordedPacket(packet.time, bool(packet.to_target), kind, packet.payload, new_life)
            new_life = False
    if closed and not conversation.genuine:
        if key is None:
            raise UsageError(
                f"{address.place} is encrypted: write {address.url}?key=w.x.y.z, or put its key into {VARIABLE}"
            )
        raise UsageError(f"{address.place}: none of {closed} datagrams authenticates; that machine had another key")


def _is_dropped(packet: DecodedPacket) -> bool:
    """No receiver takes it. Whether it answers anything is found out here once more."""
    return any(odd.kind is Odd.DISCARD and odd.reason is not Discard.STALE_REPLY for odd in packet.oddities)


def _chosen(address: TargetAddress, stops: list[RecordedStop]) -> int:
    wanted = dict(address.options).get("stop")
    if wanted is None:
        return 1 + max(range(len(stops)), key=lambda index: (stops[index].replies, -index))
    if not 1 <= int(wanted) <= len(stops):
        raise UsageError(f"{address.url}: there is no stop {wanted} in this recording; it has {len(stops)}")
    return int(wanted)


def _is_stop(stop: RecordedStop) -> bool:
    try:
        return bool(stop.change)
    except RemoteProtocolError:
        return False
