"""net: a machine whose kernel debugger is on the network (KDNET, UDP). It comes to us: this end only waits.

net:port=50000,key=w.x.y.z[,target=ADDRESS]     as WinDbg takes it
net://[BIND]:50000?key=w.x.y.z[&target=ADDRESS]
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import cast

import trio

from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.interfaces import local_addresses
from protocol.kdnet import Address
from protocol.kdnet.datagram import LARGEST_DATAGRAM

from .address import TargetAddress
from .net_end import HostEnd, HostWay
from .net_filter import dropped_by_system, keep_out_garbage
from .net_form import target_place
from .net_key import find_key
from .net_waiting import Place, show_address
from .stream import reason

__all__ = ["NetTransport", "open_net"]

_BURST = 32
"""Datagrams that are taken in a row before others get their turn."""
_MAPPED = "::ffff:"
_TOO_LONG = (errno.EMSGSIZE, 10040)
_GONE = (errno.EBADF, errno.ENOTSOCK, errno.EINVAL)


class NetTransport(HostWay):
    """One UDP socket, and the host's end of KDNET behind it.

    Whoever sends something here is heard; only what authenticates gets further than the link. A datagram that cannot
    be sent is one that got lost: it is sent again when its time comes, and `explain` and `loss` say why.
    """

    def __init__(self, url: str, bound: socket.socket, end: HostEnd, notes: tuple[str, ...] = ()) -> None:
        super().__init__(url, end)
        self._socket = bound
        self._notes = notes
        self._dual = bound.family == socket.AF_INET6
        self._woken = False
        self._guarded = False
        self._in_a_row = 0
        self._as_it_came: tuple[Address, Address] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Where it listens, and what is wrong with a key file."""
        return self._notes

    @property
    def address(self) -> Address:
        """Where the socket is bound to."""
        return self._plain(self._socket.getsockname())

    @property
    def ignored(self) -> int:
        """Datagrams that nobody looked at: kept out by the system, or too many from elsewhere than the target."""
        return self._end.unexamined + dropped_by_system(self._socket)

    async def send(self, data: bytes) -> None:
        """One datagram of the link's, to the target. Raises TransportLostError when the socket was closed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        peer = self._end.link.peer
        if peer is not None:
            self._send(data, peer)

    async def receive(self) -> bytes:
        """b"" when the link has news. Raises TransportLostError."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            again = self._end.solicit(trio.current_time())
            self._send_all()
            took = self._take_all()
            self._in_a_row = self._in_a_row + took if took else 0
            if self._in_a_row >= _BURST:
                # Whoever floods us must not keep timers and Ctrl-C from their turn.
                self._in_a_row = 0
                await trio.lowlevel.checkpoint()
            if self._woken:
                self._woken = False
                return b""
            if not took:
                await self._readable(again)

    def receive_within(self, seconds: float) -> bytes | None:
        """b"" when the link has news within this short time; None: it has not. Raises TransportLostError."""
        if not self._woken and not self._take_all():
            try:
                ready, _, _ = select.select((self._socket,), (), (), seconds)
            except (OSError, ValueError) as error:
                raise self._lost(error) from error
            if ready:
                self._take_all()
        if not self._woken:
            return None
        self._woken = False
        return b""

    async def aclose(self) -> None:
        """Close the socket."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    async def _readable(self, until: float | None) -> None:
        try:
            if until is None:
                await trio.lowlevel.wait_readable(self._socket)
            else:
                with trio.move_on_at(until):
                    await trio.lowlevel.wait_readable(self._socket)
        except (OSError, trio.ClosedResourceError) as error:
            raise self._lost(error) from error

    def _take_all(self) -> int:
        """Take what is there, but no more than is good for others; how many datagrams it was."""
        took = 0
        while took < _BURST and self._take():
            # An acknowledge and the reply behind it are one piece of news.
            took += 1
        return took

    def _take(self) -> bool:
        """Take a datagram; False: there is none."""
        try:
            datagram, source = self._socket.recvfrom(LARGEST_DATAGRAM + 1)
        except BlockingIOError:
            return False
        except OSError as error:
            if isinstance(error, ConnectionError) or error.errno in _TOO_LONG:
                # Windows: something that we sent found nobody; or what came is longer than any of KDNET's.
                return True
            raise self._lost(error) from error
        peer = self._plain(source)
        if self.watch is not None:
            self.watch(False, datagram, peer)
        if self._end.receive(datagram, peer, trio.current_time()):
            self._woken = True
            if not self._guarded:
                # There is a session: nobody needs to be told any more what else comes.
                self._guarded = True
                keep_out_garbage(self._socket)
        self._send_all()
        return True

    def _send_all(self) -> None:
        for datagram, destination in self._end.link.datagrams_to_send():
            self._send(datagram, destination)

    def _send(self, datagram: bytes, destination: Address) -> None:
        to: Address = destination
        if self._dual and ":" not in destination[0]:
            to = (_MAPPED + destination[0], destination[1], 0, 0)
        if self.watch is not None:
            self.watch(True, datagram, destination)
        unsent = self._end.place.unsent
        try:
            self._socket.sendto(datagram, to)
        except BlockingIOError:
            # No room: as good as lost on the way.
            return
        except OSError as error:
            if error.errno in _GONE and self._socket.fileno() < 0:
                raise self._lost(error) from error
            unsent[show_address(destination)] = reason(error)
            return
        if unsent:
            unsent.pop(show_address(destination), None)

    def _plain(self, address: Address) -> Address:
        """IPv4 addresses as such, though they come through a socket for both."""
        if not self._dual:
            return address
        known = self._as_it_came
        if known is None or known[0] != address:
            host = address[0]
            plain = (host[len(_MAPPED) :], address[1]) if host.startswith(_MAPPED) and "." in host else address
            known = self._as_it_came = (address, plain)
        return known[1]

    def _lost(self, error: BaseException) -> TransportLostError:
        if self._socket.fileno() < 0:
            return TransportLostError(f"{self._url} was closed by this program")
        return TransportLostError(f"{self._url}: the socket failed ({reason(error)})")


async def open_net(address: TargetAddress) -> NetTransport:
    """Bind the port, and return at once. Raises TransportOpenError, UsageError for a key, FileError for its file."""
    key, notes = find_key(address, os.environ)
    bound = await _bind(address)
    try:
        port = bound.getsockname()[1]
        target: Address | None = None
        name = dict(address.options).get("target", "")
        if name:
            target = await _resolve(address, *target_place(name, port), bound.family)
        hosts = (address.host,) if address.host else _reachable()
        place = Place(port, hosts, show_address(target) if target else "")
        url = TargetAddress("net", host=address.host, port=port, options=address.options, key=address.key).url
        return NetTransport(url, bound, HostEnd(key, place, target), (f"waits at {place.listening} (UDP)", *notes))
    except BaseException:
        bound.close()
        raise


async def _bind(address: TargetAddress) -> socket.socket:
    try:
        if address.host:
            found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
            family, _, _, _, where = found[0]
        elif socket.has_dualstack_ipv6():
            family, where = socket.AF_INET6, ("::", address.port)
        else:
            family, where = socket.AF_INET, ("0.0.0.0", address.port)
        bound = socket.socket(family, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address.host)))
            bound.bind(where)
        except BaseException:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        raise TransportOpenError(f"{address.url}: cannot listen there: {_why(error)}") from error
    return bound


async def _resolve(address: TargetAddress, host: str, port: int, family: int) -> Address:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise TransportOpenError(f"{address.url}: the target {host} is not known ({reason(error)})") from error
    # A socket for both families is one that is bound to no address.
    both = family == socket.AF_INET6 and not address.host
    fitting = [where for kind, _, _, _, where in found if kind == family or both]
    if not fitting:
        raise TransportOpenError(f"{address.url}: {host} has no address of the kind that is listened at")
    return cast("Address", fitting[0])


def _reachable() -> tuple[str, ...]:
    """The addresses that a target could be told; those of this machine alone where there are no others."""
    every = local_addresses()
    others = [one.address for one in every if not one.is_loopback and not (one.version == 6 and one.is_link_local)]
    return tuple(others or [one.address for one in every])


def _why(error: OSError | UnicodeError) -> str:
    number = getattr(error, "errno", None)
    if isinstance(error, (UnicodeError, socket.gaierror)):
        return "this is no address of this machine"
    if number == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if number == errno.EADDRINUSE:
        return "another program has that UDP port (another debugger?); end it, or take another port here and there"
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied; take a port from 1024 up (KDNET's are 49152 to 65535)"
    return reason(error)
