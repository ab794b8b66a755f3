"""Puts a simulated target on a real line: a pty, a TCP or Unix socket. One debugger at a time, any number in turn.

pty:             a new pseudo terminal; its name is told
pty:PATH         the same, with a symbolic link at PATH
tcp:HOST:PORT    listens; port 0 takes a free one
unix:PATH        listens on a socket file

While nobody is there the machine stands still: whoever comes finds it as the one before left it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import trio

from .damage import FaultyLine
from .errors import SimulationError
from .faults import LineFaults
from .target import KdTarget
from .wire import Wire

__all__ = ["ByteStream", "open_line", "run", "serve"]

_CHUNK = 65536
_PATIENCE = 0.5
"""Seconds in which a debugger must take what is sent; then the line loses it, as a UART does with what nobody reads."""
_LOOK = 0.02
"""Seconds between two looks whether somebody has opened the pty: the kernel tells when it is closed only."""


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


async def run(
    target: KdTarget,
    where: str,
    baud: int | None,
    tell: Callable[[str], object],
    *,
    once: bool = False,
    faults: LineFaults | None = None,
) -> None:
    """Put the target on the line that `where` names, and serve one debugger after another, for ever.

    `tell` is called with the URL of the line as soon as a debugger can come. The target keeps its state from one
    debugger to the next, and so does a line with `faults`. With `once` it ends when the first one hangs up. Raises
    SimulationError when the line cannot be had.
    """
    line = None if faults is None else FaultyLine(faults, baud)
    async with open_line(where) as (url, next_debugger):
        tell(url)
        while True:
            stream = await next_debugger()
            try:
                await serve(target, stream, baud, line)
            finally:
                await stream.aclose()
            if once:
                return


async def serve(
    target: KdTarget, stream: ByteStream, baud: int | None = None, faults: LineFaults | FaultyLine | None = None
) -> None:
    """Run the target on this line until the debugger hangs up. The target keeps its state."""
    wire = Wire(target, baud, faults)
    while True:
        ready = wire.receive(trio.current_time())
        try:
            if ready:
                with trio.move_on_after(_PATIENCE):
                    await stream.send_all(ready)
                continue
            due = wire.next_time(trio.current_time())
            arrival: bytes | bytearray | None = None
            with trio.CancelScope(deadline=float("inf") if due is None else due):
                arrival = await stream.receive_some(_CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        if arrival is None:
            continue
        if not arrival:
            return
        wire.send(bytes(arrival), trio.current_time())


@contextlib.asynccontextmanager
async def open_line(where: str) -> AsyncIterator[tuple[str, Callable[[], Awaitable[ByteStream]]]]:
    """Open what `where` names. Gives the URL a debugger connects to, and what waits for the next one to come.

    Raises SimulationError when the place cannot be had.
    """
    scheme, _, rest = where.partition(":")
    async with contextlib.AsyncExitStack() as stack:
        try:
            if scheme == "pty":
                line = stack.enter_context(_pty(rest))
                url, next_debugger = f"serial:{rest or line.name}", line.opened
            elif scheme == "tcp":
                listener = await _listen_tcp(where, rest)
                stack.push_async_callback(listener.aclose)
                address = listener.socket.getsockname()
                shown = f"[{address[0]}]" if ":" in address[0] else address[0]
                url, next_debugger = f"tcp:{shown}:{address[1]}", lambda: _accept(listener)
            elif scheme == "unix" and rest:
                _make_room(rest)
                server = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                stack.callback(server.close)
                await server.bind(rest)
                stack.callback(_make_room, rest)
                server.listen(1)
                listener = trio.SocketListener(server)
                url, next_debugger = f"unix:{rest}", lambda: _accept(listener)
            else:
                raise SimulationError(f"{where!r}: a target can be put on pty:, tcp:HOST:PORT or unix:PATH")
        except OSError as error:
            raise SimulationError(f"cannot serve on {where}: {error.strerror or error}") from error
        yield url, next_debugger


async def _listen_tcp(where: str, rest: str) -> trio.SocketListener:
    host, _, port = rest.rpartition(":")
    if not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 0xFFFF:
        raise SimulationError(f"{where!r}: write tcp:HOST:PORT, such as tcp:127.0.0.1:5003")
    listeners = await trio.open_tcp_listeners(int(port), host=host.strip("[]") or "127.0.0.1")
    # A name may stand for several addresses; debuggers are told one, and IPv4 is what all of them speak.
    listeners.sort(key=lambda listener: listener.socket.family != socket.AF_INET)
    for other in listeners[1:]:
        await other.aclose()
    return listeners[0]


def _make_room(path: str) -> None:
    """Remove a socket that an earlier server left behind; anything else at this place stays."""
    if Path(path).is_socket():
        Path(path).unlink()


async def _accept(listener: trio.SocketListener) -> ByteStream:
    stream = await listener.accept()
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


@contextlib.contextmanager
def _pty(link: str) -> Iterator[_PtyLine]:
    import pty
    import tty

    master, slave = pty.openpty()
    path: Path | None = None
    try:
        tty.setraw(slave)
        name = os.ttyname(slave)
        # Not kept open here: so the master hears when the last debugger has closed it.
        os.close(slave)
        if link:
            if Path(link).is_symlink():
                Path(link).unlink()
            Path(link).symlink_to(name)
            path = Path(link)
        yield _PtyLine(name, master)
    finally:
        os.close(master)
        if path is not None:
            path.unlink(missing_ok=True)


class _PtyLine:
    """A pseudo terminal, of which one side is ours."""

    def __init__(self, name: str, master: int) -> None:
        self.name = name
        self._master = master
        self._hung_up = select.poll()
        self._hung_up.register(master, select.POLLHUP)

    async def opened(self) -> ByteStream:
        """Wait until somebody has it open."""
        if self._nobody():
            self._forget()
        while True:
            if not self._nobody():
                return trio.lowlevel.FdStream(os.dup(self._master))
            await trio.sleep(_LOOK)

    def _nobody(self) -> bool:
        return any(events & select.POLLHUP for _, events in self._hung_up.poll(0))

    def _forget(self) -> None:
        """What the one before did not read is not for the next one."""
        import termios

        with contextlib.suppress(OSError, termios.error):
            slave = os.open(self.name, os.O_RDWR | os.O_NOCTTY)
            try:
                termios.tcflush(slave, termios.TCIFLUSH)
            finally:
                os.close(slave)
