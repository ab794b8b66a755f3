"""Standing between a debugger and its target: everything goes through unchanged, and is shown to whoever looks.

Over a line, one debugger at a time: when it hangs up, the next one is waited for, and the target hears of neither.
While no debugger is there, what the target says is shown and goes nowhere, as on a cable with nobody at its end.
Over a network, each address that a target comes from has one of ours towards the debugger.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, runtime_checkable

import trio

from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.transports import TargetAddress, Transport
from kdbridge.transports.stream import reason
from kdbridge.transports.tap import Tap
from protocol.errors import KdError
from protocol.kdnet import Address

__all__ = ["bind_datagrams", "relay_datagrams", "relay_line"]

_MOST_TARGETS = 64
_LARGEST = 65535


@runtime_checkable
class _Awaited(Protocol):
    """A way at whose other end nobody is at first."""

    async def wait(self) -> None: ...


async def relay_line(
    debugger: Transport,
    target: Transport,
    tap: Tap,
    tell: Callable[[str], None],
    again: Callable[[Transport], Awaitable[Transport]] | None = None,
) -> None:
    """Carry bytes both ways, for ever. `again` makes ready for the next debugger, where another one can
    come: it gets the way of the one that hung up, and gives that of the next.

    Closes the debugger's side. Raises TransportLostError when the target's side is lost, or the debugger's and nobody
    else can come.
    """
    line = _Line(debugger, target, tap)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.from_target, nursery.cancel_scope)
        await line.from_debuggers(tell, again)
        nursery.cancel_scope.cancel()
    if line.failure is not None:
        raise line.failure


class _Line:
    """The two ends, and whether somebody is at the debugger's."""

    def __init__(self, debugger: Transport, target: Transport, tap: Tap) -> None:
        self.failure: KdError | None = None
        self._debugger = debugger
        self._target = target
        self._tap = tap
        self._there = False

    async def from_target(self, scope: trio.CancelScope) -> None:
        """Carry what the target says, until it is lost: then everything ends."""
        try:
            while True:
                data = await self._target.receive()
                self._tap.stream(False, data)
                if self._there:
                    # A debugger that is gone is noticed by who listens to it.
                    with suppress(TransportLostError):
                        await self._debugger.send(data)
        except TransportLostError as error:
            self.failure = error
            scope.cancel()

    async def from_debuggers(
        self, tell: Callable[[str], None], again: Callable[[Transport], Awaitable[Transport]] | None
    ) -> None:
        """Carry what one debugger after another says."""
        try:
            while True:
                lost = await self._from_debugger(tell)
                if self.failure is not None:
                    return
                if again is None:
                    self.failure = lost
                    return
                tell("the debugger hung up; the next one is waited for")
                self._debugger = await again(self._debugger)
        except KdError as error:
            self.failure = error
        finally:
            await self._debugger.aclose()

    async def _from_debugger(self, tell: Callable[[str], None]) -> TransportLostError:
        try:
            if isinstance(self._debugger, _Awaited):
                await self._debugger.wait()
                tell(self._debugger.notes[-1])
            self._there = True
            while True:
                data = await self._debugger.receive()
                self._tap.stream(True, data)
                await self._to_target(data)
        except TransportLostError as error:
            return error
        finally:
            self._there = False

    async def _to_target(self, data: bytes) -> None:
        try:
            await self._target.send(data)
        except TransportLostError as error:
            self.failure = error
            raise


async def bind_datagrams(address: TargetAddress) -> socket.socket:
    """A socket where a `net:` address says that its target pokes. Raises TransportOpenError."""
    family, place = socket.AF_INET, address.host or "0.0.0.0"
    if ":" in address.host:
        family = socket.AF_INET6
    elif not address.host and socket.has_dualstack_ipv6():
        family, place = socket.AF_INET6, "::"
    bound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address.host)))
        bound.bind((place, address.port))
    except OSError as error:
        bound.close()
        raise TransportOpenError(f"{address.url}: cannot listen there: {reason(error)}") from error
    return bound


async def relay_datagrams(listening: socket.socket, debugger: Address, tap: Tap, tell: Callable[[str], None]) -> None:
    """Carry datagrams both ways, for ever: what comes to the socket goes to the debugger, and its answers go back.

    Closes the socket. Raises TransportLostError when it fails.
    """
    relay = _Relay(listening, debugger, tap, tell)
    async with trio.open_nursery() as nursery:
        await relay.from_targets(nursery)
        nursery.cancel_scope.cancel()
    if relay.failure is not None:
        raise relay.failure


class _Relay:
    """Targets by the address they come from, and the socket through which each talks to the debugger."""

    def __init__(self, listening: socket.socket, debugger: Address, tap: Tap, tell: Callable[[str], None]) -> None:
        self.failure: TransportLostError | None = None
        self._listening = listening
        self._debugger = debugger
        self._tap = tap
        self._tell = tell
        self._ways: OrderedDict[Address, socket.socket] = OrderedDict()

    async def from_targets(self, nursery: trio.Nursery) -> None:
        """Carry what comes from targets."""
        try:
            while True:
                datagram, source = await self._next(self._listening)
                way = self._ways.get(source)
                if way is None:
                    way = self._new_way(source)
                    nursery.start_soon(self._from_debugger, way, source)
                self._ways.move_to_end(source)
                # Carried on first: showing it takes longer.
                _send(way, datagram, self._debugger)
                self._tap.datagram(_plain(source), self._debugger, datagram)
        except (OSError, trio.ClosedResourceError) as error:
            self.failure = TransportLostError(f"the socket that targets poke failed ({reason(error)})")
        finally:
            self._listening.close()
            for way in self._ways.values():
                _close(way)

    async def _from_debugger(self, way: socket.socket, target: Address) -> None:
        with suppress(OSError, trio.ClosedResourceError):
            while True:
                datagram, source = await self._next(way)
                if source[:2] == self._debugger[:2]:
                    _send(self._listening, datagram, target)
                    self._tap.datagram(self._debugger, _plain(target), datagram)

    def _new_way(self, source: Address) -> socket.socket:
        if len(self._ways) >= _MOST_TARGETS:
            # Anybody can send from many addresses: who was silent longest goes.
            _close(self._ways.popitem(last=False)[1])
        way = socket.socket(socket.AF_INET6 if ":" in self._debugger[0] else socket.AF_INET, socket.SOCK_DGRAM)
        way.setblocking(False)
        way.bind(("", 0))
        self._ways[source] = way
        self._tell("a target at {} port {}".format(*_plain(source)))
        return way

    async def _next(self, bound: socket.socket) -> tuple[bytes, Address]:
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                datagram, source = bound.recvfrom(_LARGEST)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(bound)
            except ConnectionError:
                # Something that was sent found nobody.
                continue
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return datagram, source


def _plain(address: Address) -> Address:
    """IPv4 addresses as such, though they come through a socket for both."""
    host = address[0].removeprefix("::ffff:")
    return (host, address[1]) if "." in host else address


def _send(way: socket.socket, datagram: bytes, destination: Address) -> None:
    # What cannot be sent is lost on the way, as datagrams are; KDNET sends it again.
    with suppress(OSError):
        way.sendto(datagram, destination)


def _close(way: socket.socket) -> None:
    trio.lowlevel.notify_closing(way)
    way.close()
