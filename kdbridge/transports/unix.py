"""unix: and unix-listen: a virtual machine's serial port on a Unix socket (QEMU, VirtualBox, VMware on Linux).

unix:PATH           connects
unix-listen:PATH    waits for one connection; a socket file that nobody listens on any more is replaced, anything
                    else at that place stays, and the file is removed when the listening ends
"""

from __future__ import annotations

import contextlib
import errno
import socket
import stat
from pathlib import Path

import trio

from kdbridge.errors import TransportOpenError, UsageError

from .address import TargetAddress
from .stream import ByteStream, ListenTransport, StreamTransport, reason, socket_stream

__all__ = ["listen_unix", "open_unix"]

_LOST = "the other side closed the socket; see whether the virtual machine still runs, then start again"


async def open_unix(address: TargetAddress) -> StreamTransport:
    """Connect. Raises TransportOpenError."""
    peer = _socket(address)
    try:
        await peer.connect(address.place)
    except BaseException as error:
        peer.close()
        if isinstance(error, (OSError, ValueError)):
            raise TransportOpenError(f"{address.url}: {_why(error)}") from error
        raise
    return StreamTransport(address.url, socket_stream(peer), (), _LOST)


async def listen_unix(address: TargetAddress) -> ListenTransport:
    """Listen, and return at once. Raises TransportOpenError."""
    listener = _socket(address)
    try:
        await _remove_stale(address)
        await listener.bind(address.place)
        listener.listen(1)
    except BaseException as error:
        listener.close()
        if isinstance(error, (OSError, ValueError)):
            raise TransportOpenError(f"{address.url}: cannot listen there: {_why(error)}") from error
        raise
    path = Path(address.place)
    with contextlib.suppress(OSError):
        ours = path.stat().st_ino  # noqa: ASYNC240  (one look at a name)

    async def accept() -> tuple[ByteStream, str]:
        peer, _ = await listener.accept()
        return socket_stream(peer), "connected"

    def close() -> None:
        listener.close()
        with contextlib.suppress(OSError):
            if path.stat().st_ino == ours:
                path.unlink()

    return ListenTransport(address.url, accept, close, _LOST)


def _socket(address: TargetAddress) -> trio.socket.SocketType:
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise UsageError(rf"{address.url}: this system's Python has no Unix sockets; use pipe:\\.\pipe\NAME")
    return trio.socket.socket(family, socket.SOCK_STREAM)


async def _remove_stale(address: TargetAddress) -> None:
    """Remove the socket file of a listener that is gone. Raises TransportOpenError for anything else there."""
    path = trio.Path(address.place)
    try:
        mode = (await path.lstat()).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise TransportOpenError(f"{address.url}: there is a file at that place that is no socket; it stays")
    with _socket(address) as probe:
        try:
            await probe.connect(address.place)
        except ConnectionRefusedError:
            await path.unlink()
            return
    raise TransportOpenError(f"{address.url}: another program listens there; end it, or take another path")


def _why(error: OSError | ValueError) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return "there is no such socket; is the virtual machine running, and is its serial port on this path?"
    if number == errno.ECONNREFUSED:
        return "the socket is there, but nobody listens on it; start the virtual machine, or its serial port"
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied; see who owns the socket and its folder (ls -l)"
    if number in (errno.EPROTOTYPE, errno.ENOTSOCK):
        return "this is not a stream socket"
    return reason(error)
