"""A transport over any stream of trio's: a socket, a tty. And one that waits for somebody to connect."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

import trio

from kdbridge.errors import TransportLostError

__all__ = ["ByteStream", "ListenTransport", "PromptStream", "StreamTransport", "reason", "socket_stream"]

_CHUNK = 65536


def socket_stream(peer: trio.socket.SocketType) -> ByteStream:
    """A connected socket as a stream; the socket is its own from here on."""
    if sys.platform == "win32":
        return trio.SocketStream(peer)
    from .descriptor import DescriptorStream

    return DescriptorStream(peer.detach())


class ByteStream(Protocol):
    """What a stream must do: trio's SocketStream and FdStream do it."""

    async def send_all(self, data: bytes) -> None:
        """Write all of it."""
        ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What has come; empty at the end."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


@runtime_checkable
class PromptStream(ByteStream, Protocol):
    """A stream that can be looked at without going to sleep."""

    def receive_within(self, seconds: float) -> bytes | None:
        """What comes within this short time, empty at the end; None: nothing did."""
        ...


def reason(error: BaseException) -> str:
    """What the system said, out of whatever trio wrapped it in."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        elif isinstance(inner, OSError) and inner.errno and inner.errno > 0:
            # trio puts the address into the text.
            return os.strerror(inner.errno)
        elif isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        else:
            inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__


async def _aclose(stream: ByteStream) -> None:
    # A cancelled aclose of trio's closes at once and raises; whoever gives a transport back wants only the first.
    with trio.CancelScope() as scope:
        scope.cancel()
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            await stream.aclose()


class StreamTransport:
    """Bytes over one stream. A cancelled `send` may have sent a part; a cancelled `receive` has taken nothing."""

    def __init__(self, url: str, stream: ByteStream, notes: Sequence[str], lost: str) -> None:
        self._url, self._stream, self._notes, self._lost = url, stream, tuple(notes), lost
        self._prompt = stream if isinstance(stream, PromptStream) else None

    @property
    def url(self) -> str:
        """Where it leads."""
        return self._url

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known about how it was opened."""
        return self._notes

    async def send(self, data: bytes) -> None:
        """Write all of it. Raises TransportLostError."""
        try:
            await self._stream.send_all(data)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._gone(error) from error

    async def receive(self) -> bytes:
        """At least one byte. Raises TransportLostError."""
        try:
            data = await self._stream.receive_some(_CHUNK)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._gone(error) from error
        if not data:
            raise self._gone(None)
        return bytes(data)

    def receive_within(self, seconds: float) -> bytes | None:
        """What comes within this short time, if the stream can tell. Raises TransportLostError."""
        if self._prompt is None:
            return None
        try:
            data = self._prompt.receive_within(seconds)
        except (OSError, trio.ClosedResourceError) as error:
            raise self._gone(error) from error
        if data == b"":
            raise self._gone(None)
        return data

    async def aclose(self) -> None:
        """Close the stream."""
        await _aclose(self._stream)

    def _gone(self, error: BaseException | None) -> TransportLostError:
        if isinstance(error, trio.ClosedResourceError):
            return TransportLostError(f"{self._url} was closed by this program")
        detail = "" if error is None else f" ({reason(error)})"
        return TransportLostError(f"{self._url}: {self._lost}{detail}")


class ListenTransport:
    """Waits, inside `send` and `receive`, for the first that connects, and talks to nobody else after it.

    So opening it returns at once, and what it waits for can be told. `accept` gives the first connection and what it
    is; `close` ends the listening.
    """

    def __init__(
        self,
        url: str,
        accept: Callable[[], Awaitable[tuple[ByteStream, str]]],
        close: Callable[[], None],
        lost: str,
    ) -> None:
        self._url, self._accept, self._close, self._lost = url, accept, close, lost
        self._open = True
        self._peer: StreamTransport | None = None
        self._notes: tuple[str, ...] = (f"waits at {url} for the target's side to connect",)

    @property
    def url(self) -> str:
        """Where it listens, with the port that it got."""
        return self._url

    @property
    def notes(self) -> tuple[str, ...]:
        """Where it listens, and who came."""
        return self._notes

    @property
    def connected(self) -> bool:
        """Whether anybody has come."""
        return self._peer is not None

    async def wait(self) -> None:
        """Wait for the peer. Raises TransportLostError."""
        await self._connected()

    async def send(self, data: bytes) -> None:
        """Wait for the peer, then write all of it. Raises TransportLostError."""
        await (await self._connected()).send(data)

    async def receive(self) -> bytes:
        """Wait for the peer, then for at least one byte. Raises TransportLostError."""
        return await (await self._connected()).receive()

    def receive_within(self, seconds: float) -> bytes | None:
        """What the peer says within this short time. Raises TransportLostError."""
        return None if self._peer is None else self._peer.receive_within(seconds)

    async def aclose(self) -> None:
        """Hang up, or stop listening."""
        self._stop()
        if self._peer is not None:
            await self._peer.aclose()

    async def _connected(self) -> StreamTransport:
        if self._peer is None:
            if not self._open:
                raise TransportLostError(f"{self._url} was closed by this program")
            try:
                stream, who = await self._accept()
            except (OSError, trio.ClosedResourceError) as error:
                raise TransportLostError(f"{self._url}: cannot listen any more ({error})") from error
            self._peer = StreamTransport(self._url, stream, (), self._lost)
            self._notes = (*self._notes, who)
            self._stop()
        return self._peer

    def _stop(self) -> None:
        if self._open:
            self._open = False
            self._close()
