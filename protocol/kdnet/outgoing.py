"""The packet that is on its way: its id, how often it was sent, when it is due again."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import LocalProtocolError
from protocol.link import LinkTimers
from protocol.packet import encode_data

from .packet import next_id

__all__ = ["Outgoing"]

_MOST_RESENDS = 50


@dataclass(slots=True)
class _Packet:
    packet_type: int
    payload: bytes
    tries_left: int
    endless: bool
    sent_at: float
    tries: int = 1
    resends: int = 0
    on_the_way: bool = False


class Outgoing:
    """At most one packet at a time. An id that was ever sent names that packet for good, delivered or not."""

    def __init__(self, timers: LinkTimers, first_id: int) -> None:
        self.next_id = first_id
        """The id of the packet that waits, or of the next one."""
        self.contact = False
        """Whether the peer ever acknowledged anything."""
        self._timers = timers
        self._packet: _Packet | None = None

    @property
    def idle(self) -> bool:
        """Nothing waits for its acknowledge."""
        return self._packet is None

    @property
    def due(self) -> float | None:
        """When what waits is to be sent again."""
        return None if self._packet is None else self._packet.sent_at + self._timers.acknowledge

    def begin(self, packet_type: int, payload: bytes, now: float, tries: int | None) -> bytes:
        """Take on a packet; its bytes. `tries` 0: for ever. None: fewer before the first contact than after it."""
        if self._packet is not None:
            raise LocalProtocolError("a packet is outstanding: KD is stop-and-wait, one packet at a time")
        if tries is None:
            tries = self._timers.tries if self.contact else self._timers.first_tries
        self._packet = _Packet(packet_type, payload, tries, tries == 0, now)
        return self._encoded(self._packet)

    def sent(self) -> None:
        """It went out: the peer may have it."""
        if self._packet is not None:
            self._packet.on_the_way = True

    def again(self, now: float) -> bytes | None:
        """The bytes of what waits, under the same id."""
        if self._packet is None:
            return None
        self._packet.sent_at = now
        return self._encoded(self._packet)

    def asked_again(self) -> bool:
        """The peer asks for it. False: it did so too often."""
        if self._packet is not None:
            self._packet.resends += 1
        return self._packet is None or self._packet.resends <= _MOST_RESENDS

    def overdue(self) -> bool:
        """One try went by without an acknowledge. True: it was the last."""
        packet = self._packet
        if packet is None:
            return False
        packet.tries_left -= 1
        if packet.tries_left <= 0 and not packet.endless:
            return True
        packet.tries += 1
        return False

    def acknowledged(self) -> None:
        """It arrived."""
        self._packet = None
        self.contact = True
        self.next_id = next_id(self.next_id)

    def drop(self) -> int:
        """Give it up; how often it was tried."""
        packet, self._packet = self._packet, None
        if packet is None:
            return 0
        if packet.on_the_way:
            self.next_id = next_id(self.next_id)
        return packet.tries

    def restart(self, first_id: int) -> None:
        """Begin anew, as if nothing had ever been sent."""
        self._packet = None
        self.contact = False
        self.next_id = first_id

    def _encoded(self, packet: _Packet) -> bytes:
        return encode_data(packet.packet_type, self.next_id, packet.payload, trailer=False)
