"""A transport over a blocking port of pyserial's, for what cannot be waited for in another way.

Each receive is one short blocking read in a thread of trio's. What a read brings is kept first and handed out then:
a receive that was cancelled leaves a thread behind that ends within a tenth of a second, and its bytes are the next
receive's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import trio

from kdbridge.errors import TransportLostError

__all__ = ["READ_TIMEOUT", "BlockingPort", "ThreadedTransport", "close_quietly", "made_in_thread"]

READ_TIMEOUT = 0.1
"""How long one blocking read may take (s): what the port must be opened with."""
_CLOSE_WITHIN = 2.0
_CHUNK = 65536
_Port = TypeVar("_Port", bound="BlockingPort")


class BlockingPort(Protocol):
    """What is used of pyserial's ports."""

    @property
    def in_waiting(self) -> int:
        """Bytes that have come and were not read."""
        ...

    def read(self, size: int = 1, /) -> bytes:
        """As many, or what has come when the timeout is over."""
        ...

    def write(self, data: bytes, /) -> int | None:
        """How many were written."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


async def made_in_thread(make: Callable[[], _Port]) -> _Port:
    """An open port, from a thread. Cancelled, it comes to be closed as soon as it is open."""
    lock = threading.Lock()
    made: list[_Port] = []
    abandoned = False

    def work() -> None:
        port = make()
        with lock:
            if not abandoned:
                made.append(port)
                return
        close_quietly(port)

    try:
        await trio.to_thread.run_sync(work, abandon_on_cancel=True)
    except trio.Cancelled:
        with lock:
            abandoned = True
        for port in made:
            close_quietly(port)
        raise
    return made[0]


def close_quietly(port: BlockingPort) -> None:
    """Close a port that may be gone already."""
    try:
        port.close()
    except (OSError, ValueError):
        return


class ThreadedTransport:
    """Bytes over a port that only knows how to block. A cancelled `send` may still be sent."""

    def __init__(self, url: str, port: BlockingPort, notes: Sequence[str], lost: str) -> None:
        self._url, self._port, self._notes, self._lost = url, port, tuple(notes), lost
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._kept: deque[bytes] = deque()
        self._closed = False

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
        if self._closed:
            raise self._gone(None)
        try:
            await trio.to_thread.run_sync(self._write, data, abandon_on_cancel=True)
        except (OSError, TypeError) as error:
            raise self._gone(error) from error

    async def receive(self) -> bytes:
        """At least one byte. Raises TransportLostError."""
        await trio.lowlevel.checkpoint()
        while not self._kept:
            if self._closed:
                raise self._gone(None)
            try:
                await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)
            except (OSError, TypeError, AttributeError) as error:
                # pyserial trips over its own None when another thread closes the port.
                raise self._gone(error) from error
        return self._kept.popleft()

    async def aclose(self) -> None:
        """Close the port, and wait for that, but not for ever."""
        if not self._closed:
            self._closed = True
            with trio.CancelScope(shield=True), trio.move_on_after(_CLOSE_WITHIN):
                await trio.to_thread.run_sync(self._close, abandon_on_cancel=True)

    def _read(self) -> None:
        with self._reading:
            # The thread of a cancelled receive may have been faster.
            if self._kept or self._closed:
                return
            data = self._port.read(1)
            if data:
                waiting = min(self._port.in_waiting, _CHUNK)
                self._kept.append(data + (self._port.read(waiting) if waiting else b""))

    def _write(self, data: bytes) -> None:
        with self._writing:
            while data:
                data = data[self._port.write(data) or 0 :]

    def _close(self) -> None:
        with self._reading:
            close_quietly(self._port)

    def _gone(self, error: BaseException | None) -> TransportLostError:
        if self._closed:
            return TransportLostError(f"{self._url} was closed by this program")
        return TransportLostError(f"{self._url}: {self._lost} ({error})")
