"""One datagram: six clear bytes, ciphertext, and a tag that is also the initialisation vector (kdnet 2 and 3)."""

from __future__ import annotations

import enum
import hmac
import struct
from dataclasses import dataclass
from typing import Protocol

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.link import Discard
from protocol.packet import HEADER, LARGEST_PAYLOAD_ACCEPTED

from .key import ControlKey

__all__ = [
    "KNOWN_VERSIONS",
    "LARGEST_DATAGRAM",
    "MAGIC",
    "SMALLEST_DATAGRAM",
    "Channel",
    "Cipher",
    "Datagram",
    "Sealer",
    "flaw",
    "largest_payload",
]

MAGIC = b"MDBG"

_CLEAR = struct.Struct("<4sBB")
_INNER = struct.Struct(">Q")
_BLOCK = 16
_TAG = 16
_OVERHEAD = _CLEAR.size + _TAG
_LARGEST_SEQUENCE = (1 << 56) - 1
_FROM_HOST = 0x80
_PAD = 0x0F

SMALLEST_DATAGRAM = _OVERHEAD + _BLOCK
LARGEST_DATAGRAM = _OVERHEAD + -(-(_INNER.size + HEADER.size + LARGEST_PAYLOAD_ACCEPTED) // _BLOCK) * _BLOCK
"""More is nobody's packet, and not looked at."""

assert (_CLEAR.size, _INNER.size, SMALLEST_DATAGRAM) == (6, 8, 38)

_PROVEN_PAYLOAD = {2: 1288, 4: 1288, 5: 1152}

KNOWN_VERSIONS = frozenset(_PROVEN_PAYLOAD)
"""Protocol versions that were seen. Others are answered alike, with care (kdnet 11)."""


class Channel(enum.IntEnum):
    """Which key a datagram is under."""

    DATA = 0
    CONTROL = 1


class Cipher(Protocol):
    """AES-256 in CBC mode without padding: the one thing that the standard library does not have."""

    def encrypt_cbc(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """`data` is a multiple of 16 bytes."""
        ...

    def decrypt_cbc(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """`data` is a multiple of 16 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Datagram:
    """What a datagram says. `payload` is one KD packet, one control message, or empty."""

    version: int
    channel: int
    from_host: bool
    sequence: int
    payload: bytes


def flaw(raw: bytes) -> Discard | None:
    """Why this cannot be a KDNET datagram; None: it may be one. Looks at six bytes and the length only."""
    if not raw.startswith(MAGIC):
        return Discard.NOT_KDNET
    size = len(raw)
    if not SMALLEST_DATAGRAM <= size <= LARGEST_DATAGRAM or (size - _OVERHEAD) % _BLOCK or raw[5] > Channel.CONTROL:
        return Discard.BAD_DATAGRAM
    return None


def largest_payload(version: int) -> int:
    """The largest KD payload that targets of this version are known to send; of an unknown one, the smallest."""
    return _PROVEN_PAYLOAD.get(version, min(_PROVEN_PAYLOAD.values()))


class Sealer:
    """Makes and opens datagrams. The tag is under the control key, whatever key the rest is under."""

    __slots__ = ("_authentication_key", "_cipher", "control_key")

    def __init__(self, key: ControlKey, cipher: Cipher) -> None:
        self.control_key = key.raw
        self._authentication_key = key.authentication_key
        self._cipher = cipher

    def seal(self, datagram: Datagram, key: bytes) -> bytes:
        """The bytes to send. Nothing but the sequence number makes two of them differ: never use one twice."""
        if not 0 <= datagram.sequence <= _LARGEST_SEQUENCE:
            raise LocalProtocolError(f"sequence number {datagram.sequence:#x} does not fit 56 bits")
        payload = datagram.payload
        pad = -(_INNER.size + len(payload)) % _BLOCK
        header = _CLEAR.pack(MAGIC, datagram.version, datagram.channel)
        inner = _INNER.pack(datagram.sequence << 8 | (_FROM_HOST if datagram.from_host else 0) | pad)
        plain = b"".join((inner, payload, bytes(pad)))
        tag = self._tag(header + plain)
        return b"".join((header, self._cipher.encrypt_cbc(key, tag, plain), tag))

    def open(self, raw: bytes, key: bytes) -> Datagram | None:
        """What it says; None: not under this key, or not genuine. Raises RemoteProtocolError where `flaw` has one."""
        problem = flaw(raw)
        if problem is not None:
            raise RemoteProtocolError(f"{problem.value} ({len(raw)} bytes)")
        tag = raw[-_TAG:]
        plain = self._cipher.decrypt_cbc(key, tag, raw[_CLEAR.size : -_TAG])
        if not hmac.compare_digest(self._tag(raw[: _CLEAR.size] + plain), tag):
            return None
        (inner,) = _INNER.unpack_from(plain)
        # What else stands in bits 4 to 6 and in the padding is not looked at (kdnet 2).
        end = max(_INNER.size, len(plain) - (inner & _PAD))
        return Datagram(raw[4], raw[5], bool(inner & _FROM_HOST), inner >> 8, plain[_INNER.size : end])

    def _tag(self, clear: bytes) -> bytes:
        return hmac.digest(self._authentication_key, clear, "sha256")[:_TAG]
