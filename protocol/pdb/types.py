"""Offsets of structures' fields, by name, from the type records (TPI stream) of a PDB."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import construct as cs

from protocol.errors import PdbFormatError
from protocol.structure import StructureLayout

from .msf import Msf
from .records import c_string, numeric, records

__all__ = ["TPI_HEADER", "Types"]

TPI_HEADER = StructureLayout(
    "TPI header",
    cs.Struct(
        "version" / cs.Int32ul,
        "header_size" / cs.Int32ul,
        "type_index_begin" / cs.Int32ul,
        "type_index_end" / cs.Int32ul,
        "type_record_bytes" / cs.Int32ul,
        cs.Padding(36),  # of the hash stream
    ),
    {"header_size": 4, "type_index_begin": 8, "type_record_bytes": 16},
    56,
)

_TPI_STREAM = 2
_LARGEST_STREAM = 1 << 24
_STEP = 64
"""One record of so many has its offset remembered."""
_MOST_PARTS = 64
"""Records that one list of fields goes on in. Each holds up to 64 KiB."""

_FORWARD_REFERENCE = 0x80
_LF_FIELDLIST, _LF_INDEX, _LF_MEMBER, _LF_ONEMETHOD, _LF_UNION = 0x1203, 0x1404, 0x150D, 0x1511, 0x1506
_STRUCTURES = {0x1504: 16, 0x1505: 16, _LF_UNION: 8}  # LF_CLASS, LF_STRUCTURE: bytes before the size
_NAMED = {0x150E: 6, 0x150F: 6, 0x1510: 6}  # LF_STMEMBER, LF_METHOD, LF_NESTTYPE: bytes before the name
_NUMBERED = {0x1400: (6, 1), 0x1401: (10, 2), 0x1402: (10, 2)}  # base classes: bytes before the numbers, how many
_LF_VFUNCTAB, _LF_ENUMERATE = 0x1409, 0x1502


class Types:
    """The structures of a file. What was asked for once is remembered; nothing else is held but a sparse index."""

    def __init__(self, msf: Msf) -> None:
        """Raises PdbFormatError where there are no types that can be read."""
        self._stream = msf.stream(_TPI_STREAM, "TPI stream")
        header = self._stream.read(0, TPI_HEADER.size)
        if len(header) < TPI_HEADER.size:
            raise PdbFormatError(self._stream.name, "it ends inside its header")
        fields = TPI_HEADER.decode(header)
        self._start = fields["header_size"]
        self._end = self._start + fields["type_record_bytes"]
        self._first = fields["type_index_begin"]
        if self._start < TPI_HEADER.size or self._end > self._stream.size:
            raise PdbFormatError(self._stream.name, "its records do not lie inside it")
        if self._end > _LARGEST_STREAM:
            raise PdbFormatError(self._stream.name, f"{self._end:#x} bytes are more than are looked through")
        self._marks: array[int] | None = None
        self._known: dict[str, dict[str, int] | None] = {}

    def field_offset(self, type_name: str, field: str) -> int | None:
        """Where a field begins in a structure, union or class, in bytes. None: no such type, or no such field.

        Fields of unnamed structures and unions inside it are its own, as in C. Raises PdbFormatError.
        """
        if type_name not in self._known:
            self._known[type_name] = self._fields_of(type_name)
        fields = self._known[type_name]
        return None if fields is None else fields.get(field)

    def _fields_of(self, type_name: str) -> dict[str, int] | None:
        wanted = type_name.encode("utf-8", "replace") + b"\0"
        found = None
        for _, data, at, end in records(self._stream, self._start, self._end, _STRUCTURES):
            before = _STRUCTURES[data[at + 2] | data[at + 3] << 8]
            # The search for the name's bytes is the quick way past the thousands of others.
            if data.find(wanted, at, end) < 0 or end - at < 4 + before:
                continue
            if data[at + 6] & _FORWARD_REFERENCE:
                continue
            size = numeric(data, at + 4 + before, end)
            if size is not None and c_string(data, size[1], end)[0] == type_name:
                found = int.from_bytes(data[at + 8 : at + 12], "little")
                break
        return None if found is None else dict(self._fields(found))

    def _record(self, index: int) -> bytes:
        """The record of a type's number."""
        if self._marks is None:
            every = enumerate(records(self._stream, self._start, self._end))
            self._marks = array("I", [offset for count, (offset, *_) in every if not count % _STEP])
        place = index - self._first
        if not 0 <= place // _STEP < len(self._marks):
            raise PdbFormatError(self._stream.name, f"there is no type {index:#x}")
        walk = records(self._stream, self._marks[place // _STEP], self._end)
        for count, (_, data, at, end) in enumerate(walk):
            if count == place % _STEP:
                return data[at:end]
        raise PdbFormatError(self._stream.name, f"there is no type {index:#x}")

    def _fields(self, index: int) -> Iterator[tuple[str, int]]:
        """Names and offsets of the members that a list of fields names, over all the records that it goes on in."""
        for _ in range(_MOST_PARTS):
            data = self._record(index)
            if data[2] | data[3] << 8 != _LF_FIELDLIST:
                raise PdbFormatError(self._stream.name, f"type {index:#x} is no list of fields")
            at, following = 4, 0
            while at < len(data) and not following:
                if data[at] >= 0xF0:  # LF_PAD: up to the next multiple of four
                    at += max(data[at] & 0xF, 1)
                    continue
                kind = data[at] | data[at + 1] << 8 if at + 2 <= len(data) else 0
                if kind == _LF_INDEX:
                    following = int.from_bytes(data[at + 4 : at + 8], "little")
                elif kind == _LF_MEMBER:
                    number = numeric(data, at + 8, len(data))
                    if number is None:
                        raise self._cut(index, kind)
                    name, at = c_string(data, number[1], len(data))
                    yield name, number[0]
                else:
                    at = self._behind(data, at, kind, index)
            if not following:
                return
            index = following
        raise PdbFormatError(self._stream.name, f"a list of fields goes on in more than {_MOST_PARTS} records")

    def _behind(self, data: bytes, at: int, kind: int, index: int) -> int:
        """The offset behind an entry that is no member."""
        if kind in _NAMED:
            return c_string(data, at + 2 + _NAMED[kind], len(data))[1]
        if kind == _LF_VFUNCTAB:
            return at + 8
        if kind == _LF_ONEMETHOD:
            introduces = int.from_bytes(data[at + 2 : at + 4], "little") >> 2 & 7 in (4, 6)
            return c_string(data, at + (12 if introduces else 8), len(data))[1]
        if kind in _NUMBERED or kind == _LF_ENUMERATE:
            before, count = _NUMBERED.get(kind, (2, 1))
            at += 2 + before
            for _ in range(count):
                number = numeric(data, at, len(data))
                if number is None:
                    raise self._cut(index, kind)
                at = number[1]
            return at if kind in _NUMBERED else c_string(data, at, len(data))[1]
        raise self._cut(index, kind)

    def _cut(self, index: int, kind: int) -> PdbFormatError:
        return PdbFormatError(
            self._stream.name, f"an entry {kind:#x} in the list of fields {index:#x} is not known or cut"
        )
