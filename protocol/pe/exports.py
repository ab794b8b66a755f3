"""The export table: names that an image gives to others."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from protocol.errors import LayoutError

__all__ = ["EXPORT_DIRECTORY_SIZE", "LONGEST_EXPORT", "MOST_EXPORTS", "ExportDirectory", "parse_export_directory"]

EXPORT_DIRECTORY_SIZE = 40

MOST_EXPORTS = 1 << 16
"""Ordinals have 16 bits."""

LONGEST_EXPORT = 4096
"""Bytes of a name that are still believed; decorated C++ names are long."""


@dataclass(frozen=True, slots=True)
class ExportDirectory:
    """IMAGE_EXPORT_DIRECTORY: RVAs of the tables, and how many entries each has."""

    base: int
    """The ordinal of the first function."""
    functions: int
    """RVA of 32-bit RVAs, one for each ordinal."""
    function_count: int
    names: int
    """RVA of 32-bit RVAs of names, sorted by the names."""
    name_ordinals: int
    """RVA of 16-bit indexes into the functions, one for each name."""
    name_count: int


def parse_export_directory(data: bytes, address: int | None = None) -> ExportDirectory:
    """The directory. Raises LayoutError where it is short, or has more entries than there can be."""
    if len(data) < EXPORT_DIRECTORY_SIZE:
        raise LayoutError("IMAGE_EXPORT_DIRECTORY", f"only {len(data):#x} bytes are there", address)
    base, functions, names, addresses, name_table, ordinals = struct.unpack_from("<6I", data, 16)
    if functions > MOST_EXPORTS or names > MOST_EXPORTS:
        raise LayoutError("IMAGE_EXPORT_DIRECTORY", f"{functions} functions and {names} names cannot be", address)
    return ExportDirectory(base, addresses, functions, name_table, ordinals, names)
