"""This machine's addresses, one interface after the other. Asked of the system alone: nothing goes to the network."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["LocalAddress", "local_addresses"]

_IFF_UP = 1
_BSD_SOCKADDR = sys.platform.startswith(("darwin", "freebsd", "netbsd", "openbsd"))
_V4_AT, _V6_AT = 4, 8
"""Where the address lies in a sockaddr_in and a sockaddr_in6, on every POSIX system."""


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """One address of one interface. `interface` is empty where the system does not say."""

    interface: str
    address: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.address).version

    @property
    def is_loopback(self) -> bool:
        """Reached from this machine only."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def is_link_local(self) -> bool:
        """Reached from the same cable only: nobody gave this interface an address."""
        return ipaddress.ip_address(self.address).is_link_local


def local_addresses() -> list[LocalAddress]:
    """Every address of every interface that is up: IPv4 before IPv6, those that anybody can reach before the others."""
    try:
        found = list(_windows() if os.name == "nt" else _posix())
    except (OSError, AttributeError):
        # A system without getifaddrs, or one that does not let us ask.
        found = []
    return sorted(dict.fromkeys(found), key=lambda one: (one.is_loopback, one.version, one.is_link_local))


def _windows() -> Iterator[LocalAddress]:
    # An empty name stands for this machine, and is answered without asking anybody.
    for _, _, _, _, where in socket.getaddrinfo("", None, type=socket.SOCK_DGRAM):
        yield LocalAddress("", str(where[0]).partition("%")[0])


class _Ifaddrs(ctypes.Structure):
    """The beginning of getifaddrs(3)'s struct ifaddrs, the same on every POSIX system."""


_Ifaddrs._fields_ = [
    ("next", ctypes.POINTER(_Ifaddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]


def _posix() -> Iterator[LocalAddress]:
    system = ctypes.CDLL(None, use_errno=True)
    system.freeifaddrs.argtypes = (ctypes.POINTER(_Ifaddrs),)
    first = ctypes.POINTER(_Ifaddrs)()
    if system.getifaddrs(ctypes.byref(first)):
        raise OSError(ctypes.get_errno(), "getifaddrs")
    try:
        entry = first
        while ctypes.cast(entry, ctypes.c_void_p).value is not None:
            one = entry.contents
            address = _address(one.address) if one.address and one.flags & _IFF_UP else None
            if address is not None:
                yield LocalAddress(os.fsdecode(one.name), address)
            entry = one.next
    finally:
        system.freeifaddrs(first)


def _address(place: int) -> str | None:
    head = ctypes.string_at(place, 2)
    family = head[1] if _BSD_SOCKADDR else int.from_bytes(head, sys.byteorder)
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(ctypes.string_at(place + _V4_AT, 4)))
    if family == socket.AF_INET6:
        return str(ipaddress.IPv6Address(ctypes.string_at(place + _V6_AT, 16)))
    return None
