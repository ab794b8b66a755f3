"""Engine: joins a transport and a conversation. The caller pulls: no task of its own, no hidden buffer.

Everything it does is a loop of three steps: write what the conversation wants to say, wait for bytes or for its
timer, hand both over. Cancelling it anywhere leaves the link in order: what was asked is abandoned, and its late
answer will be known as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf

import trio

from protocol.connection import KdConnection
from protocol.conversation import (
    FailureReason,
    KdEvent,
    Replied,
    RequestFailed,
    Told,
)
from protocol.link import Discard, Discarded
from protocol.manipulate import LARGEST_TRANSFER, Manipulate, api_name

from .errors import TargetRefusedError
from .overheard import Overheard
from .read_size import ReadSize
from .transports import DatagramTransport, PromptTransport, RecordedTransport, Transport

__all__ = ["Engine", "EventSink"]

EventSink = Callable[[KdEvent], None]
"""Is told everything that happens beside the answers: prints, prompts, state changes, what was thrown away."""

_DAMAGED = frozenset({Discard.BAD_CHECKSUM, Discard.BAD_TRAILER, Discard.TRUNCATED})
_UNREPEATABLE_TRIES = 3
_FIRST_BYTES = 1 << 14
_AT_ONCE = 0.001
"""Seconds within which a target on a fast line answers: then going to sleep would cost more than standing still."""
_MOST_AT_ONCE = 16
"""After so many answers in a row that came at once, other tasks get their turn."""


class Engine:
    """One request at a time over one transport."""

    def __init__(self, transport: Transport, connection: KdConnection, sink: EventSink) -> None:
        self.transport = transport
        self.connection = connection
        self._network = transport if isinstance(transport, DatagramTransport) else None
        self._prompt = transport if isinstance(transport, PromptTransport) else None
        self._recorded = transport if isinstance(transport, RecordedTransport) else None
        self._at_once = 0
        self.discards: Counter[Discard] = Counter()
        """Bytes thrown away, by reason: what the line is like."""
        self.damaged = 0
        """Packets that came damaged: one for each, however many bytes of it were thrown away."""
        self.read_size = ReadSize(LARGEST_TRANSFER)
        """How much to ask for at once, on a line like this one."""
        self.messages = 0
        """What happened that only a good packet can have told."""
        self.bytes_received = 0
        self.bytes_sent = 0
        self.last_byte_at: float | None = None
        self.first_bytes = bytearray()
        """The first bytes that ever came, for diagnosis."""
        self.early = Overheard()
        """What went over the line, both ways, until so much had come; of a network nothing."""
        self._began: float | None = None
        self._sink = sink
        self._outbox: list[bytes] = []
        self._asked_at = 0.0

    def ask(self, request: Manipulate, *, repeatable: bool) -> None:
        """Put a question on the way; `answer` brings what came of it. Does not wait."""
        self._asked_at = trio.current_time()
        self.connection.ask(
            request,
            self._asked_at,
            repeatable=repeatable,
            tries=None if repeatable else _UNREPEATABLE_TRIES,
        )

    async def answer(self) -> Replied | Told | RequestFailed:
        """What came of the question that is open. Cancelled, it is abandoned.

        Raises TargetRefusedError where the target is a recording that does not hold the answer.
        """
        try:
            await self.flush()
            while True:
                event = await self.next_event()
                if isinstance(event, (Replied, Told, RequestFailed)):
                    self._check_recorded(event)
                    self._learn(event)
                    if not isinstance(event, RequestFailed) or event.reason is not FailureReason.DAMAGED:
                        return event
                    self.ask(event.request.less(self.read_size.ceiling), repeatable=True)
        except trio.Cancelled:
            self.connection.abandon()
            raise

    async def request(self, request: Manipulate, *, repeatable: bool) -> Replied | Told | RequestFailed:
        """Ask, wait for the answer, and acknowledge it."""
        self.ask(request, repeatable=repeatable)
        outcome = await self.answer()
        await self.flush()
        return outcome

    async def next_event(self) -> KdEvent:
        """The next thing that happened; the sink has been told of it. Waits as long as it takes."""
        event = self._take()
        while event is None:
            await self.flush()
            if await self._received_at_once():
                event = self._take()
                continue
            asleep = trio.current_time()
            due = self.connection.next_timeout()
            # One scope for all that comes until there is something to write: a cancelled write would tear a packet.
            with trio.CancelScope(deadline=inf if due is None else due) as scope:
                while event is None and not self._something_to_write():
                    # Bytes move the timer on, and the scope fires too early then: a call too many is harmless.
                    self._received(await self.transport.receive())
                    event = self._take()
                    # Half a packet is given up sooner than anything that was waited for before.
                    due = self.connection.next_timeout() if event is None else None
                    if due is not None and due < scope.deadline:
                        scope.deadline = due
            self._at_once = int(trio.current_time() - asleep < _AT_ONCE)
            if scope.cancelled_caught:
                self.connection.handle_timeout(trio.current_time())
                event = self._take()
        return event

    def _learn(self, outcome: Replied | Told | RequestFailed) -> None:
        if isinstance(outcome, Replied):
            seconds = (self.last_byte_at or 0.0) - self._asked_at
            self.read_size.answered(len(outcome.reply.data), self.bytes_received, self.damaged, seconds)
        elif isinstance(outcome, RequestFailed) and (asked := outcome.request.memory_wanted):
            self.read_size.unanswered(asked, self.bytes_received, self.damaged)

    def _check_recorded(self, outcome: Replied | Told | RequestFailed) -> None:
        refusal = self._recorded.refusal() if self._recorded is not None else ""
        if refusal:
            status = outcome.reply.status if isinstance(outcome, Replied) else 0
            raise TargetRefusedError(
                f"{self.transport.url}: {refusal}", api=api_name(outcome.request.api), status=status
            )

    async def _received_at_once(self) -> bool:
        """On a line whose last answer came at once, look whether this one does too, without going to sleep."""
        if self._prompt is None or not self._at_once:
            return False
        if self._at_once >= _MOST_AT_ONCE:
            self._at_once = 1
            await trio.lowlevel.checkpoint()
        chunk = self._prompt.receive_within(_AT_ONCE)
        if chunk is None:
            self._at_once = 0
            return False
        self._at_once += 1
        self._received(chunk)
        return True

    @property
    def transfer_sizes(self) -> tuple[int, int]:
        """Data bytes of a reply: what every target on this link can send, and what this one may be tried with."""
        if self._network is not None:
            return self._network.transfer_sizes
        size = self.read_size.ceiling
        return size, size

    def explain(self, wait: float | None = None) -> str | None:
        """Why there is nobody to talk to, where the transport knows; None: there is, or it does not know."""
        return None if self._network is None else self._network.explain(wait)

    def loss(self) -> str:
        """What the transport knows of a target that does not answer any more; may be empty."""
        return "" if self._network is None else self._network.loss()

    async def flush(self) -> None:
        """Write what the conversation wants to say, acknowledges above all."""
        if self._network is not None:
            while self._something_to_write():
                datagram = self._outbox.pop(0)
                self.bytes_sent += len(datagram)
                await self._network.send(datagram)
        elif self._something_to_write():
            data = b"".join(self._outbox)
            self._outbox.clear()
            self.bytes_sent += len(data)
            if len(self.first_bytes) < _FIRST_BYTES:
                self._note(True, data)
            await self.transport.send(data)

    def _note(self, sent: bool, data: bytes) -> None:
        now = trio.current_time()
        if self._began is None:
            self._began = now
        self.early.add(now - self._began, sent, data)

    def _something_to_write(self) -> bool:
        self._outbox += self.connection.data_to_send()
        return bool(self._outbox)

    def _received(self, chunk: bytes) -> None:
        now = trio.current_time()
        self.bytes_received = self.bytes_received + len(chunk) if self._network is None else self._network.received
        self.last_byte_at = now
        if len(self.first_bytes) < _FIRST_BYTES:
            self.first_bytes += chunk[:_FIRST_BYTES]
            self._note(False, chunk)
        self.connection.receive_data(chunk, now)

    def _take(self) -> KdEvent | None:
        event = self.connection.next_event()
        if event is None:
            return None
        if isinstance(event, Discarded):
            self.discards[event.reason] += event.count
            self.damaged += event.reason in _DAMAGED
        elif not isinstance(event, RequestFailed):
            self.messages += 1
        if not isinstance(event, (Replied, Told)):
            self._sink(event)
        return event
