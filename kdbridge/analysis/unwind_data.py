"""An image's unwind data, found in memory by reading as little as can be: its headers, a row of .pdata, UNWIND_INFO."""

from __future__ import annotations

import struct

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.source import Source
from kdbridge.target import Module
from protocol.address import VirtualAddress
from protocol.errors import LayoutError
from protocol.layouts.kernel import KLDR_DATA_TABLE_ENTRY64
from protocol.unwind.info import (
    LONGEST_CHAIN,
    RUNTIME_FUNCTION_SIZE,
    UNWIND_HEAD_SIZE,
    RuntimeFunction,
    UnwindInfo,
    parse_runtime_function,
    parse_unwind_info,
    unwind_info_size,
)

from .image_memory import read_image

__all__ = ["Part", "UnwindTables"]

Part = tuple[RuntimeFunction, UnwindInfo]
"""A row and the unwind data that belongs to it."""

_AMD64, _PE32_PLUS = 0x8664, 0x20B
_HEADERS = 0x200
_EXCEPTION_DIRECTORY = 24 + 112 + 3 * 8
"""From the PE signature to IMAGE_DIRECTORY_ENTRY_EXCEPTION."""
_FURTHEST_HEADER = 0x1000
_LARGEST_TABLE = 1 << 24
_ROWS_AT_ONCE = 16
_INFO_AT_ONCE = 32


class UnwindTables:
    """Unwind data of the images of one source. What was found of an image is kept; memory is the source's to keep.

    All methods raise MemoryFault where something cannot be read, LayoutError where it is not what it should be.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._directories: dict[int, tuple[int, int] | MemoryFault | LayoutError] = {}

    async def function(self, image: Module, address: int) -> RuntimeFunction | None:
        """The row of .pdata that an address lies in; None where none does: a leaf function."""
        found = self._directories.get(image.base)
        if found is None:
            try:
                found = await self._directory(image)
            except (MemoryFault, LayoutError) as problem:
                found = problem
            self._directories[image.base] = found
        if not isinstance(found, tuple):
            raise found.with_traceback(None)
        table, count = found
        wanted = address - image.base
        try:
            return await self._search(image, table, count, wanted, _ROWS_AT_ONCE)
        except MemoryFault:
            # Of a large table a small dump holds the rows that a plain search comes by.
            return await self._search(image, table, count, wanted, 1)

    async def parts(self, image: Module, function: RuntimeFunction) -> list[Part]:
        """The unwind data of a row, and all that it is chained to; the last is that of the function's beginning."""
        parts: list[Part] = []
        row = function
        for _ in range(LONGEST_CHAIN):
            if row.indirect:
                row = parse_runtime_function(
                    await read_image(self._source, image, row.unwind_data & ~1, RUNTIME_FUNCTION_SIZE)
                )
                continue
            info = await self._info(image, row.unwind_data)
            parts.append((row, info))
            if info.chained is None:
                return parts
            row = info.chained
        raise LayoutError("UNWIND_INFO", "it is chained without end", image.base + function.unwind_data)

    async def _directory(self, image: Module) -> tuple[int, int]:
        """RVA of .pdata and its number of rows: by the image's headers, or by the loader's entry of it."""
        try:
            table, size = await self._by_headers(image)
        except (MemoryFault, LayoutError) as problem:
            loader = await self._by_loader(image)
            if loader is None:
                raise problem from None
            table, size = loader
        if size and not (table > 0 and size <= _LARGEST_TABLE and table + size <= image.size):
            raise LayoutError("exception directory", f"{size:#x} bytes at RVA {table:#x} are not in it", image.base)
        return table, size // RUNTIME_FUNCTION_SIZE

    async def _by_headers(self, image: Module) -> tuple[int, int]:
        try:
            head = await read_image(self._source, image, 0, _HEADERS)
        except MemoryFault:
            head = await read_image(self._source, image, 0, 0x40)
        at = int.from_bytes(head[0x3C:0x40], "little")
        if head[:2] != b"MZ" or not 0 < at < _FURTHEST_HEADER:
            raise LayoutError("IMAGE_DOS_HEADER", "it is none", image.base)
        size = _EXCEPTION_DIRECTORY + 8
        header = head[at : at + size] if at + size <= len(head) else await read_image(self._source, image, at, size)
        machine, magic = struct.unpack_from("<H", header, 4)[0], struct.unpack_from("<H", header, 24)[0]
        if header[:4] != b"PE\0\0" or (machine, magic) != (_AMD64, _PE32_PLUS):
            raise LayoutError("IMAGE_NT_HEADERS64", "it is none", image.base + at)
        directories = struct.unpack_from("<I", header, 24 + 108)[0]
        table, length = struct.unpack_from("<II", header, _EXCEPTION_DIRECTORY)
        return (table, length) if directories > 3 else (0, 0)

    async def _by_loader(self, image: Module) -> tuple[int, int] | None:
        layout = KLDR_DATA_TABLE_ENTRY64
        if not image.entry_address:
            return None
        least = layout.offset_of("size_of_image") + layout.size_of("size_of_image")
        try:
            data = await self._source.virtual.read(VirtualAddress(image.entry_address), least)
        except (MemoryFault, TargetRefusedError):
            return None
        entry = layout.decode(data, least=least)
        if entry["dll_base"] != image.base or not entry["exception_table_size"]:
            return None
        return entry["exception_table"] - image.base, entry["exception_table_size"]

    async def _search(self, image: Module, table: int, count: int, wanted: int, at_once: int) -> RuntimeFunction | None:
        """By halves, and the last rows at once. The first steps are the same for all addresses, so they cost once."""
        low, high = 0, count
        while high - low > at_once:
            middle = (low + high) // 2
            (row,) = await self._rows(image, table, middle, 1)
            if wanted < row.begin:
                high = middle
            elif wanted >= row.end:
                low = middle + 1
            else:
                return row
        rows = await self._rows(image, table, low, high - low) if low < high else []
        return next((row for row in rows if row.begin <= wanted < row.end), None)

    async def _rows(self, image: Module, table: int, start: int, count: int) -> list[RuntimeFunction]:
        size = RUNTIME_FUNCTION_SIZE
        data = await read_image(self._source, image, table + start * size, count * size)
        return [parse_runtime_function(data[at : at + size]) for at in range(0, len(data), size)]

    async def _info(self, image: Module, rva: int) -> UnwindInfo:
        try:
            data = await read_image(
                self._source, image, rva, min(_INFO_AT_ONCE, max(image.size - rva, UNWIND_HEAD_SIZE))
            )
        except MemoryFault:
            data = await read_image(self._source, image, rva, UNWIND_HEAD_SIZE)
        size = unwind_info_size(data, image.base + rva)
        if len(data) < size:
            data = await read_image(self._source, image, rva, size)
        return parse_unwind_info(data, image.base + rva)
