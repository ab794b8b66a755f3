"""The resource directory: a tree of type, name and language, walked a directory at a time."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from protocol.errors import LayoutError

__all__ = [
    "DATA_ENTRY_SIZE",
    "DIRECTORY_SIZE",
    "MOST_ENTRIES",
    "RT_VERSION",
    "ResourceEntry",
    "parse_data_entry",
    "parse_resource_directory",
    "resource_directory_size",
]

RT_VERSION = 16

DIRECTORY_SIZE, DATA_ENTRY_SIZE = 16, 16
_ENTRY_SIZE = 8

MOST_ENTRIES = 256
"""Entries of one directory that are looked at. The root has one for each type; versions and languages are few."""

_HIGH = 1 << 31


@dataclass(frozen=True, slots=True)
class ResourceEntry:
    """IMAGE_RESOURCE_DIRECTORY_ENTRY: leads to a directory or to a data entry, `offset` from the tree's beginning."""

    id: int | None
    """None: it has a name instead."""
    offset: int
    is_directory: bool


def resource_directory_size(data: bytes, address: int | None = None) -> int:
    """How many bytes a directory has with its entries, by its first 16. Raises LayoutError where there are less."""
    if len(data) < DIRECTORY_SIZE:
        raise LayoutError("IMAGE_RESOURCE_DIRECTORY", f"only {len(data):#x} bytes are there", address)
    named, numbered = int.from_bytes(data[12:14], "little"), int.from_bytes(data[14:16], "little")
    return DIRECTORY_SIZE + min(named + numbered, MOST_ENTRIES) * _ENTRY_SIZE


def parse_resource_directory(data: bytes, address: int | None = None) -> tuple[ResourceEntry, ...]:
    """The entries that are there. Raises LayoutError where there is no directory."""
    size = min(resource_directory_size(data, address), len(data))
    found: list[ResourceEntry] = []
    for at in range(DIRECTORY_SIZE, size - _ENTRY_SIZE + 1, _ENTRY_SIZE):
        name, place = struct.unpack_from("<II", data, at)
        found.append(ResourceEntry(None if name & _HIGH else name, place & ~_HIGH, bool(place & _HIGH)))
    return tuple(found)


def parse_data_entry(data: bytes, address: int | None = None) -> tuple[int, int]:
    """IMAGE_RESOURCE_DATA_ENTRY: RVA and size of what is there. Raises LayoutError."""
    if len(data) < DATA_ENTRY_SIZE:
        raise LayoutError("IMAGE_RESOURCE_DATA_ENTRY", f"only {len(data):#x} bytes are there", address)
    rva, size = struct.unpack_from("<II", data)
    return rva, size
