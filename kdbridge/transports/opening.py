"""Opening a way to a target: each scheme's opener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from .address import TargetAddress, parse_target
from .net import open_net
from .pipe import open_pipe
from .rfc2217 import open_rfc2217
from .serial import open_serial
from .tcp import listen_tcp, open_tcp
from .transport import Transport
from .unix import listen_unix, open_unix

__all__ = ["OPENERS", "open_transport"]


async def _open_sim(address: TargetAddress) -> Transport:
    # The simulator is a program of its own: whoever has a real machine does not wait for it to load.
    from .sim import open_sim
    from .sim_net import open_sim_net

    options = dict(address.options)
    return (open_sim_net if "link" in options else open_sim)(address.url, address.place, options)


async def _open_replay(address: TargetAddress) -> Transport:
    # Here alone a way needs what is above it: what was recorded is read by the capture part.
    from kdbridge.capture.replay import open_replay

    return open_replay(address)


OPENERS: Mapping[str, Callable[[TargetAddress], Awaitable[Transport]]] = {
    "serial": open_serial,
    "tcp": open_tcp,
    "tcp-listen": listen_tcp,
    "unix": open_unix,
    "unix-listen": listen_unix,
    "pipe": open_pipe,
    "rfc2217": open_rfc2217,
    "net": open_net,
    "sim": _open_sim,
    "replay": _open_replay,
}
"""Who opens what, by scheme."""


async def open_transport(address: str) -> Transport:
    """Open the way that an address names. Raises UsageError, TransportOpenError."""
    parsed = parse_target(address)
    return await OPENERS[parsed.scheme](parsed)
