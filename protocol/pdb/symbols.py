"""Names of places in an image: public symbols and, where the file has them, procedures and variables."""

from __future__ import annotations

import bisect
import struct
from array import array
from collections.abc import Iterator

from protocol.errors import PdbFormatError

from .dbi import Dbi, module_symbols
from .msf import Msf, Stream
from .records import c_string, record_at, records
from .sections import Sections

__all__ = ["Symbols"]

_S_PUB32 = 0x110E
_PLACES = frozenset({_S_PUB32, 0x110C, 0x110D})  # S_PUB32, S_LDATA32, S_GDATA32: laid out alike
_PROCEDURES = frozenset({0x110F, 0x1110, 0x1146, 0x1147})  # S_LPROC32, S_GPROC32, and the same with _ID
_KINDS = _PLACES | _PROCEDURES
_PLACE = struct.Struct("<HHIIH")  # length, kind, flags or type, offset, section
_PROCEDURE = struct.Struct("<HH7IIH")  # …, parent, end, next, size, debug start and end, type, offset, section
_I386 = 0x14C

_LARGEST_STREAM = 1 << 24
"""Bytes of symbols that are looked through: a second's worth. A kernel's public ones are a third of it, all of a
driver's less."""
_MOST_SYMBOLS = 1 << 19
_LONGEST_NAME = 4096


class Symbols:
    """Places that have a name, by address. Names stay in the file: ten bytes a symbol are held."""

    __slots__ = ("_machine", "_msf", "_offsets", "_rvas", "_sections", "_streams", "shortcomings")

    def __init__(self, msf: Msf, dbi: Dbi, sections: Sections) -> None:
        """Look through the file once. Raises PdbFormatError where the public symbols cannot be read."""
        self._msf = msf
        self._machine = dbi.machine
        self._sections = sections
        self.shortcomings: tuple[str, ...] = ()
        """What was left out of this file, and why."""
        places, offsets, streams = array("Q"), array("I"), array("H")
        for rva, public, offset, stream in self._found(dbi):
            if len(places) >= _MOST_SYMBOLS:
                self._short(f"more than {_MOST_SYMBOLS} symbols: the rest was left out")
                break
            # Of several names of one place the first stays, and one that is not decorated, as public ones are.
            places.append(rva << 1 | public)
            offsets.append(offset)
            streams.append(stream)
        order = sorted(range(len(places)), key=places.__getitem__)
        keep = [index for at, index in enumerate(order) if not at or places[order[at - 1]] >> 1 != places[index] >> 1]
        self._rvas = array("I", [places[index] >> 1 for index in keep])
        self._offsets = array("I", [offsets[index] for index in keep])
        self._streams = array("H", [streams[index] for index in keep])

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Every place with its name, ascending. Raises PdbFormatError for what is not there."""
        for index, rva in enumerate(self._rvas):
            yield rva, self._name(index)

    def nearest(self, rva: int) -> tuple[str, int] | None:
        """The name of the place at or before `rva` in the same section, and where that is.

        None where there is none. Raises PdbFormatError where the name is not there.
        """
        index = bisect.bisect_right(self._rvas, rva) - 1
        if index < 0 or self._rvas[index] < self._sections.section_start(rva):
            return None
        return self._name(index), self._rvas[index]

    def _short(self, problem: str) -> None:
        self.shortcomings += (problem,)

    def _found(self, dbi: Dbi) -> Iterator[tuple[int, bool, int, int]]:
        """Of every symbol: its place, whether it is a public one, its record's offset and stream."""
        try:
            yield from self._of_modules(dbi)
        except PdbFormatError as error:
            self._short(str(error))
        if dbi.symbol_records is None:
            raise PdbFormatError("symbol records", "there are none in this file")
        stream = self._msf.stream(dbi.symbol_records, "symbol records")
        end = min(stream.size, _LARGEST_STREAM)
        if end < stream.size:
            self._short(f"{stream.size:#x} bytes of symbols are more than are looked through: the first {end:#x} are")
        yield from self._walk(stream, dbi.symbol_records, 0, end)

    def _of_modules(self, dbi: Dbi) -> Iterator[tuple[int, bool, int, int]]:
        modules = list(module_symbols(self._msf, dbi))
        total = sum(module.size for module in modules)
        if total > _LARGEST_STREAM:
            self._short(f"{total:#x} bytes of modules' symbols are more than are looked through: only public ones are")
            return
        for module in modules:
            stream = self._msf.stream(module.stream, "module's symbols")
            yield from self._walk(stream, module.stream, 4, module.size)

    def _walk(self, stream: Stream, number: int, start: int, end: int) -> Iterator[tuple[int, bool, int, int]]:
        place = self._sections.rva
        for offset, data, at, behind in records(stream, start, end, _KINDS):
            kind = data[at + 2] | data[at + 3] << 8
            layout = _PROCEDURE if kind in _PROCEDURES else _PLACE
            if behind - at >= layout.size:
                *_, where, section = layout.unpack_from(data, at)
                rva = place(section, where)
                if rva is not None:
                    yield rva, kind == _S_PUB32, offset, number

    def _name(self, index: int) -> str:
        data = record_at(self._msf.stream(self._streams[index], "symbol records"), self._offsets[index])
        kind = data[2] | data[3] << 8
        begin = _PROCEDURE.size + 1 if kind in _PROCEDURES else _PLACE.size  # one byte of flags
        name, _ = c_string(data, begin, min(len(data), begin + _LONGEST_NAME))
        return _undecorated(name) if kind == _S_PUB32 and self._machine == _I386 else name


def _undecorated(name: str) -> str:
    """A 32-bit C function's own name: cdecl puts `_` before it, stdcall also `@` and a number behind, fastcall `@`."""
    if name[:1] not in ("_", "@"):
        return name
    plain, _, arguments = name[1:].partition("@")
    return plain if plain and (not arguments or arguments.isdecimal()) else name
