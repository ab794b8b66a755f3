"""Puts a simulated target on a real network: it pokes a debugger over UDP (KDNET), whether one is there or not.

net:HOST:PORT[,key=w.x.y.z][,version=2|4|5][,from=ADDRESS[:PORT]][,newport]

HOST and PORT are where the debugger listens; the key may also be in KDBRIDGE_KEY. `from` is what the target calls its
own address; with `newport` it comes from another port in every life.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import trio

from protocol.kdnet import Address, ControlKey, Endpoint, KdnetLink, KeyTextError, TargetChannel, parse_key

from .cipher import AesCbc
from .errors import SimulationError
from .net import Faults, NetworkedTarget
from .target import KdTarget

__all__ = ["NetLine", "parse_net", "run_net", "serve_net"]

_FORM = "net:HOST:PORT, such as net:127.0.0.1:50000,key=w.x.y.z,version=5"
_VARIABLE = "KDBRIDGE_KEY"
_VERSIONS = {"2": 2, "4": 4, "5": 5}
_LARGEST = 65535


@dataclass(frozen=True, slots=True)
class NetLine:
    """Where a target pokes, and how."""

    host: str
    port: int
    key: ControlKey = field(repr=False)
    version: int = 5
    own: str = ""
    """Its own address; empty: the one that leads to the debugger."""
    own_port: int | None = None
    new_port: bool = False


def parse_net(where: str, environment: Mapping[str, str]) -> NetLine:
    """Read `net:…`. Raises SimulationError, in which no key is shown."""
    place, *items = where.removeprefix("net:").split(",")
    host, port = _place(place, None)
    if not host or not port:
        raise SimulationError(f"a target on the network has to be told where its debugger is; write {_FORM}")
    options = dict.fromkeys(("key", "version", "from", "newport"), "")
    for item in items:
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in options or options[name]:
            raise SimulationError(f"--on net: knows {', '.join(options)}, each once; write {_FORM}")
        options[name] = value or ("1" if name == "newport" else "")
    version = _VERSIONS.get(options["version"] or "5")
    if version is None:
        raise SimulationError(f"version={options['version']} is none that was ever seen; there are 2, 4 and 5")
    text = options["key"] or environment.get(_VARIABLE, "")
    if not text.strip():
        raise SimulationError(f"there is no key: write {_FORM}, or put it into {_VARIABLE}")
    try:
        key = parse_key(text)
    except KeyTextError as error:
        raise SimulationError(str(error)) from None
    own, own_port = _place(options["from"], "from")
    return NetLine(host, port, key, version, own, own_port, options["newport"] == "1")


async def run_net(
    target: KdTarget,
    line: NetLine,
    tell: Callable[[str], object],
    *,
    begin: Callable[[KdTarget], None] | None = None,
    faults: Faults | None = None,
) -> None:
    """Poke the debugger for ever, and be its target. `tell` is called with what a debugger has to be told.

    `begin` puts the target where its scenario begins. Raises SimulationError when the debugger's address cannot be.
    """
    try:
        found = await trio.socket.getaddrinfo(line.host, line.port, type=socket.SOCK_DGRAM)
        family, _, _, _, where = found[0]
        host = cast("Address", where)
        bound = _bind(line, family, host)
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise SimulationError(f"cannot poke {line.host} port {line.port}: {text}") from error
    try:
        own = bound.getsockname()
        channel = TargetChannel(
            line.key, AesCbc(), os.urandom, own=Endpoint(own[0], own[1]), host=host, version=line.version
        )
        networked = NetworkedTarget(target, KdnetLink(channel), begin, faults or Faults())
        tell(f"net:port={line.port},key=…")
        while True:
            await serve_net(networked, bound, one_life=line.new_port)
            bound.close()
            bound = _socket(family, own[0], 0)
    finally:
        bound.close()


async def serve_net(networked: NetworkedTarget, bound: socket.socket, *, one_life: bool = False) -> None:
    """Run the target on this socket, which does not block: for ever, or until the machine restarts."""
    lives = networked.target.lives
    while not one_life or networked.target.lives == lives:
        _say(networked, bound)
        try:
            datagram, source = bound.recvfrom(_LARGEST)
        except BlockingIOError:
            due = networked.next_timeout()
            with trio.CancelScope(deadline=float("inf") if due is None else due):
                await trio.lowlevel.wait_readable(bound)
            continue
        except ConnectionError:
            # Windows: something that was sent found nobody.
            continue
        await trio.lowlevel.checkpoint_if_cancelled()
        networked.receive(datagram, source, trio.current_time())


def _say(networked: NetworkedTarget, bound: socket.socket) -> None:
    for datagram, destination in networked.datagrams_to_send(trio.current_time()):
        try:
            bound.sendto(datagram, destination)
        except OSError:
            # A machine pokes whether or not there is a network.
            continue


def _bind(line: NetLine, family: int, host: Address) -> socket.socket:
    """A socket at the address that leads to the debugger, and where that is another machine, at the same port."""
    own, port = line.own, line.own_port
    if not own:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Says which way it is; nothing is sent.
            probe.connect(host)
            own = probe.getsockname()[0]
    if port is None:
        port = 0 if own == host[0] else line.port
    return _socket(family, own, port)


def _socket(family: int, own: str, port: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        bound.bind((own, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _place(text: str, option: str | None) -> tuple[str, int | None]:
    """Address and port; a port need not be there for an option's."""
    host, colon, digits = text.rpartition(":")
    if option is not None and (not colon or (":" in host and not text.startswith("["))):
        host, digits = text, ""
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if option is not None and host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise SimulationError(f"{option}={text} is no IP address of this machine") from None
    if not digits and option is not None:
        return host, None
    if not digits.isascii() or not digits.isdigit() or len(digits) > 5 or int(digits) > 0xFFFF:
        raise SimulationError(f"{text!r} names no port; write {_FORM}")
    return host, int(digits)
