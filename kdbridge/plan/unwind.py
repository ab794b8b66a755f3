"""Which pages an unwinder needs for an address in an image: its headers, its row of .pdata, its unwind data (x64)."""

from __future__ import annotations

import struct

from kdbridge.discovery.notes import try_read
from kdbridge.source import Source
from kdbridge.target import Module
from protocol.unwind.info import (
    RUNTIME_FUNCTION_SIZE,
    UNWIND_HEAD_SIZE,
    UnwindFlag,
    parse_runtime_function,
    unwind_codes_end,
)

from .plan import VirtualRange

__all__ = ["unwind_ranges"]

_HEADERS = 0x400
_EXCEPTION_DIRECTORY = 24 + 112 + 3 * 8
"""From the PE signature to IMAGE_DIRECTORY_ENTRY_EXCEPTION in a PE32+ header."""
_LARGEST_TABLE = 1 << 24
_WHOLE_TABLE = 1 << 16
"""A .pdata of at most this size is read as a whole: WinDbg does so, and unwinds by it only if it is all there."""
_LONGEST_CHAIN = 8


async def unwind_ranges(source: Source, image: Module, address: int) -> list[VirtualRange]:
    """What was looked at to find out how to unwind from `address`, in an image that is mapped. Empty: no headers."""
    head = await try_read(source, image.base, _HEADERS)
    if head is None or head[:2] != b"MZ":
        return []
    found = [VirtualRange(image.base, _HEADERS)]
    at = int.from_bytes(head[0x3C:0x40], "little")
    if head[at : at + 4] != b"PE\0\0" or at + _EXCEPTION_DIRECTORY + 8 > len(head):
        return found
    table, size = struct.unpack_from("<II", head, at + _EXCEPTION_DIRECTORY)
    if not table or not 0 < size <= _LARGEST_TABLE or table + size > image.size:
        return found
    if size <= _WHOLE_TABLE:
        found.append(VirtualRange(image.base + table, size))
    wanted = address - image.base
    low, high = 0, size // RUNTIME_FUNCTION_SIZE
    while low < high:
        middle = (low + high) // 2
        place = image.base + table + middle * RUNTIME_FUNCTION_SIZE
        data = await try_read(source, place, RUNTIME_FUNCTION_SIZE)
        if data is None:
            return found
        found.append(VirtualRange(place, RUNTIME_FUNCTION_SIZE))
        row = parse_runtime_function(data)
        if wanted < row.begin:
            high = middle
        elif wanted >= row.end:
            low = middle + 1
        else:
            return [*found, *await _unwind_data(source, image, row.unwind_data)]
    return found


async def _unwind_data(source: Source, image: Module, at: int) -> list[VirtualRange]:
    """UNWIND_INFO and those it is chained to."""
    found: list[VirtualRange] = []
    for _ in range(_LONGEST_CHAIN):
        if at & 1:  # another row of .pdata in the place of unwind data
            row = await try_read(source, image.base + (at & ~1), RUNTIME_FUNCTION_SIZE)
            found.append(VirtualRange(image.base + (at & ~1), RUNTIME_FUNCTION_SIZE))
            at = 0 if row is None else parse_runtime_function(row).unwind_data
        if not 0 < at < image.size:
            break
        head = await try_read(source, image.base + at, UNWIND_HEAD_SIZE)
        if head is None:
            break
        size = unwind_codes_end(head)
        found.append(VirtualRange(image.base + at, size + RUNTIME_FUNCTION_SIZE))
        if not head[0] >> 3 & UnwindFlag.CHAININFO:
            break
        row = await try_read(source, image.base + at + size, RUNTIME_FUNCTION_SIZE)
        at = 0 if row is None else parse_runtime_function(row).unwind_data
    return found
