"""Puts a simulated target on a real line: a pty, a TCP or Unix socket. One debugger at a time, any number in turn.

pty:             a new pseudo terminal; its name is told
pty:PATH         the same, with a symbolic link at PATH
tcp:HOST:PORT    listens; port 0 takes a free one
unix:PATH        listens on a socket file
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

import trio

from .errors import SimulationError
from .target import KdTarget
from .wire import Pacer

__all__ = ["ByteStream", "open_line", "serve"]

_CHUNK = 65536


class ByteStream(Protocol):
    """A line with somebody at its other end."""

    async def send_all(self, data: bytes) -> None:
        """Write all of it."""
        ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What has come; empty at the end."""
        ...

    async def aclose(self) -> None:
        """Hang up."""
        ...


async def serve(target: KdTarget, stream: ByteStream, baud: int | None = None) -> None:
    """Run the target on this line until the debugger hangs up. The target keeps its state."""
    to_target, to_host = Pacer(baud), Pacer(baud)
    while True:
        now = trio.current_time()
        arrived = to_target.arrived(now)
        if arrived:
            target.receive_data(arrived, now)
        due = target.next_timeout()
        if due is not None and due <= now:
            target.handle_timeout(now)
        for chunk in target.data_to_send():
            to_host.send(chunk, now)
        ready = to_host.arrived(now)
        if ready:
            try:
                await stream.send_all(ready)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            continue
        times = [t for t in (target.next_timeout(), to_target.next_arrival(), to_host.next_arrival()) if t is not None]
        arrival: bytes | bytearray | None = None
        with trio.CancelScope(deadline=min(times, default=float("inf"))):
            try:
                arrival = await stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
        if arrival is None:
            continue
        if not arrival:
            return
        now = trio.current_time()
        if baud is None:
            target.receive_data(bytes(arrival), now)
        else:
            to_target.send(bytes(arrival), now)


@contextlib.asynccontextmanager
async def open_line(where: str) -> AsyncIterator[tuple[str, Callable[[], AsyncIterator[ByteStream]]]]:
    """Open what `where` names. Gives the URL a debugger connects to, and the debuggers that come, one after another.

    Raises SimulationError when the place cannot be had.
    """
    scheme, _, rest = where.partition(":")
    try:
        if scheme == "pty":
            with _pty(rest) as (name, master):
                yield f"serial:{name}", lambda: _pty_streams(master)
        elif scheme == "tcp":
            host, _, port = rest.rpartition(":")
            if not port.isdigit():
                raise SimulationError(f"{where!r}: write tcp:HOST:PORT, such as tcp:127.0.0.1:5003")
            listeners = await trio.open_tcp_listeners(int(port), host=host.strip("[]") or "127.0.0.1")
            bound = listeners[0].socket.getsockname()
            shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            async with contextlib.AsyncExitStack() as stack:
                for listener in listeners:
                    stack.push_async_callback(listener.aclose)
                yield f"tcp:{shown}:{bound[1]}", lambda: _accepted(listeners[0])
        elif scheme == "unix":
            _make_room(rest)
            server = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            await server.bind(rest)
            server.listen(1)
            try:
                yield f"unix:{rest}", lambda: _accepted(trio.SocketListener(server))
            finally:
                server.close()
                _make_room(rest)
        else:
            raise SimulationError(f"{where!r}: a target can be put on pty:, tcp:HOST:PORT or unix:PATH")
    except OSError as error:
        raise SimulationError(f"cannot serve on {where}: {error.strerror or error}") from error


def _make_room(path: str) -> None:
    """Remove a socket that an earlier server left behind; anything else at this place stays."""
    if Path(path).is_socket():
        Path(path).unlink()


async def _accepted(listener: trio.SocketListener) -> AsyncIterator[ByteStream]:
    while True:
        stream = await listener.accept()
        with contextlib.suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield stream


@contextlib.contextmanager
def _pty(link: str) -> Iterator[tuple[str, int]]:
    import pty
    import tty

    master, slave = pty.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)
    path = Path(link) if link else None
    try:
        if path is not None:
            path.unlink(missing_ok=True)
            path.symlink_to(name)
        # The slave stays open here: else the master reports a hang-up whenever no debugger has the line open.
        yield str(path or name), master
    finally:
        os.close(slave)
        with contextlib.suppress(OSError):
            os.close(master)
        if path is not None:
            path.unlink(missing_ok=True)


async def _pty_streams(master: int) -> AsyncIterator[ByteStream]:
    yield trio.lowlevel.FdStream(os.dup(master))
