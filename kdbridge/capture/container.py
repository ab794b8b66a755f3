"""What every capture file is made of: frames of bytes with a time and a link type. pcap and pcapng, also gzipped.

Read here and not with scapy, which believes the lengths in a file, and gives up on one that was cut off.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from kdbridge.errors import FileError

from .frames import CaptureError
from .pcapng import ENHANCED_PACKET, INTERFACE_DESCRIPTION, SECTION_HEADER

__all__ = ["Captured", "read_container"]

_GZIP = b"\x1f\x8b"
_SECTION = SECTION_HEADER.to_bytes(4, "little")
_LARGEST_FRAME = 0x10_0000
_MOST_INTERFACES = 0x1_0000
_PIECE = 0x1_0000
_SIMPLE_PACKET, _OLD_PACKET = 3, 2
_OPTION_RESOLUTION, _OPTION_OFFSET = 9, 14
_BYTE_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_PCAP = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000),
    b"\xa1\xb2\xc3\xd4": (">", 1_000_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1_000_000_000),
    b"\xa1\xb2\x3c\x4d": (">", 1_000_000_000),
}


class Captured(NamedTuple):
    """One frame of the file. `length` is what it had on the wire: more than its bytes where the capture cut it."""

    time: float
    link_type: int
    data: bytes
    length: int


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap_length: int
    ticks: int
    """So many a second."""
    offset: int

    def time(self, high: int, low: int) -> float:
        return self.offset + (high << 32 | low) / self.ticks


class _Input:
    """The file as a stream. Every number in it is unbelieved until so many bytes have come."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.at = 0

    def take(self, size: int) -> bytes:
        """So many bytes, or as many as are left."""
        try:
            data = self._file.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if isinstance(error, EOFError):
                return b""
            raise self.wrong(f"its compression is damaged ({error})") from None
        except OSError as error:
            raise FileError(f"{self._path} cannot be read: {error.strerror or error}") from None
        self.at += len(data)
        return data

    def skip(self, size: int) -> bool:
        """Whether so many bytes were there to be left out."""
        while size:
            piece = len(self.take(min(size, _PIECE)))
            if not piece:
                return False
            size -= piece
        return True

    def wrong(self, problem: str) -> CaptureError:
        """The error that names this file and this place."""
        return CaptureError(f"{self._path}: at offset {self.at:#x} of the capture: {problem}")


def read_container(path: Path, cut_off: Callable[[], None]) -> Iterator[Captured]:
    """Its frames in order. Calls `cut_off` where the file ends in the middle of one. Raises CaptureError, FileError."""
    with _opened(path) as source:
        magic = source.take(4)
        if magic in _PCAP:
            yield from _pcap(source, *_PCAP[magic], cut_off)
        elif magic == _SECTION:
            yield from _pcapng(source, cut_off)
        else:
            raise CaptureError(
                f"{path} is no capture: it begins with neither pcap's nor pcapng's mark"
                if magic
                else f"{path} is empty: no capture"
            )


@contextmanager
def _opened(path: Path) -> Iterator[_Input]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None
    with file:
        try:
            start = file.read(2)
            file.seek(0)
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror or error}") from None
        if start == _GZIP:
            with gzip.open(file) as plain:
                yield _Input(path, cast("BinaryIO", plain))
        else:
            yield _Input(path, file)


def _pcap(source: _Input, order: str, ticks: int, cut_off: Callable[[], None]) -> Iterator[Captured]:
    header = source.take(20)
    if len(header) < 20:
        cut_off()
        return
    link_type = struct.unpack_from(order + "I", header, 16)[0] & 0xFFFF
    record = struct.Struct(order + "IIII")
    while head := source.take(record.size):
        if len(head) < record.size:
            cut_off()
            return
        seconds, fraction, size, length = record.unpack(head)
        if size > _LARGEST_FRAME:
            raise source.wrong(f"a frame of {size:#x} bytes; none is larger than {_LARGEST_FRAME:#x}")
        data = source.take(size)
        if len(data) < size:
            cut_off()
            return
        yield Captured(seconds + fraction / ticks, link_type, data, length)


def _pcapng(source: _Input, cut_off: Callable[[], None]) -> Iterator[Captured]:
    order = ""
    interfaces: list[_Interface] = []
    head = _SECTION + source.take(4)
    while head:
        mark = source.take(4) if head[:4] == _SECTION else b""
        if len(head) < 8 or len(mark) not in (0, 4) or (head[:4] == _SECTION and not mark):
            cut_off()
            return
        if mark:
            if mark not in _BYTE_ORDERS:
                raise source.wrong("a section whose byte order nobody knows")
            order, interfaces = _BYTE_ORDERS[mark], []
        number, size = struct.unpack(order + "II", head)
        rest = size - 8 - len(mark)
        if size % 4 or rest < 4:
            raise source.wrong(f"a block of {size:#x} bytes, which none can have")
        if number in (INTERFACE_DESCRIPTION, ENHANCED_PACKET, _SIMPLE_PACKET, _OLD_PACKET):
            if rest > _LARGEST_FRAME + _PIECE:
                raise source.wrong(f"a block of {size:#x} bytes; none with a frame is larger than {_LARGEST_FRAME:#x}")
            body = source.take(rest)
            if len(body) < rest:
                cut_off()
                return
            if number == INTERFACE_DESCRIPTION:
                if len(interfaces) >= _MOST_INTERFACES:
                    raise source.wrong(f"more than {_MOST_INTERFACES} interfaces")
                interfaces.append(_interface(source, order, body[:-4]))
            else:
                yield _packet(source, order, number, body[:-4], interfaces)
        elif not source.skip(rest):
            cut_off()
            return
        head = source.take(8)


def _interface(source: _Input, order: str, body: bytes) -> _Interface:
    if len(body) < 8:
        raise source.wrong("an interface that is too short")
    link_type, _, snap_length = struct.unpack_from(order + "HHI", body)
    ticks, offset, at = 1_000_000, 0, 8
    while at + 4 <= len(body):
        option, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if option == 0:
            break
        if option == _OPTION_RESOLUTION and len(value) == 1:
            exponent = value[0] & 0x7F
            ticks = 2**exponent if value[0] & 0x80 else 10**exponent
        elif option == _OPTION_OFFSET and len(value) == 8:
            (offset,) = struct.unpack(order + "q", value)
        at += 4 + length + -length % 4
    return _Interface(link_type, snap_length, ticks, offset)


def _packet(source: _Input, order: str, number: int, body: bytes, interfaces: list[_Interface]) -> Captured:
    high = low = index = 0
    if number == _SIMPLE_PACKET:
        start = 4
        if len(body) < start:
            raise source.wrong("a frame whose block is too short")
        (length,) = struct.unpack_from(order + "I", body)
        size = len(body) - start
    else:
        start = 20
        if len(body) < start:
            raise source.wrong("a frame whose block is too short")
        layout = "IIIII" if number == ENHANCED_PACKET else "HxxIIII"
        index, high, low, size, length = struct.unpack_from(order + layout, body)
    if index >= len(interfaces):
        raise source.wrong(f"a frame of interface {index}, of which nothing was said")
    interface = interfaces[index]
    if number == _SIMPLE_PACKET:
        size = min(length, interface.snap_length or length, size)
    if size > len(body) - start:
        raise source.wrong(f"a frame of {size:#x} bytes in a block of {len(body):#x}")
    return Captured(interface.time(high, low), interface.link_type, body[start : start + size], length)
