"""IP and UDP headers around a datagram that a socket sent or gave: what Wireshark needs to see it as one.

Made here and not with scapy: a recording must cost neither a second at its start nor a millisecond a datagram.
"""

from __future__ import annotations

import ipaddress
import struct

from protocol.errors import LocalProtocolError

__all__ = ["LARGEST_UDP_PAYLOAD", "wrap"]

LARGEST_UDP_PAYLOAD = 65507

_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_IPV6 = struct.Struct(">IHBB16s16s")
_UDP = struct.Struct(">HHHH")
_UDP_NUMBER = 17
_TTL = 64
_MAPPED = bytes(10) + b"\xff\xff"


def wrap(source: tuple[object, ...], destination: tuple[object, ...], data: bytes, number: int) -> bytes:
    """An IP packet with one UDP datagram in it. Ends are a socket's own tuples: address, port, and more for IPv6.

    `number` tells two datagrams of the same bytes apart (IPv4's identification, IPv6's flow label), so that whoever
    reads the file does not take what came twice for something recorded twice.
    """
    if len(data) > LARGEST_UDP_PAYLOAD:
        raise LocalProtocolError(f"a datagram of {len(data)} bytes does not exist: {LARGEST_UDP_PAYLOAD} is the most")
    (one, source_port), (other, destination_port) = _end(source), _end(destination)
    size = _UDP.size + len(data)
    if len(one) == len(other) == 4:
        head = _IPV4.pack(0x45, 0, _IPV4.size + size, number & 0xFFFF, 0, _TTL, _UDP_NUMBER, 0, one, other)
        head = head[:10] + _checksum(head).to_bytes(2, "big") + head[12:]
        # A checksum of zero means none, as targets send it themselves (kdnet 2).
        return head + _UDP.pack(source_port, destination_port, size, 0) + data
    one, other = one.rjust(16, b"\0"), other.rjust(16, b"\0")
    head = _IPV6.pack(6 << 28 | number & 0xFFFFF, size, _UDP_NUMBER, _TTL, one, other)
    udp = _UDP.pack(source_port, destination_port, size, 0)
    total = _checksum(one + other + struct.pack(">II", size, _UDP_NUMBER) + udp + data) or 0xFFFF
    return head + udp[:6] + total.to_bytes(2, "big") + data


def _end(address: tuple[object, ...]) -> tuple[bytes, int]:
    try:
        # A scope such as %eth0 is of this machine and does not go on the wire.
        parsed = ipaddress.ip_address(str(address[0]).partition("%")[0])
        port = int(str(address[1]))
    except (ValueError, IndexError):
        raise LocalProtocolError(f"{address!r} is no address of a UDP socket") from None
    if not 0 <= port <= 0xFFFF:
        raise LocalProtocolError(f"{port} is no port")
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).packed, port


def _checksum(data: bytes) -> int:
    """The internet's: the complement of the sum of 16-bit words, end-around."""
    padded = data + bytes(len(data) % 2)
    total = int.from_bytes(padded, "big") % 0xFFFF
    return 0xFFFF - total
