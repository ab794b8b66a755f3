"""The debug directory: which symbol file (PDB) belongs to an image."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from protocol.errors import LayoutError

__all__ = ["LARGEST_CODE_VIEW", "MOST_DEBUG_ENTRIES", "CodeView", "DebugEntry", "code_view_entry", "parse_code_view"]

MOST_DEBUG_ENTRIES = 16
"""Entries of a debug directory that are looked at; linkers write about five."""

LARGEST_CODE_VIEW = 0x400
"""Bytes of a CodeView record that are looked at: 24, and the name."""

_ENTRY_SIZE, _CODE_VIEW, _RSDS_SIZE = 28, 2, 24


@dataclass(frozen=True, slots=True)
class DebugEntry:
    """IMAGE_DEBUG_DIRECTORY: where the record lies in the image, and its size in bytes."""

    rva: int
    size: int


@dataclass(frozen=True, slots=True)
class CodeView:
    """An RSDS record: the symbol file's name as the linker wrote it, and what it must say of itself."""

    pdb_name: str
    guid: str
    """32 hexadecimal digits, upper case, in the order in which a GUID is written."""
    age: int


def code_view_entry(data: bytes) -> DebugEntry | None:
    """The first CodeView record that a debug directory names and that is mapped; None: it names none."""
    for at in range(0, min(len(data) // _ENTRY_SIZE, MOST_DEBUG_ENTRIES) * _ENTRY_SIZE, _ENTRY_SIZE):
        kind, size, rva = struct.unpack_from("<III", data, at + 12)
        if kind == _CODE_VIEW and rva and size > _RSDS_SIZE:
            return DebugEntry(rva, min(size, LARGEST_CODE_VIEW))
    return None


def parse_code_view(data: bytes, address: int | None = None) -> CodeView:
    """The record. Raises LayoutError where it is no RSDS (older ones named a file by a time)."""
    if len(data) < _RSDS_SIZE or data[:4] != b"RSDS":
        raise LayoutError("CodeView record", f"it begins with {data[:4].hex(' ')}, not with RSDS", address)
    name = data[_RSDS_SIZE:LARGEST_CODE_VIEW].split(b"\0")[0].decode("utf-8", "replace")
    guid = uuid.UUID(bytes_le=data[4:20]).hex.upper()
    return CodeView(name, guid, struct.unpack_from("<I", data, 20)[0])
