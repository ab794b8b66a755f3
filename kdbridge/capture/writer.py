"""CaptureWriter: a pcapng file that grows frame by frame and is readable at every moment."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from kdbridge.errors import FileError

from .frames import Medium
from .headers import wrap
from .pcapng import (
    LINKTYPE_RAW,
    LINKTYPE_RTAC_SERIAL,
    RTAC_HEADER,
    RTAC_RECEIVED,
    RTAC_SENT,
    enhanced_packet,
    interface_description,
    section_header,
)

__all__ = ["CaptureWriter"]

_LARGEST_PIECE = 0x8000
_LINK_TYPES = {Medium.SERIAL: LINKTYPE_RTAC_SERIAL, Medium.NETWORK: LINKTYPE_RAW}
_DESCRIPTIONS = {
    Medium.SERIAL: "kernel debugger over a serial line: sent is host to target, received is target to host",
    Medium.NETWORK: "kernel debugger over UDP, as the socket sent and received it",
}


class CaptureWriter:
    """A new capture file. Every frame is in the file when its call returns, so nothing waits for a flush or a close.

    `name` stands in the file as the name of its interfaces: never put a key into it. Raises FileError, from every
    method, where the file exists already, cannot be made, or cannot grow; what is in it then stays readable.
    """

    __slots__ = ("_file", "_interfaces", "_name", "_numbers", "path")

    def __init__(self, path: Path | str, *, name: str) -> None:
        self.path = Path(path)
        self._name = name
        self._interfaces: dict[Medium, int] = {}
        self._numbers = 0
        try:
            self._file = self.path.open("xb", buffering=0)
        except FileExistsError:
            raise FileError(f"{self.path} exists already; a recording never overwrites a file") from None
        except OSError as error:
            raise FileError(f"the recording {self.path} cannot be made: {error.strerror or error}") from None
        self._write(section_header(f"kdbridge {version('kdbridge')}"))

    def serial(self, time: float, to_target: bool, data: bytes) -> None:
        """Bytes that went over a serial line at once. `time`: seconds since 1970, UTC."""
        microseconds = _microseconds(time)
        seconds, rest = divmod(microseconds, 1_000_000)
        head = RTAC_HEADER.pack(seconds & 0xFFFFFFFF, rest, RTAC_SENT if to_target else RTAC_RECEIVED, 0, 0)
        for at in range(0, len(data), _LARGEST_PIECE):
            self._frame(Medium.SERIAL, microseconds, head + data[at : at + _LARGEST_PIECE])

    def datagram(self, time: float, source: tuple[object, ...], destination: tuple[object, ...], data: bytes) -> None:
        """One UDP datagram. `source` and `destination` as sockets name them: (address, port), or longer for IPv6."""
        self._numbers += 1
        self._frame(Medium.NETWORK, _microseconds(time), wrap(source, destination, data, self._numbers))

    def close(self) -> None:
        """No more frames. Harmless when closed already."""
        self._file.close()

    def _frame(self, medium: Medium, microseconds: int, data: bytes) -> None:
        out = b""
        interface = self._interfaces.get(medium)
        if interface is None:
            interface = len(self._interfaces)
            out = interface_description(_LINK_TYPES[medium], self._name, _DESCRIPTIONS[medium])
        self._write(out + enhanced_packet(interface, microseconds, data))
        self._interfaces[medium] = interface

    def _write(self, data: bytes) -> None:
        if self._file.closed:
            raise FileError(f"the recording {self.path} is closed")
        rest = memoryview(data)
        try:
            while rest:
                # A short write, as on a full disk, leaves half a block: the reader takes a file cut there.
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.close()
            raise FileError(f"the recording {self.path} cannot be written: {error.strerror or error}") from None


def _microseconds(time: float) -> int:
    return max(0, round(time * 1_000_000))
