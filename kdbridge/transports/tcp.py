"""tcp: and tcp-listen: a serial line that somebody carries over TCP: a virtual machine, a terminal server, socat.

tcp:HOST:PORT           connects
tcp-listen:HOST:PORT    waits for one connection; port 0 takes a free one, the transport's url and notes say which
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys

import trio

from kdbridge.errors import TransportOpenError

from .address import TargetAddress
from .stream import ByteStream, ListenTransport, StreamTransport, reason, socket_stream

__all__ = ["listen_tcp", "open_tcp"]

_CONNECT_WITHIN = 15.0
_LOST = "the other side ended the connection; see whether the machine at its end still runs, then start again"
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
"""A peer without power is noticed after about a minute (seconds, seconds, probes)."""


async def open_tcp(address: TargetAddress) -> StreamTransport:
    """Connect. Raises TransportOpenError."""
    try:
        with trio.fail_after(_CONNECT_WITHIN):
            stream = await trio.open_tcp_stream(address.host, address.port)
    except trio.TooSlowError:
        raise TransportOpenError(
            f"{address.url}: no answer in {_CONNECT_WITHIN:g} seconds; is the host on, and does a firewall let this by?"
        ) from None
    except (OSError, UnicodeError) as error:
        raise TransportOpenError(f"{address.url}: {_why(error)}") from error
    _prepare(stream.socket)
    return StreamTransport(address.url, socket_stream(stream.socket), (), _LOST)


async def listen_tcp(address: TargetAddress) -> ListenTransport:
    """Listen, and return at once. Raises TransportOpenError."""
    try:
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = found[0]
        listener = trio.socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await listener.bind(where)
            listener.listen(1)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise TransportOpenError(f"{address.url}: cannot listen there: {_why(error)}") from error
    url = TargetAddress(address.scheme, host=address.host, port=listener.getsockname()[1]).url

    async def accept() -> tuple[ByteStream, str]:
        peer, name = await listener.accept()
        _prepare(peer)
        return socket_stream(peer), f"connected: {name[0]} port {name[1]}"

    return ListenTransport(url, accept, listener.close, _LOST)


def _prepare(peer: trio.socket.SocketType) -> None:
    """Small packets at once, and notice when nobody is there any more."""
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _why(error: OSError | UnicodeError) -> str:
    text = reason(error)
    if isinstance(error, UnicodeError):
        return "this cannot be the name of a host"
    if isinstance(error, socket.gaierror):
        return f"the host is not known ({text})"
    if text == os.strerror(errno.ECONNREFUSED):
        return "nobody listens there (connection refused); is the machine's serial port served on this port?"
    if text == os.strerror(errno.EADDRINUSE):
        return "another program listens there; end it, or take another port (0 takes a free one)"
    return text
