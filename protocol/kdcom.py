"""KdcomLink: stop-and-wait over a serial byte stream, both ends (kd-protocol 1.4 to 1.11).

The two ends keep the same counters and speak the same packets, but obey different rules where packets go astray:
each rule stands in the method of its role.
"""

from __future__ import annotations

from collections import deque

from .errors import LocalProtocolError
from .framing import ControlFrame, DataFrame, FrameReader, HeaderFrame, Rubbish
from .link import (
    BreakInSeen,
    Discard,
    Discarded,
    LinkEvent,
    LinkRestarted,
    LinkTimers,
    PacketAcknowledged,
    PacketFailed,
    PacketReceived,
    ResendAsked,
    Role,
)
from .outstanding import Outstanding
from .packet import (
    BREAK_IN_BYTE,
    HEADER,
    INITIAL_PACKET_ID,
    SYNC_PACKET_ID,
    PacketType,
    encode_control,
    encode_data,
)
from .resends import Resends

__all__ = ["KdcomLink"]

_LEADER_BYTES = b"0i"
_SAMPLE = 64
_MOST_POLLED = 1 << 16
_MOST_RESENDS = 50
_LEAST_PAYLOAD = {PacketType.STATE_MANIPULATE: 56, PacketType.DEBUG_IO: 12, PacketType.FILE_IO: 64}


