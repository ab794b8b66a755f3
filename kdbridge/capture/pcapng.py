"""Blocks of a pcapng file, as the writer makes them and the reader takes them; and which link types we know.

Serial lines are LINKTYPE_RTAC_SERIAL, datagrams LINKTYPE_RAW: see docs/decisions/0013-serial-lines-in-pcapng.md.
"""

from __future__ import annotations

import struct

__all__ = [
    "ENHANCED_PACKET",
    "INTERFACE_DESCRIPTION",
    "LINKTYPE_RAW",
    "LINKTYPE_RTAC_SERIAL",
    "RTAC_HEADER",
    "RTAC_RECEIVED",
    "RTAC_SENT",
    "SECTION_HEADER",
    "block",
    "enhanced_packet",
    "interface_description",
    "section_header",
]

SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION = 1
ENHANCED_PACKET = 6

LINKTYPE_RAW = 101
"""A frame begins with its IPv4 or IPv6 header."""
LINKTYPE_RTAC_SERIAL = 250
"""A frame is serial bytes behind RTAC_HEADER."""

RTAC_HEADER = struct.Struct(">IIBBH")
"""Seconds, microseconds, event, state of the control lines, and two bytes nobody uses."""
RTAC_SENT, RTAC_RECEIVED = 1, 2
"""Events: the first byte of a transmission (host to target), of a reception (target to host)."""

_BYTE_ORDER = 0x1A2B3C4D
_SNAP_LENGTH = 0x40000
_OPTION_NAME, _OPTION_DESCRIPTION, _OPTION_APPLICATION = 2, 3, 4
_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_OPTION = struct.Struct("<HH")
_SECTION = struct.Struct("<IHHq")
_INTERFACE = struct.Struct("<HHI")
_PACKET = struct.Struct("<IIIII")


def block(kind: int, body: bytes) -> bytes:
    """One block: its type, its length before and behind its body."""
    padded = _padded(body)
    size = _HEAD.size + len(padded) + _LENGTH.size
    return b"".join((_HEAD.pack(kind, size), padded, _LENGTH.pack(size)))


def section_header(application: str) -> bytes:
    """The beginning of a file; `application` is who wrote it."""
    return block(SECTION_HEADER, _SECTION.pack(_BYTE_ORDER, 1, 0, -1) + _options({_OPTION_APPLICATION: application}))


def interface_description(link_type: int, name: str, description: str) -> bytes:
    """One interface; they are numbered from 0 as they come. Times are microseconds."""
    body = _INTERFACE.pack(link_type, 0, _SNAP_LENGTH)
    return block(INTERFACE_DESCRIPTION, body + _options({_OPTION_NAME: name, _OPTION_DESCRIPTION: description}))


def enhanced_packet(interface: int, microseconds: int, data: bytes) -> bytes:
    """One frame of an interface, whole. `microseconds` since 1970."""
    high, low = divmod(microseconds, 1 << 32)
    return block(ENHANCED_PACKET, _PACKET.pack(interface, high, low, len(data), len(data)) + data)


def _options(texts: dict[int, str]) -> bytes:
    parts = []
    for number, text in texts.items():
        raw = text.encode("utf-8", "replace")[:0xFF00]
        parts.append(_OPTION.pack(number, len(raw)) + _padded(raw))
    return b"".join(parts) + _OPTION.pack(0, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
