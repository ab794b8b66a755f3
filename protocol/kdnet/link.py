"""KdnetLink: stop-and-wait over datagrams, both ends (kdnet 5).

Only what the channel found genuine and new gets here. Ids go up by two, name a packet for good, and tell what is
new from what is repeated; the two ends differ in what they do when a packet went astray.
"""

from __future__ import annotations

from collections import deque

from protocol.framing import ControlFrame, DataFrame
from protocol.link import (
    BreakInSeen,
    Discard,
    LinkEvent,
    LinkRestarted,
    LinkTimers,
    PacketAcknowledged,
    PacketFailed,
    PacketReceived,
    ResendAsked,
    Role,
)
from protocol.manipulate import HEADER_SIZE
from protocol.packet import BREAK_IN_BYTE, PacketType, encode_control

from .datagram import largest_payload
from .facts import Address, KdnetFacts
from .host import HostChannel
from .outgoing import Outgoing
from .packet import FIRST_HOST_ID, FIRST_TARGET_ID, ConnectionCheck, is_newer, next_id, read_packet
from .session import Renewal
from .target import TargetChannel

__all__ = ["KdnetLink"]

_AGAIN = 0.5
"""Seconds after which either end repeats what was not acknowledged (kdnet 5.2)."""
_MOST_POLLED = 64