class KdcomLink:
    """One end of a KDCOM line. See `link.Link` for the contract."""

    def __init__(self, role: Role, timers: LinkTimers | None = None) -> None:
        self.role = role
        self.timers = timers or LinkTimers(tries=20 if role is Role.TARGET else 5)
        self._reader = FrameReader(role)
        self._resends = Resends(role)
        self._events: deque[LinkEvent] = deque()
        self._outbox: list[bytes] = []
        self._outstanding: Outstanding | None = None
        self._last_byte = float("-inf")
        self._ever_acknowledged = False
        # Host: None until the first packet of the target tells where its counter stands.
        self._expected: int | None = None
        self._next_to_send = INITIAL_PACKET_ID
        self._awaiting_reset = False
        self._synchronized = False
        self._last_payload: bytes | None = None
        self._wanted_acknowledge = self._sent = b""
        self._more = False
        # Target.
        self._wanted = PacketType.STATE_MANIPULATE
        self._break_in = self._polling = False
        self._polled = bytearray()
        if role is Role.TARGET:
            self.give_up()

    @property
    def synchronized(self) -> bool:
        """Host: whether both counters are known to agree: a SYNC id came, or our RESET was answered."""
        return self._synchronized

    @property
    def idle(self) -> bool:
        """No packet of ours waits for its acknowledge."""
        return self._outstanding is None

    def receive_data(self, chunk: bytes, now: float) -> None:
        """Bytes as they came from the wire."""
        if not chunk:
            return
        self._last_byte = now
        if self._polling and self._outstanding is None:
            self._polled += chunk
            excess = len(self._polled) - _MOST_POLLED
            if excess > 0:
                self._discard(Discard.POLLED, bytes(self._polled[:excess]))
                del self._polled[:excess]
            return
        if chunk[:16] == self._wanted_acknowledge and self._outstanding is not None and not self._reader.pending:
            # What comes nearly always, first and whole: the acknowledge of our request; its reply may be behind it.
            self._reader.feed(chunk[16:])
            self._acknowledged()
            self._more = len(chunk) > 16
            return
        self._reader.feed(chunk)
        self._read_frames(now)

    def next_event(self) -> LinkEvent | None:
        """The next thing that happened; None: more data or time is needed."""
        if self._more and not self._events:
            self._read_frames(self._last_byte)
        return self._events.popleft() if self._events else None

    def send_packet(self, packet_type: int, payload: bytes, now: float, *, tries: int | None = None) -> None:
        """Send a data packet. `tries` 0 means for ever (a target's exceptions and replies, kd-protocol 1.8)."""
        if self._outstanding is not None:
            raise LocalProtocolError("a packet is outstanding: KD is stop-and-wait, one packet at a time")
        if tries is None:
            tries = self.timers.tries if self._ever_acknowledged else self.timers.first_tries
        self._outstanding = Outstanding(packet_type, payload, tries or None, now)
        self._transmit(self._outstanding)
        if self._polled:
            # Waiting for an acknowledge, a target reads all that the UART kept, not one byte a tick.
            self._reader.feed(bytes(self._polled))
            self._polled.clear()
            self._read_frames(now)

    def send_break_in(self, now: float) -> None:
        """Host: one byte 62, alone."""
        self._outbox.append(BREAK_IN_BYTE)

    def send_reset(self, now: float) -> None:
        """Host: RESET; whatever was outstanding is over."""
        self._outbox.append(encode_control(PacketType.RESET))
        self._awaiting_reset = True
        self._restart_counters()

    def data_to_send(self) -> list[bytes]:
        """What is to be written now."""
        out, self._outbox = self._outbox, []
        return out

    def next_timeout(self) -> float | None:
        """When handle_timeout wants to be called."""
        due: list[float] = []
        if self._reader.pending or self._break_in:
            due.append(self._last_byte + self.timers.byte)
        if self._outstanding is not None:
            due.append(self._outstanding.due(self.role, self.timers.acknowledge, self._last_byte))
        return min(due) if due else None

    def handle_timeout(self, now: float) -> None:
        """Give up what stopped in the middle, send again what was not acknowledged."""
        quiet = now >= self._last_byte + self.timers.byte
        if quiet and self._reader.pending and not self._more:
            self._truncated(now)
        if quiet and self._break_in:
            self._break_in = False
            self._events.append(BreakInSeen())
            if self._outstanding is not None:
                self._again(self._outstanding, now)
            else:
                self._events.append(ResendAsked())
        waiting = self._outstanding
        if waiting is not None and now >= waiting.due(self.role, self.timers.acknowledge, self._last_byte):
            if waiting.tries is not None:
                waiting.tries -= 1
            if waiting.tries == 0:
                self._fail(waiting)
                if self.role is Role.TARGET:
                    self.give_up()
            else:
                waiting.tries_made += 1
                self._again(waiting, now)

    def imply_acknowledge(self) -> None:
        """What is outstanding did arrive, or nobody acknowledges it."""
        if self._outstanding is not None:
            self._acknowledged()

    def skip_damaged(self) -> bool:
        """Host: be rid of a reply of which copy after copy came damaged, by acknowledging it. False: there is none."""
        if not self._resends.hopeless or self._expected is None or self._outstanding is not None:
            return False
        self._outbox = [one for one in self._outbox if one != encode_control(PacketType.RESEND)]
        self._outbox.append(encode_control(PacketType.ACKNOWLEDGE, self._expected))
        self._expected ^= 1
        self._resends.settle()
        return True

    def want(self, packet_type: PacketType) -> None:
        """Target: which type of packet is waited for; others are acknowledged and ignored (1.7 step 14)."""
        self._wanted = packet_type

    def set_polling(self, polling: bool, now: float) -> None:
        """Target: running (one byte looked at each tick, see `poll`) or stopped (everything is read)."""
        self._polling = polling
        if not polling and self._polled:
            self._reader.feed(bytes(self._polled))
            self._polled.clear()
            self._read_frames(now)

    @property
    def polled(self) -> int:
        """Target, running: bytes that wait to be looked at."""
        return len(self._polled)

    def poll(self) -> bool:
        """Target, running: look at one byte, as at each clock tick. True: it was a break-in byte (T3)."""
        if not self._polled:
            return False
        byte = self._polled.pop(0)
        if byte == BREAK_IN_BYTE[0]:
            return True
        self._discard(Discard.POLLED, bytes([byte]))
        return False

    def give_up(self) -> None:
        """Target: the debugger is gone (or was never there): the next packet carries SYNC."""
        self._outstanding = None
        self._next_to_send, self._expected = INITIAL_PACKET_ID | SYNC_PACKET_ID, INITIAL_PACKET_ID

    def continue_session(self, next_to_send: int, expected: int) -> None:
        """Target: begin in the middle of a conversation with a debugger that is gone, with these packet ids."""
        self._next_to_send, self._expected = next_to_send, expected
        self._ever_acknowledged = True

    def _read_frames(self, now: float) -> None:
        target = self.role is Role.TARGET
        self._more = False
        while True:
            waiting = self._outstanding is not None
            frame = self._reader.next(
                headers_only=target and waiting, least=_LEAST_PAYLOAD.get(self._wanted, 0) if target else 0
            )
            if frame is None:
                return
            if self._break_in and not (isinstance(frame, Rubbish) and frame.reason is Discard.NOISE):
                # 62 with a leader right behind it: the packet counts, and so does the break-in (1.7 step 6).
                self._break_in = False
                self._events.append(BreakInSeen())
            if isinstance(frame, Rubbish):
                self._rubbish(frame, now)
            elif isinstance(frame, ControlFrame):
                (self._control_at_target if target else self._control_at_host)(frame, now)
            elif isinstance(frame, HeaderFrame):
                self._header_at_target(frame)
            else:
                (self._data_at_target if target else self._data_at_host)(frame)
            if self._events and not isinstance(self._events[-1], Discarded):
                # What is done about it may change what the rest of the chunk means: that is read when it was taken.
                self._more = self._reader.pending > 0
                return

    def _control_at_host(self, frame: ControlFrame, now: float) -> None:
        waiting = self._outstanding
        if frame.packet_type == PacketType.ACKNOWLEDGE:
            if waiting is not None and frame.packet_id == self._next_to_send:
                self._acknowledged()
            else:
                self._discard(Discard.STRAY_ACKNOWLEDGE, encode_control(frame.packet_type, frame.packet_id))
        elif frame.packet_type == PacketType.RESEND and waiting is None:
            self._discard(Discard.UNWANTED_TYPE, encode_control(frame.packet_type, frame.packet_id))
        elif frame.packet_type == PacketType.RESEND and waiting is not None:
            waiting.resends += 1
            if waiting.resends > _MOST_RESENDS:
                self._fail(waiting)
            else:
                self._again(waiting, now)
        else:
            solicited = self._awaiting_reset
            if not solicited:
                self._outbox.append(encode_control(PacketType.RESET))
            # Our answer to a reset that we had not asked for is answered in turn: do not answer that one (T14).
            self._awaiting_reset = not solicited
            self._restart_counters()
            self._expected = INITIAL_PACKET_ID
            self._synchronized = True
            self._events.append(LinkRestarted(solicited))

    def _data_at_host(self, frame: DataFrame) -> None:
        # No target answers a request with its very bytes (Manipulate.request): the line gave back what we said.
        flaw = Discard.ECHOED if self._sent and frame.payload == self._sent else frame.flaw
        if flaw is not None:
            self._discard(flaw, frame.payload)
            if flaw is not Discard.ECHOED:
                self._resends.spoilt((frame.packet_type, frame.packet_id), self._expected)
                self._outbox += self._resends.ask(self._last_byte)
            return
        self._resends.settle()
        packet_id = frame.packet_id & ~SYNC_PACKET_ID
        self._outbox.append(encode_control(PacketType.ACKNOWLEDGE, packet_id))
        if frame.packet_id & SYNC_PACKET_ID:
            repeated = frame.payload == self._last_payload and self._next_to_send == INITIAL_PACKET_ID
            if repeated and self._synchronized and self._expected == packet_id ^ 1:
                # The target repeats its first packet because our acknowledge was lost; nothing happened since.
                self._discard(Discard.DUPLICATE, frame.payload)
                return
            known = self._expected is not None
            self._restart_counters()
            self._synchronized = True
            if known:
                self._events.append(LinkRestarted(solicited=False))
        elif self._expected is not None and packet_id != self._expected:
            self._discard(Discard.DUPLICATE, frame.payload)
            return
        self._expected = packet_id ^ 1
        self._last_payload = frame.payload
        self._events.append(PacketReceived(frame.packet_type, frame.packet_id, frame.payload))

    def _control_at_target(self, frame: ControlFrame, now: float) -> None:
        waiting = self._outstanding
        if frame.packet_type == PacketType.ACKNOWLEDGE:
            if waiting is not None and frame.packet_id == self._next_to_send & ~SYNC_PACKET_ID:
                self._acknowledged()
            else:
                self._discard(Discard.STRAY_ACKNOWLEDGE, encode_control(frame.packet_type, frame.packet_id))
            return
        if frame.packet_type == PacketType.RESET:
            self._next_to_send = self._expected = INITIAL_PACKET_ID
            self._outbox.append(encode_control(PacketType.RESET))
        if waiting is not None:
            self._again(waiting, now)
        else:
            self._events.append(ResendAsked())

    def _header_at_target(self, frame: HeaderFrame) -> None:
        # Waiting for an acknowledge, a data packet came: its body stays in the line and is skipped (1.9).
        if frame.packet_id == self._expected:
            self._outbox.append(encode_control(PacketType.RESEND))
            self._acknowledged()
        else:
            self._outbox.append(encode_control(PacketType.ACKNOWLEDGE, frame.packet_id))
        self._events.append(Discarded(Discard.SKIPPED_BODY, frame.byte_count, b""))

    def _data_at_target(self, frame: DataFrame) -> None:
        def resend(reason: Discard) -> None:
            self._discard(reason, frame.payload)
            self._outbox.append(encode_control(PacketType.RESEND))

        if frame.flaw is Discard.BAD_TRAILER:
            resend(frame.flaw)
        elif frame.packet_type != self._wanted:
            self._outbox.append(encode_control(PacketType.ACKNOWLEDGE, frame.packet_id))
            self._discard(Discard.UNWANTED_TYPE, frame.payload)
        elif frame.packet_id & ~1 != INITIAL_PACKET_ID:
            resend(Discard.BAD_ID)
        elif frame.packet_id != self._expected:
            self._outbox.append(encode_control(PacketType.ACKNOWLEDGE, frame.packet_id))
            self._discard(Discard.DUPLICATE, frame.payload)
        elif frame.flaw is not None:
            resend(frame.flaw)
        else:
            self._outbox.append(encode_control(PacketType.ACKNOWLEDGE, frame.packet_id))
            self._expected ^= 1
            self._events.append(PacketReceived(frame.packet_type, frame.packet_id, frame.payload))

    def _rubbish(self, rubbish: Rubbish, now: float) -> None:
        self._discard(rubbish.reason, rubbish.data)
        if rubbish.reason in (Discard.BAD_TRAILER, Discard.TRUNCATED):
            self._resends.spoilt(self._reader.cut, self._expected)
        if rubbish.reason is Discard.BAD_TRAILER or (
            rubbish.reason is Discard.BAD_SIZE and self.role is Role.TARGET and self._outstanding is None
        ):
            self._outbox += self._resends.ask(now)
        if rubbish.reason is Discard.NOISE and self.role is Role.TARGET:
            told = rubbish.data.rstrip(_LEADER_BYTES)
            if told:
                self._break_in = told.endswith(BREAK_IN_BYTE)

    def _truncated(self, now: float) -> None:
        # Lost inside a header, nobody asks: a target says nothing then (1.7 step 7), a host may have seen some text.
        looked_like_data = self._reader.pending >= HEADER.size
        while self._reader.pending and not self._more:
            rubbish = self._reader.drop()
            if rubbish is not None:
                self._rubbish(rubbish, now)
            self._read_frames(now)
        if looked_like_data and self._outstanding is None and not self._more:
            self._outbox.append(encode_control(PacketType.RESEND))

    def _acknowledged(self) -> None:
        self._outstanding = None
        self._ever_acknowledged = True
        self._next_to_send = self._next_to_send & ~SYNC_PACKET_ID ^ 1
        self._events.append(PacketAcknowledged())

    def _transmit(self, packet: Outstanding) -> None:
        # The id is taken anew at each try: a RESET in between changes it (1.8 step 1).
        self._outbox.append(encode_data(packet.packet_type, self._next_to_send, packet.payload))
        if self.role is Role.HOST:
            self._sent = packet.payload
            self._wanted_acknowledge = encode_control(PacketType.ACKNOWLEDGE, self._next_to_send)

    def _again(self, packet: Outstanding, now: float) -> None:
        packet.sent_at = now
        self._transmit(packet)

    def _fail(self, packet: Outstanding, *, restarted: bool = False) -> None:
        self._outstanding = None
        self._events.append(PacketFailed(packet.tries_made, restarted))

    def _restart_counters(self) -> None:
        self._resends.forget()
        self._next_to_send = INITIAL_PACKET_ID
        if self._outstanding is not None:
            self._fail(self._outstanding, restarted=True)

    def _discard(self, reason: Discard, data: bytes) -> None:
        self._events.append(Discarded(reason, len(data), data[:_SAMPLE]))
