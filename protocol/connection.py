"""KdConnection: the debugger's side of the conversation over any link. No I/O, no clock (kd-protocol 1.9, 9.1).

    ask() ──► outstanding ──► Replied
                  │ link restarted, or the target repeated its event, or silence
                  ├── may be asked again (reads) ──► RESET if needed, wait for the event, ask again
                  └── may not (writes, continue)  ──► RequestFailed

Prompts and file requests are answered here, whatever else goes on: a target that waits for an answer does
nothing else (T19). A file request is declined; a prompt is answered with `b`, break: the machine stays stopped.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .conversation import (
    Conversation,
    FailureReason,
    FileDeclined,
    KdEvent,
    Malformed,
    OrphanReply,
    Printed,
    PromptAnswered,
    Replied,
    RequestFailed,
    StateChanged,
    Told,
    TraceReceived,
)
from .debug_io import ControlRequest, PrintString, TraceIo, decode_debug_io
from .errors import LocalProtocolError, RemoteProtocolError
from .file_io import FileIo
from .link import (
    Discard,
    Discarded,
    Link,
    LinkEvent,
    LinkRestarted,
    PacketAcknowledged,
    PacketFailed,
    PacketReceived,
    Role,
)
from .manipulate import HEADER_SIZE, NO_REPLY, ApiNumber, Manipulate
from .ntstatus import STATUS_NO_SUCH_FILE
from .packet import PacketType
from .state_change import StateChange

__all__ = ["KdConnection"]

_PROMPT_ANSWER = b"b"
_MOST_REISSUES = 4
_LONGEST_REPLY = 60.0
"""Seconds in which one that comes slowly, or damaged again and again, is waited for."""
_ECHOED_ADDRESS = frozenset(
    {
        ApiNumber.READ_VIRTUAL_MEMORY,
        ApiNumber.READ_PHYSICAL_MEMORY,
        ApiNumber.READ_CONTROL_SPACE,
        ApiNumber.WRITE_VIRTUAL_MEMORY,
        ApiNumber.WRITE_PHYSICAL_MEMORY,
        ApiNumber.WRITE_CONTROL_SPACE,
        ApiNumber.WRITE_BREAK_POINT,
        ApiNumber.QUERY_MEMORY,
    }
)


@dataclass(slots=True)
class _Open:
    """The question that is open."""

    request: Manipulate
    repeatable: bool
    tries: int | None
    asked_at: float
    reissues: int = 0
    abandoned: bool = False
    waits_for_event: bool = False


class KdConnection:
    """One conversation with one target, as its debugger."""

    def __init__(self, link: Link, *, reply_timeout: float = 5.0, restart_is_new_life: bool = False) -> None:
        """`reply_timeout`: seconds of silence after which an acknowledged request is asked again or given up.

        `restart_is_new_life`: on this link a restart that was not asked for means that the machine restarted. What
        is open then fails, whatever it is: asked again, it would be answered out of another memory.
        """
        if link.role is not Role.HOST:
            raise LocalProtocolError("a debugger's conversation needs the host's end of a link")
        self._link = link
        self._reply_timeout = reply_timeout
        self._restart_is_new_life = restart_is_new_life
        self._events: deque[KdEvent] = deque()
        self._queue: deque[tuple[int, bytes, int | None]] = deque()
        self._open: _Open | None = None
        self._next: _Open | None = None
        self._last_byte = self._byte_before = float("-inf")
        self._sending_answer = False
        self.state = Conversation.UNKNOWN
        self.change: StateChange | None = None
        self.life = 1
        """Goes up with each restart of the machine that the link has told of."""

    # ---- asking --------------------------------------------------------------------------------------------

    def ask(self, request: Manipulate, now: float, *, repeatable: bool = False, tries: int | None = None) -> None:
        """Send a request; Replied (or Told, for those without a reply) or RequestFailed will follow.

        `repeatable`: asking twice does no harm (reads), so it may be asked again when the line lost it.
        One question at a time; a question asked after `abandon` waits until the former one has ended.
        """
        question = _Open(request, repeatable, tries, now)
        if self._open is None:
            self._issue(question, now)
        elif self._open.abandoned and self._next is None:
            self._next = question
        else:
            raise LocalProtocolError("a request is open: KD answers one question at a time")

    def abandon(self) -> None:
        """Nobody waits for the open question any more. Its reply, when it comes, is an OrphanReply."""
        self._next = None
        if self._open is not None:
            self._open.abandoned = True
            self._open.repeatable = False

    @property
    def busy(self) -> bool:
        """A question is open that was not abandoned."""
        return self._next is not None or (self._open is not None and not self._open.abandoned)

    @property
    def synchronized(self) -> bool:
        """Both ends' packet counters are known to agree."""
        return self._link.synchronized

    def send_break_in(self, now: float) -> None:
        """Ask a running target to stop. On a stopped one this makes it stop again after the next continue (T4)."""
        self._link.send_break_in(now)

    def send_reset(self, now: float) -> None:
        """Ask a stopped target to begin anew and repeat its state change. A running one does not notice."""
        self._link.send_reset(now)
        self._drain_link(now)

    # ---- bytes and time ------------------------------------------------------------------------------------

    def receive_data(self, chunk: bytes, now: float) -> None:
        """Bytes as they came."""
        self._byte_before, self._last_byte = self._last_byte, now
        self._link.receive_data(chunk, now)
        self._drain_link(now)

    def next_event(self) -> KdEvent | None:
        """The next thing that happened, or None: more data or time is needed."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> list[bytes]:
        """What is to be written now."""
        return self._link.data_to_send()

    def next_timeout(self) -> float | None:
        """When handle_timeout wants to be called."""
        due = self._link.next_timeout()
        reply = self._reply_due()
        if due is None or reply is None:
            return reply if due is None else due
        return min(due, reply)

    def handle_timeout(self, now: float) -> None:
        """Time has passed."""
        self._link.handle_timeout(now)
        self._drain_link(now)
        due = self._reply_due()
        if due is not None and now >= due and self._open is not None:
            self._resynchronize(self._open, FailureReason.NO_REPLY, now)

    # ---- inside --------------------------------------------------------------------------------------------

    def _issue(self, question: _Open, now: float) -> None:
        self._open = question
        question.waits_for_event = False
        question.asked_at = now
        if self._link.idle:
            self._link.send_packet(PacketType.STATE_MANIPULATE, question.request.encode(), now, tries=question.tries)
        else:
            self._queue.append((PacketType.STATE_MANIPULATE, question.request.encode(), question.tries))

    def _answer(self, packet_type: PacketType, payload: bytes, now: float) -> None:
        if self._link.idle:
            self._sending_answer = True
            self._link.send_packet(packet_type, payload, now)
        else:
            # A target asks one thing at a time: of answers that wait, only the newest can still be wanted.
            self._queue = deque(entry for entry in self._queue if entry[0] == PacketType.STATE_MANIPULATE)
            self._queue.append((packet_type, payload, None))

    def _reply_due(self) -> float | None:
        question = self._open
        if question is None or not self._link.idle:
            return None
        latest = min(max(question.asked_at, self._last_byte), question.asked_at + _LONGEST_REPLY)
        return latest + self._reply_timeout

    def _drain_link(self, now: float) -> None:
        failed: PacketFailed | None = None
        while (event := self._link.next_event()) is not None:
            if failed is not None and not self._is_new_life(event):
                self._packet_failed(failed, now)
            failed = None
            if self._restart_is_new_life and isinstance(event, PacketFailed) and event.restarted:
                # Whether its life has ended too, the next event says: nothing may be sent before.
                failed = event
            else:
                self._handle(event, now)
        if failed is not None:
            self._packet_failed(failed, now)

    def _is_new_life(self, event: LinkEvent) -> bool:
        return self._restart_is_new_life and isinstance(event, LinkRestarted) and not event.solicited

    def _handle(self, event: LinkEvent, now: float) -> None:
        if isinstance(event, PacketReceived):
            try:
                self._packet(event, now)
            except RemoteProtocolError as error:
                self._events.append(Malformed(event.packet_type, str(error)))
                self._events.append(Discarded(Discard.MALFORMED_MESSAGE, len(event.payload), event.payload[:64]))
        elif isinstance(event, PacketAcknowledged):
            self._packet_acknowledged(now)
        elif isinstance(event, PacketFailed):
            self._packet_failed(event, now)
        elif isinstance(event, LinkRestarted):
            self._events.append(event)
            if self._is_new_life(event):
                self._begin_new_life()
            elif self._open is not None and not self._open.waits_for_event:
                self._reissue_after_event(self._open, FailureReason.RESTARTED, now)
        elif isinstance(event, Discarded):
            self._events.append(event)
            # No sign of life: a target that hears nothing repeats itself for ever, and so does another's console. But
            # one whose reply comes damaged repeats it whatever is asked (1.9): it should come through once, if it can.
            if event.reason not in (Discard.BAD_CHECKSUM, Discard.BAD_TRAILER):
                self._last_byte = self._byte_before
            if (question := self._open) is not None and question.request.divisible and self._link.skip_damaged():
                self._events.append(Discarded(Discard.HOPELESS, HEADER_SIZE, b""))
                self._fail(question, FailureReason.DAMAGED, now)

    def _begin_new_life(self) -> None:
        self.life += 1
        self.state = Conversation.UNKNOWN
        self.change = None
        self._queue.clear()
        self._sending_answer = False
        for question in (self._open, self._next):
            if question is not None and not question.abandoned:
                self._events.append(RequestFailed(question.request, FailureReason.RESTARTED))
        self._open = self._next = None

    def _packet_acknowledged(self, now: float) -> None:
        if self._sending_answer:
            self._sending_answer = False
        elif self._open is not None and self._open.request.api in NO_REPLY:
            question = self._open
            self.state = Conversation.RUNNING
            self._close(now, None if question.abandoned else Told(question.request))
        self._send_queued(now)

    def _packet_failed(self, event: PacketFailed, now: float) -> None:
        answering, self._sending_answer = self._sending_answer, False
        question = self._open
        if not answering and question is not None:
            if event.restarted:
                self._reissue_after_event(question, FailureReason.RESTARTED, now)
            else:
                self._resynchronize(question, FailureReason.NOT_ACKNOWLEDGED, now)
        self._send_queued(now)

    def _send_queued(self, now: float) -> None:
        if self._queue and self._link.idle:
            packet_type, payload, tries = self._queue.popleft()
            self._sending_answer = packet_type != PacketType.STATE_MANIPULATE
            self._link.send_packet(packet_type, payload, now, tries=tries)

    def _packet(self, event: PacketReceived, now: float) -> None:
        question = self._open
        if (
            question is not None
            and not self._link.idle
            and not self._sending_answer
            and question.request.api in NO_REPLY
            and not (self.change is not None and event.payload == self.change.raw)
        ):
            # The target says something new, so it went on: only the acknowledge of our continue got lost (T28).
            self._link.imply_acknowledge()
            self._link.next_event()
            self._packet_acknowledged(now)
        if event.packet_type == PacketType.STATE_MANIPULATE:
            self._reply(Manipulate.decode(event.payload), now)
        elif event.packet_type == PacketType.STATE_CHANGE64:
            self._state_change(StateChange.decode(event.payload), now)
        elif event.packet_type == PacketType.DEBUG_IO:
            message = decode_debug_io(event.payload)
            if isinstance(message, PrintString):
                self._events.append(Printed(message.processor, message.text))
            else:
                self._answer(PacketType.DEBUG_IO, message.answer(_PROMPT_ANSWER).encode(), now)
                self._events.append(PromptAnswered(message.prompt, _PROMPT_ANSWER))
        elif event.packet_type == PacketType.FILE_IO:
            request = FileIo.decode(event.payload)
            self._answer(PacketType.FILE_IO, request.decline(STATUS_NO_SUCH_FILE).encode(), now)
            self._events.append(FileDeclined(request.path))
        elif event.packet_type == PacketType.TRACE_IO:
            self._events.append(TraceReceived(len(TraceIo.decode(event.payload).data)))
        elif event.packet_type == PacketType.CONTROL_REQUEST:
            ControlRequest.decode(event.payload)
            self._events.append(TraceReceived(len(event.payload)))
        else:
            raise RemoteProtocolError(
                "the target speaks the protocol of Windows NT 4 (state change of type 1), which this program does not"
            )

    def _state_change(self, change: StateChange, now: float) -> None:
        repeated = self.state is Conversation.STOPPED and self.change == change
        self.state = Conversation.STOPPED
        self.change = change
        self._events.append(StateChanged(change, repeated))
        question = self._open
        if question is not None and self._link.idle:
            # The target waits for a request again: ours, or its answer, was lost on the way (T6).
            if question.request.api in NO_REPLY:
                self._close(now, None if question.abandoned else Told(question.request))
            elif question.waits_for_event:
                self._issue(question, now)
            else:
                self._reissue(question, FailureReason.NO_REPLY, now)

    def _reply(self, reply: Manipulate, now: float) -> None:
        question = self._open
        if question is None or not _answers(question.request, reply):
            self._events.append(OrphanReply(reply))
            self._events.append(Discarded(Discard.STALE_REPLY, HEADER_SIZE + len(reply.data), b""))
            return
        if not self._link.idle and not self._sending_answer:
            # Its acknowledge got lost. The event of it is not the caller's business: the reply says it all.
            self._link.imply_acknowledge()
            self._link.next_event()
            self._send_queued(now)
        self.state = Conversation.STOPPED
        self._close(now, OrphanReply(reply) if question.abandoned else Replied(question.request, reply))

    def _close(self, now: float, event: KdEvent | None) -> None:
        self._open = None
        if event is not None:
            self._events.append(event)
        if self._next is not None:
            question, self._next = self._next, None
            self._issue(question, now)

    def _fail(self, question: _Open, reason: FailureReason, now: float) -> None:
        self._close(now, None if question.abandoned else RequestFailed(question.request, reason))

    def _reissue(self, question: _Open, reason: FailureReason, now: float) -> None:
        question.reissues += 1
        if not question.repeatable or question.reissues > _MOST_REISSUES:
            self._fail(question, reason, now)
        else:
            self._issue(question, now)

    def _reissue_after_event(self, question: _Open, reason: FailureReason, now: float) -> None:
        if question.repeatable:
            question.waits_for_event = True
            question.asked_at = now
        else:
            self._fail(question, reason, now)

    def _resynchronize(self, question: _Open, reason: FailureReason, now: float) -> None:
        question.reissues += 1
        if not question.repeatable or question.reissues > _MOST_REISSUES:
            self._fail(question, reason, now)
            return
        question.waits_for_event = True
        question.asked_at = now
        self._link.send_reset(now)


def _answers(request: Manipulate, reply: Manipulate) -> bool:
    """Whether this reply can be the answer: same API, same address. Never by processor: that field may be garbage."""
    if reply.api != request.api or request.api in NO_REPLY:
        return False
    if reply.union[:8] != request.union[:8] and request.api in _ECHOED_ADDRESS:
        # A short refusal echoes nothing (T55).
        return bool(reply.status & 0x8000_0000) and not any(reply.union)
    return True
