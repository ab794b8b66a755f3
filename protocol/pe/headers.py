"""The headers of an image: which machine it is for, its sections, and where its data directories lie."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from protocol.errors import LayoutError

__all__ = [
    "DOS_HEADER_SIZE",
    "FURTHEST_HEADER",
    "Directory",
    "DirectoryIndex",
    "PeHeaders",
    "PeSection",
    "parse_pe_headers",
    "pe_header_offset",
    "pe_headers_size",
]

DOS_HEADER_SIZE = 0x40

FURTHEST_HEADER = 0x1000
"""Where IMAGE_NT_HEADERS begins at the latest: the loader maps the headers, and one page of them is believed."""

_NEW_HEADER = 0x3C
_PE32, _PE32_PLUS = 0x10B, 0x20B
_FILE_HEADER_SIZE = 24
"""Signature and IMAGE_FILE_HEADER."""
_DIRECTORIES = {_PE32: 96, _PE32_PLUS: 112}
"""Where the data directories begin in the optional header; their count lies in the four bytes before."""
_MOST_DIRECTORIES, _MOST_SECTIONS, _SECTION_SIZE = 16, 96, 40


class DirectoryIndex(enum.IntEnum):
    """IMAGE_DIRECTORY_ENTRY_…"""

    EXPORT = 0
    RESOURCE = 2
    EXCEPTION = 3
    DEBUG = 6


@dataclass(frozen=True, slots=True)
class Directory:
    """IMAGE_DATA_DIRECTORY: where a table lies in the image, and its size in bytes. Both 0: there is none."""

    rva: int
    size: int


@dataclass(frozen=True, slots=True)
class PeSection:
    """What a section header says of the section in memory."""

    name: str
    rva: int
    size: int
    characteristics: int


@dataclass(frozen=True, slots=True)
class PeHeaders:
    """IMAGE_NT_HEADERS, as far as a debugger asks. Sections are those whose headers were there."""

    machine: int
    time_date_stamp: int
    size_of_image: int
    check_sum: int
    wide: bool
    """PE32+, of 64-bit images."""
    directories: tuple[Directory, ...]
    sections: tuple[PeSection, ...]

    def directory(self, index: DirectoryIndex) -> Directory | None:
        """A table that lies inside of the image; None where there is none, or it cannot."""
        found = self.directories[index] if index < len(self.directories) else Directory(0, 0)
        return found if found.rva and found.size and found.rva + found.size <= self.size_of_image else None

    def section_of(self, rva: int) -> PeSection | None:
        """The section that holds this RVA."""
        return next((one for one in self.sections if one.rva <= rva < one.rva + one.size), None)


def pe_header_offset(data: bytes, address: int | None = None) -> int:
    """Where IMAGE_NT_HEADERS begins, by the first 0x40 bytes of an image. Raises LayoutError where they are none."""
    at = int.from_bytes(data[_NEW_HEADER:DOS_HEADER_SIZE], "little") if len(data) >= DOS_HEADER_SIZE else 0
    if data[:2] != b"MZ" or not 4 <= at < FURTHEST_HEADER:
        raise LayoutError("IMAGE_DOS_HEADER", "it is none", address)
    return at


def pe_headers_size(data: bytes, address: int | None = None) -> int:
    """How many bytes of IMAGE_NT_HEADERS there are, with the section headers, by their first 24. Raises LayoutError."""
    if len(data) < _FILE_HEADER_SIZE or data[:4] != b"PE\0\0":
        raise LayoutError("IMAGE_NT_HEADERS", "it is none", address)
    sections, optional = int.from_bytes(data[6:8], "little"), int.from_bytes(data[20:22], "little")
    return _FILE_HEADER_SIZE + min(optional, FURTHEST_HEADER) + min(sections, _MOST_SECTIONS) * _SECTION_SIZE


def parse_pe_headers(data: bytes, address: int | None = None) -> PeHeaders:
    """From IMAGE_NT_HEADERS on. Raises LayoutError; section headers that are not there are left out."""
    size = pe_headers_size(data, address)
    machine, count, stamp = struct.unpack_from("<HHI", data, 4)
    optional = struct.unpack_from("<H", data, 20)[0]
    body = data[_FILE_HEADER_SIZE : _FILE_HEADER_SIZE + optional]
    magic = int.from_bytes(body[:2], "little")
    start = _DIRECTORIES.get(magic)
    if start is None or len(body) < start:
        raise LayoutError("IMAGE_OPTIONAL_HEADER", f"its magic is {magic:#x}, of {len(body):#x} bytes", address)
    directories = min(struct.unpack_from("<I", body, start - 4)[0], _MOST_DIRECTORIES, (len(body) - start) // 8)
    found = tuple(Directory(*struct.unpack_from("<II", body, start + 8 * index)) for index in range(directories))
    table = data[_FILE_HEADER_SIZE + optional : size]
    sections = tuple(
        _section(table[at : at + _SECTION_SIZE])
        for at in range(0, min(count, len(table) // _SECTION_SIZE) * _SECTION_SIZE, _SECTION_SIZE)
    )
    size_of_image, check_sum = struct.unpack_from("<I", body, 56)[0], struct.unpack_from("<I", body, 64)[0]
    return PeHeaders(machine, stamp, size_of_image, check_sum, magic == _PE32_PLUS, found, sections)


def _section(data: bytes) -> PeSection:
    name = data[:8].split(b"\0")[0].decode("ascii", "replace")
    size, rva, in_file = struct.unpack_from("<III", data, 8)
    return PeSection(name, rva, size or in_file, struct.unpack_from("<I", data, 36)[0])
