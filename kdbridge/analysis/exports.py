"""Export tables as symbols: the nearest name that an image gives to others."""

from __future__ import annotations

import bisect
from array import array
from dataclasses import dataclass, field

from kdbridge.discovery.notes import try_read
from kdbridge.errors import MemoryFault
from kdbridge.source import Source
from kdbridge.target import Module
from protocol.address import PAGE_SIZE
from protocol.errors import LayoutError
from protocol.pe.exports import EXPORT_DIRECTORY_SIZE, LONGEST_EXPORT, parse_export_directory
from protocol.pe.headers import DirectoryIndex, PeHeaders

from .image_memory import read_headers, read_image
from .unwind_data import UnwindTables

__all__ = ["Exports"]

_MOST_KEPT = 1 << 19
"""Functions of all images together that are kept: 4 MiB at most."""
_FIRST_LOOK = 0x40
"""Of a name; most are shorter."""


@dataclass(slots=True)
class _Table:
    """The exported functions of one image. Empty: it has none, or its tables cannot be read."""

    headers: PeHeaders | None = None
    starts: array[int] = field(default_factory=lambda: array("I"))
    """RVAs of functions, ascending, without forwarders."""
    indexes: array[int] = field(default_factory=lambda: array("H"))
    """The same functions' places in the table of addresses."""
    base: int = 0
    name_of: dict[int, int] = field(default_factory=dict)
    """By the place of a function: that of its name, the first one where it has several."""
    names: int = 0
    names_seen: dict[int, str | None] = field(default_factory=dict)


class Exports:
    """A SymbolSource. Of each image that is asked about, the addresses of its functions are read once.

    That is 6 bytes for each function that has a name, about 18 KiB of a kernel, and a name when it is needed.
    """

    known_by = "export"

    def __init__(self, source: Source) -> None:
        self._source = source
        self._tables: dict[int, _Table] = {}
        self._functions = UnwindTables(source)

    async def nearest(self, module: Module, offset: int) -> tuple[str, int] | None:
        """The exported function (or variable) that `offset` lies in, as far as the image tells where functions end.

        The nearest before it in the same section; by x64's unwind data not if another function has begun since, whose
        name nobody exports. Code that was split off a function has that one's name, if it begins before it.
        A function without a name is called by its number: "Ordinal12".
        """
        table = self._tables.get(module.base)
        if table is None:
            table = await self._read(module)
            self._keep(module.base, table)
        at = bisect.bisect_right(table.starts, offset) - 1
        if at < 0 or table.headers is None:
            return None
        start = table.starts[at]
        section = table.headers.section_of(offset)
        if table.headers.sections and (section is None or start < section.rva):
            return None
        begin = await self._begin(module, offset, start)
        if begin is None or begin > offset:
            return None
        # Of names for one address the one of the lowest ordinal is taken.
        at = bisect.bisect_left(table.starts, begin)
        if at == len(table.starts) or table.starts[at] != begin:
            return None
        name = await self._name(module, table, table.indexes[at])
        return None if name is None else (name, begin)

    async def _begin(self, module: Module, offset: int, start: int) -> int | None:
        """Where the function of this offset begins: at `start`, if unwind data do not say that another one has begun.

        None: another has begun, and they do not tell where it does.
        """
        try:
            row = await self._functions.function(module, module.base + offset)
        except (MemoryFault, LayoutError):
            return start
        if row is None or row.begin <= start:
            return start
        try:
            return (await self._functions.parts(module, row))[-1][0].begin
        except (MemoryFault, LayoutError):
            return None

    def _keep(self, base: int, table: _Table) -> None:
        kept = len(table.starts) + sum(len(one.starts) for one in self._tables.values())
        while kept > _MOST_KEPT and self._tables:
            kept -= len(self._tables.pop(next(iter(self._tables))).starts)
        self._tables[base] = table

    async def _read(self, image: Module) -> _Table:
        try:
            return await self._read_tables(image)
        except (MemoryFault, LayoutError):
            return _Table()

    async def _read_tables(self, image: Module) -> _Table:
        headers = await read_headers(self._source, image, sections=True)
        place = headers.directory(DirectoryIndex.EXPORT)
        if place is None:
            return _Table()
        data = await read_image(self._source, image, place.rva, EXPORT_DIRECTORY_SIZE)
        directory = parse_export_directory(data, image.base + place.rva)
        addresses = await read_image(self._source, image, directory.functions, 4 * directory.function_count)
        ordinals = await read_image(self._source, image, directory.name_ordinals, 2 * directory.name_count)
        found: list[tuple[int, int]] = []
        for index in range(directory.function_count):
            rva = int.from_bytes(addresses[4 * index : 4 * index + 4], "little")
            # What lies in the export table itself is the name of somebody else's function.
            if 0 < rva < image.size and not place.rva <= rva < place.rva + place.size:
                found.append((rva, index))
        found.sort()
        name_of: dict[int, int] = {}
        for number in range(directory.name_count):
            name_of.setdefault(int.from_bytes(ordinals[2 * number : 2 * number + 2], "little"), number)
        starts, indexes = array("I", (rva for rva, _ in found)), array("H", (index for _, index in found))
        return _Table(headers, starts, indexes, directory.base, name_of, directory.names)

    async def _name(self, image: Module, table: _Table, index: int) -> str | None:
        if index not in table.names_seen:
            table.names_seen[index] = await self._read_name(image, table, index)
        return table.names_seen[index]

    async def _read_name(self, image: Module, table: _Table, index: int) -> str | None:
        number = table.name_of.get(index)
        if number is None:
            return f"Ordinal{table.base + index}"
        try:
            pointer = await read_image(self._source, image, table.names + 4 * number, 4)
        except (MemoryFault, LayoutError):
            return None
        rva = int.from_bytes(pointer, "little")
        if not 0 < rva < image.size:
            return None
        size = min(_FIRST_LOOK, PAGE_SIZE - rva % PAGE_SIZE)
        text = b""
        while len(text) < LONGEST_EXPORT and rva + len(text) < image.size:
            at = rva + len(text)
            size = min(size, image.size - at)
            piece = await try_read(self._source, image.base + at, size)
            if piece is None:
                return None
            text += piece
            if b"\0" in piece:
                name = text.split(b"\0")[0].decode("utf-8", "replace")
                return name if name and name.isprintable() else None
            size = min(PAGE_SIZE - (rva + len(text)) % PAGE_SIZE, 2 * _FIRST_LOOK)
        return None
