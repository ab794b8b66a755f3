"""The two messages of the control channel, and the key that comes out of them (kdnet 4.1 to 4.4)."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass

from protocol.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["NOWHERE", "Endpoint", "Poke", "Response", "data_key", "decode_poke", "decode_response"]

_POKE, _RESPONSE = b"\x01\x01", b"\x01\x02"
_KEY = 32
_ENDPOINT = 18
_LEAST_POKE = 2 + _KEY + 3 * _ENDPOINT
_RESPONSE_SIZE = 322
_TRAILER = bytes(256)

assert _LEAST_POKE == 88
assert 2 + _KEY + _KEY + len(_TRAILER) == _RESPONSE_SIZE


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port, as a poke names them: IPv6, or IPv4 mapped into it."""

    address: str
    port: int

    @property
    def is_link_local(self) -> bool:
        """169.254.x.x or fe80::: whoever has it got no DHCP lease (kdnet 1)."""
        return _parsed(self.address).is_link_local

    def encode(self) -> bytes:
        """Sixteen bytes of address, then the port, big-endian."""
        address = _parsed(self.address)
        mapped = address if address.version == 6 else ipaddress.IPv6Address(bytes(10) + b"\xff\xff" + address.packed)
        if not 0 <= self.port <= 0xFFFF:
            raise LocalProtocolError(f"{self.port} is no port")
        return mapped.packed + self.port.to_bytes(2, "big")


NOWHERE = Endpoint("0.0.0.0", 0)
"""What a target's data channel is bound to while it has no debugger."""


@dataclass(frozen=True, slots=True)
class Poke:
    """A target looks for its debugger. The first eight bytes of the client key count, the others name its life."""

    client_key: bytes
    own: Endpoint
    """The target's own address."""
    configured: Endpoint
    """Where it was told to look for a debugger."""
    bound: Endpoint
    """Whose responses it has accepted; port 0: nobody's."""

    def __post_init__(self) -> None:
        _check_key(self.client_key)

    @property
    def count(self) -> int:
        """One more for every poke."""
        return int.from_bytes(self.client_key[:8], "little")

    @property
    def life(self) -> bytes:
        """The same as long as the target's network stack lives; boot manager, loader and kernel have one each."""
        return self.client_key[8:]

    def encode(self) -> bytes:
        """The payload."""
        ends = self.own.encode() + self.configured.encode() + self.bound.encode()
        return _POKE + self.client_key + ends + _TRAILER


@dataclass(frozen=True, slots=True)
class Response:
    """A debugger answers a poke."""

    client_key: bytes
    host_key: bytes

    def __post_init__(self) -> None:
        _check_key(self.client_key)
        _check_key(self.host_key)

    def encode(self) -> bytes:
        """The payload."""
        return _RESPONSE + self.client_key + self.host_key + _TRAILER


def decode_poke(payload: bytes) -> Poke:
    """Read a poke; what follows its endpoints is nobody's business. Raises RemoteProtocolError."""
    if not payload.startswith(_POKE) or len(payload) < _LEAST_POKE:
        raise RemoteProtocolError(f"a control message of {len(payload)} bytes that begins {payload[:2]!r} is no poke")
    at = 2 + _KEY
    own, configured, bound = (_endpoint(payload[at + _ENDPOINT * n : at + _ENDPOINT * (n + 1)]) for n in range(3))
    return Poke(payload[2:at], own, configured, bound)


def decode_response(payload: bytes) -> Response:
    """Read a response. Raises RemoteProtocolError."""
    if not payload.startswith(_RESPONSE) or len(payload) != _RESPONSE_SIZE:
        raise RemoteProtocolError(f"a control message of {len(payload)} bytes, beginning {payload[:2]!r}, no response")
    return Response(payload[2 : 2 + _KEY], payload[2 + _KEY : 2 + 2 * _KEY])


def data_key(control_key: bytes, response_payload: bytes) -> bytes:
    """The key of the data channel, both ways: over all 322 bytes of the response, as they came (kdnet 4.4)."""
    return hashlib.sha256(control_key + response_payload).digest()


def _check_key(key: bytes) -> None:
    if len(key) != _KEY:
        raise LocalProtocolError(f"the keys that the two ends exchange have {_KEY} bytes, not {len(key)}")


def _endpoint(raw: bytes) -> Endpoint:
    address = ipaddress.IPv6Address(raw[:16])
    return Endpoint(str(address.ipv4_mapped or address), int.from_bytes(raw[16:], "big"))


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        # A scope such as %eth0 is of this machine and does not go on the wire.
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise LocalProtocolError(f"{text!r} is no IP address") from None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
