"""A frame: one piece of what was on the wire, with its time and its way. Recorders make them, readers give them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from kdbridge.errors import FileError

__all__ = ["HOST", "TARGET", "CaptureError", "Frame", "Medium"]

HOST, TARGET = "host", "target"
"""The two ends of a serial line."""


class CaptureError(FileError):
    """A capture file that cannot be read: no capture, damaged, or of a kind that nobody here knows."""


class Medium(enum.Enum):
    """What the bytes went over."""

    SERIAL = "serial"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes of a serial line as they were read or written at once, or one whole UDP datagram."""

    time: float
    """Seconds since 1970, UTC."""
    to_target: bool | None
    """The way it went; None: a datagram, whose direction only its contents tell."""
    data: bytes
    medium: Medium
    source: str
    """"host" or "target" of a serial line; address:port of a datagram ([address]:port for IPv6)."""
    destination: str
