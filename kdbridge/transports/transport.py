"""What the engine needs of a way to a target: bytes out, bytes in; or datagrams, which are never joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from protocol.kdnet import Address
from protocol.link import Link

__all__ = ["DatagramTransport", "PromptTransport", "RecordedTransport", "Transport"]


class Transport(Protocol):
    """An open way to a target. One task uses it at a time. Cancelling `receive` loses nothing."""

    @property
    def url(self) -> str:
        """How the user named it, for messages: `serial:/dev/ttyUSB0?baud=115200`. Secrets are masked."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how it was opened: a low latency that could not be set, a peer's address."""
        ...

    async def send(self, data: bytes) -> None:
        """Write all of it. Raises TransportLostError when the way is gone."""
        ...

    async def receive(self) -> bytes:
        """At least one byte, as soon as there is one. Raises TransportLostError when the way is gone."""
        ...

    async def aclose(self) -> None:
        """Give the port or connection back. Never raises."""
        ...


@runtime_checkable
class DatagramTransport(Transport, Protocol):
    """A way that carries datagrams and has its link in itself: who sent one decides what it means.

    `send` takes one datagram of the link's. `receive` hands each that comes to the link, and gives b"" when the link
    has news for who sits above it. What the link says by itself (answers to pokes), the transport sends.
    """

    tell: Callable[[str], None]
    """Is told in words what happens on the network besides the conversation: a restart, another machine."""

    watch: Callable[[bool, bytes, Address], None] | None
    """Is shown every datagram as it is on the wire: whether we sent it, its bytes, and the other end's address."""

    @property
    def address(self) -> Address:
        """This end's own address, as its socket has it."""
        ...

    @property
    def link(self) -> Link:
        """The host's end. Its unsolicited restarts are new lives of the machine."""
        ...

    @property
    def received(self) -> int:
        """Bytes of all genuine datagrams that moved the conversation."""
        ...

    @property
    def transfer_sizes(self) -> tuple[int, int]:
        """Data bytes of a reply: what every target can send, and what this one may be tried with."""
        ...

    def explain(self, wait: float | None = None) -> str | None:
        """Why nobody can be talked to so far, from what has come; None: there is a session.

        `wait`: this is the end, after so many seconds, and numbers are wanted; else the text changes only when its
        reason does.
        """
        ...

    def loss(self) -> str:
        """What speaks for the target being lost to us, in a sentence; empty: nothing does."""
        ...


@runtime_checkable
class PromptTransport(Transport, Protocol):
    """A way on which an answer may be there sooner than a task can be put to sleep and woken."""

    def receive_within(self, seconds: float) -> bytes | None:
        """What comes within this short time, during which everything stands still; None: nothing did.

        Raises TransportLostError when the way is gone.
        """
        ...


@runtime_checkable
class RecordedTransport(Transport, Protocol):
    """A way to a machine that was recorded: it lacks what nobody asked for then."""

    tell: Callable[[str], None]
    """Is told in words of what the recording lacks."""

    def refusal(self) -> str:
        """Why the last answer was a refusal, where that is the recording's doing; empty: it is not."""
        ...