class KdnetLink:
    """One end of a KDNET conversation. See `protocol.link` for the contract, and this package for who calls what."""

    def __init__(self, channel: HostChannel | TargetChannel, timers: LinkTimers | None = None) -> None:
        self.role = channel.role
        if timers is None:
            # As over a serial line: a target's notifications have 5 tries before first contact, and 20 after.
            host = self.role is Role.HOST
            timers = LinkTimers(acknowledge=_AGAIN, tries=10 if host else 20, first_tries=10 if host else 5)
        self._channel = channel
        self._first_id = FIRST_HOST_ID if self.role is Role.HOST else FIRST_TARGET_ID
        self._sending = Outgoing(timers, self._first_id)
        self._events: deque[LinkEvent] = deque()
        self._outbox: list[bytes] = []
        # None: whatever comes first is taken.
        self._expected: int | None = None
        # Host.
        self._awaiting_reset = False
        self._surplus_resets = 0
        self._answered_reset = False
        self._synchronized = False
        # Target.
        self._wanted = PacketType.STATE_MANIPULATE
        self._polling = False
        self._polled: deque[bytes] = deque()

    # ---- state that a caller may look at -------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """No packet of ours waits for its acknowledge."""
        return self._sending.idle

    @property
    def synchronized(self) -> bool:
        """Host: there is a session, and the target takes our next id for the next one.

        It surely does after a RESET that was answered, and in a life whose first packet (id 0) came to us. A target
        that had another debugger before may count on from that one's ids (kdnet 5.2).
        """
        return self._synchronized

    @property
    def peer(self) -> Address | None:
        """Where the other end is: what `data_to_send` gives goes there. None: there is no session."""
        return self._channel.peer

    @property
    def version(self) -> int | None:
        """The target's KDNET version; None: not known yet."""
        return self._channel.version

    @property
    def largest_transfer(self) -> int:
        """Data bytes that one manipulate reply carries, as far as this version is known to go (kdnet 6)."""
        version = self._channel.version
        return largest_payload(-1 if version is None else version) - HEADER_SIZE

    @property
    def facts(self) -> KdnetFacts:
        """What has been heard, for whoever waits."""
        return self._channel.facts

    # ---- datagrams -----------------------------------------------------------------------------------------

    def receive_datagram(self, datagram: bytes, source: Address, now: float) -> bool:
        """One datagram. True: it moved the conversation, whose owner is to be woken. False: nothing for it."""
        payload = self._channel.receive(datagram, source, now)
        renewal = self._channel.take_renewal()
        if renewal is not None:
            self._renewed(renewal, now)
        if payload is None:
            return renewal is not None
        if self._polling and self._sending.idle:
            if len(self._polled) >= _MOST_POLLED:
                self._discard(Discard.POLLED, self._polled.popleft())
            self._polled.append(payload)
        else:
            self._packet(payload, now)
        return True

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """Everything that is to be sent now, and where to: pokes and responses too."""
        out = self._channel.take_control()
        peer = self._channel.peer
        if self._outbox and peer is not None:
            out += [(datagram, peer) for datagram in self.data_to_send()]
        return out

    # ---- the Link contract ---------------------------------------------------------------------------------

    def receive_data(self, chunk: bytes, now: float) -> None:
        """One datagram of the peer's; or nothing, when `receive_datagram` has had it."""
        peer = self._channel.peer
        if chunk and peer is None:
            self._discard(Discard.NO_SESSION, chunk)
        elif chunk and peer is not None:
            self.receive_datagram(chunk, peer, now)

    def next_event(self) -> LinkEvent | None:
        """The next thing that happened; None: more data or time is needed."""
        return self._events.popleft() if self._events else self.facts.take_discarded()

    def send_packet(self, packet_type: int, payload: bytes, now: float, *, tries: int | None = None) -> None:
        """Send a data packet. `tries` 0 means for ever. Without a session it waits for one, while tries go by."""
        self._transmit(self._sending.begin(packet_type, payload, now, tries))
        self._read_polled(now)

    def imply_acknowledge(self) -> None:
        """What is outstanding did arrive, or nobody acknowledges it."""
        if not self._sending.idle:
            self._acknowledged()

    def skip_damaged(self) -> bool:
        """A damaged datagram is none: never."""
        return False

    def send_break_in(self, now: float) -> None:
        """Host: one byte 62 in a datagram of its own. Without a session there is nobody to send it to."""
        self._send(BREAK_IN_BYTE)

    def send_reset(self, now: float) -> None:
        """Host: RESET with our next id; whatever was outstanding is over. Without a session nothing happens."""
        if self._channel.peer is None:
            return
        self._fail(restarted=True)
        self._send(encode_control(PacketType.RESET, self._sending.next_id))
        self._surplus_resets += self._awaiting_reset
        self._awaiting_reset = True

    def data_to_send(self) -> list[bytes]:
        """The session's datagrams, for `peer`. Each is to be sent, once."""
        out, self._outbox = self._outbox, []
        return out

    def next_timeout(self) -> float | None:
        """When handle_timeout wants to be called."""
        poke, again = self._channel.next_timeout(), self._sending.due
        if poke is None or again is None:
            return again if poke is None else poke
        return min(poke, again)

    def handle_timeout(self, now: float) -> None:
        """Poke, and send again what was not acknowledged."""
        self._channel.handle_timeout(now)
        due = self._sending.due
        if due is not None and now >= due:
            if self._sending.overdue():
                self._fail()
            else:
                self._again(now)

    # ---- target only ---------------------------------------------------------------------------------------

    def want(self, packet_type: PacketType) -> None:
        """Target: which type of packet is waited for; others are acknowledged and ignored."""
        self._wanted = packet_type

    def set_polling(self, polling: bool, now: float) -> None:
        """Target: running (packets are kept for `poll`) or stopped (everything is read)."""
        self._polling = polling
        if not polling:
            self._read_polled(now)

    @property
    def polled(self) -> int:
        """Target, running: packets that wait to be looked at."""
        return len(self._polled)

    def poll(self) -> bool:
        """Target, running: look at one packet. True: it was a break-in; others are thrown away, RESET too."""
        if not self._polled:
            return False
        payload = self._polled.popleft()
        if payload == BREAK_IN_BYTE:
            return True
        self._discard(Discard.POLLED, payload)
        return False

    def give_up(self) -> None:
        """Target: the machine restarts: a new life on the network, which pokes at once and begins to count anew."""
        assert isinstance(self._channel, TargetChannel)
        self._channel.restart()
        self._outbox.clear()
        self._polled.clear()
        self._sending.restart(self._first_id)
        self._expected = None

    def continue_session(self, next_to_send: int, expected: int) -> None:
        """Target: begin in the middle of a conversation with a debugger that is gone, with these packet ids."""
        self._sending.next_id = next_to_send
        self._sending.contact = True
        self._expected = expected

    # ---- a new key -----------------------------------------------------------------------------------------

    def _renewed(self, renewal: Renewal, now: float) -> None:
        self._outbox.clear()
        if isinstance(self._channel, TargetChannel):
            # Whoever it is now, it may count on from where it was, or from the beginning: both are taken (kdnet 5.2).
            self._expected = None
            self._polled.clear()
            self._send(self._channel.connection_check())
            self._again(now)
            return
        self._awaiting_reset = self._answered_reset = False
        self._surplus_resets = 0
        self._synchronized = False
        self._expected = None
        if renewal is Renewal.RESTARTED:
            # Said before anything else: what waits to be sent above is for a machine that is no more.
            self._events.append(LinkRestarted(solicited=False))
            self._fail(restarted=True)
            self._sending.restart(self._first_id)
        elif renewal is Renewal.REKEYED:
            # Its target takes any id now: what was outstanding could be carried out twice.
            self._fail(restarted=True)
        else:
            self._again(now)

    # ---- packets -------------------------------------------------------------------------------------------

    def _packet(self, payload: bytes, now: float) -> None:
        if payload == BREAK_IN_BYTE:
            if self.role is Role.TARGET:
                self._events.append(BreakInSeen())
            else:
                self._discard(Discard.UNWANTED_TYPE, payload)
            return
        content = read_packet(payload)
        if isinstance(content, Discard):
            self._discard(content, payload)
        elif isinstance(content, ConnectionCheck):
            if self.role is Role.HOST:
                # WinDbg's greeting: whatever is pending comes again, and a stopped target says why it stopped.
                self._send(encode_control(PacketType.RESEND))
        elif isinstance(content, ControlFrame):
            if self.role is Role.HOST:
                self._control_at_host(content, payload, now)
            else:
                self._control_at_target(content, payload, now)
        elif self.role is Role.HOST:
            self._data_at_host(content)
        else:
            self._data_at_target(content)

    def _control_at_host(self, frame: ControlFrame, raw: bytes, now: float) -> None:
        if frame.packet_type == PacketType.ACKNOWLEDGE:
            self._acknowledge(frame, raw)
        elif frame.packet_type == PacketType.RESEND:
            if self._sending.idle:
                self._discard(Discard.UNWANTED_TYPE, raw)
            elif self._sending.asked_again():
                self._again(now)
            else:
                self._fail()
        else:
            self._reset_at_host(frame.packet_id, now)

    def _reset_at_host(self, pending_id: int, now: float) -> None:
        self._synchronized = True
        if not self._awaiting_reset and self._surplus_resets:
            # We had asked several times: what the first answer brought need not come once more.
            self._surplus_resets -= 1
            if self._expected is None or is_newer(pending_id, self._expected):
                self._expected = pending_id
            return
        self._expected = pending_id
        if self._awaiting_reset:
            self._awaiting_reset = self._answered_reset = False
            self._events.append(LinkRestarted(solicited=True))
        elif self._answered_reset:
            # The answer to our answer: that one is not answered again.
            self._answered_reset = False
        else:
            self._answered_reset = True
            self._send(encode_control(PacketType.RESET, self._sending.next_id))
            self._again(now)

    def _data_at_host(self, frame: DataFrame) -> None:
        self._send(encode_control(PacketType.ACKNOWLEDGE, frame.packet_id))
        if self._expected is None:
            if frame.packet_id == FIRST_TARGET_ID:
                self._synchronized = True
        elif not is_newer(frame.packet_id, self._expected):
            self._discard(Discard.DUPLICATE, frame.payload)
            return
        elif frame.packet_id != self._expected:
            self.facts.gaps += 1
        self._expected = next_id(frame.packet_id)
        self._events.append(PacketReceived(frame.packet_type, frame.packet_id, frame.payload))

    def _control_at_target(self, frame: ControlFrame, raw: bytes, now: float) -> None:
        if frame.packet_type == PacketType.ACKNOWLEDGE:
            self._acknowledge(frame, raw)
            return
        if frame.packet_type == PacketType.RESET:
            self._expected = frame.packet_id
            self._send(encode_control(PacketType.RESET, self._sending.next_id))
        if self._sending.idle:
            self._events.append(ResendAsked())
        else:
            self._again(now)

    def _data_at_target(self, frame: DataFrame) -> None:
        new = self._expected is None or is_newer(frame.packet_id, self._expected)
        if new and not self._sending.idle:
            # Data where an acknowledge was due: ours counts as delivered, and theirs has to come again (5.2 rule 4).
            self._send(encode_control(PacketType.RESEND))
            self._discard(Discard.SKIPPED_BODY, frame.payload)
            self._acknowledged()
            return
        self._send(encode_control(PacketType.ACKNOWLEDGE, frame.packet_id))
        if not new:
            self._discard(Discard.DUPLICATE, frame.payload)
            return
        self._expected = next_id(frame.packet_id)
        if frame.packet_type != self._wanted:
            self._discard(Discard.UNWANTED_TYPE, frame.payload)
        else:
            self._events.append(PacketReceived(frame.packet_type, frame.packet_id, frame.payload))

    # ---- inside --------------------------------------------------------------------------------------------

    def _acknowledge(self, frame: ControlFrame, raw: bytes) -> None:
        if not self._sending.idle and frame.packet_id == self._sending.next_id:
            self._acknowledged()
        else:
            self._discard(Discard.STRAY_ACKNOWLEDGE, raw)

    def _acknowledged(self) -> None:
        self._sending.acknowledged()
        self._events.append(PacketAcknowledged())

    def _read_polled(self, now: float) -> None:
        while self._polled:
            self._packet(self._polled.popleft(), now)

    def _send(self, payload: bytes) -> bool:
        datagram = self._channel.seal(payload)
        if datagram is None:
            return False
        self._outbox.append(datagram)
        return True

    def _transmit(self, packet: bytes) -> None:
        if self._send(packet):
            self._sending.sent()

    def _again(self, now: float) -> None:
        if (packet := self._sending.again(now)) is not None:
            self._transmit(packet)

    def _fail(self, *, restarted: bool = False) -> None:
        if not self._sending.idle:
            self._events.append(PacketFailed(self._sending.drop(), restarted))

    def _discard(self, reason: Discard, data: bytes) -> None:
        self.facts.discard(reason, data)
