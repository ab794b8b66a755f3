"""Fields of structures: entries of every kind before them, lists that go on elsewhere, indexes that lead nowhere."""

from __future__ import annotations

import struct

import pytest

from protocol.errors import PdbFormatError
from protocol.pdb import Pdb
from tests.protocol.pdb import built


def _structure(name: str, fields: int, *, kind: int = 0x1505, forward: bool = False) -> bytes:
    body = struct.pack("<HHI", 1, 0x80 if forward else 0, fields) + (b"" if kind == 0x1506 else bytes(8))
    return built.record(kind, body + struct.pack("<H", 8) + name.encode() + b"\0.?AU" + name.encode() + b"@@\0")


def _member(name: str, offset: int) -> bytes:
    number = struct.pack("<H", offset) if offset < 0x8000 else struct.pack("<HI", 0x8004, offset)
    return _padded(struct.pack("<HHI", 0x150D, 3, 0x74) + number + name.encode() + b"\0")


def _padded(data: bytes) -> bytes:
    """As compilers do: F3 F2 F1 up to the next multiple of four."""
    return data + bytes(0xF0 + left for left in range(-len(data) % 4, 0, -1))


def _go_on(index: int) -> bytes:
    return struct.pack("<HHI", 0x1404, 0, index)


def _list(*entries: bytes) -> bytes:
    return built.record(0x1203, b"".join(entries))


def _file(*types: bytes) -> Pdb:
    return built.pdb_of(built.symbol_file(b"", built.section_header(".text", 0x1000, 1), types=types))


def test_entries_of_every_kind_are_passed_over() -> None:
    """Laid out as cvinfo.h declares them: lfBClass, lfVBClass, lfVFuncTab, lfSTMember, lfMethod, lfOneMethod, …"""
    entries = [
        struct.pack("<HHIH", 0x1400, 3, 0x1000, 0),
        struct.pack("<HHIIHH", 0x1401, 3, 0x1000, 0x1000, 8, 1),
        struct.pack("<HHIIHHI", 0x1402, 3, 0x1000, 0x1000, 8, 0x8004, 1),
        struct.pack("<HHI", 0x1409, 0, 0x1000),
        struct.pack("<HHI", 0x150E, 3, 0x74) + b"static\0",
        struct.pack("<HHI", 0x150F, 2, 0x1000) + b"overloaded\0",
        struct.pack("<HHI", 0x1511, 3, 0x1000) + b"method\0",
        struct.pack("<HHII", 0x1511, 4 << 2 | 3, 0x1000, 16) + b"virtual\0",
        struct.pack("<HHI", 0x1510, 0, 0x1000) + b"Nested\0",
        struct.pack("<HHHI", 0x1502, 3, 0x8004, 0xFFFF_FFFF) + b"Enumerated\0",
    ]
    fields = _list(*(_padded(entry) for entry in entries), _member("Found", 24), _member("Far", 100_000))
    for kind in (0x1504, 0x1505, 0x1506):
        pdb = _file(_structure("Thing", 0, kind=kind, forward=True), fields, _structure("Thing", 0x1001, kind=kind))
        assert pdb.field_offset("Thing", "Found") == 24
        assert pdb.field_offset("Thing", "Far") == 100_000
        assert pdb.field_offset("Thing", "static") is None


def test_a_list_goes_on_in_another_record_and_far_away() -> None:
    """Many types between, so that the sparse index is used; in Microsoft's files the last part comes first."""
    between = [built.record(0x1002, bytes(8 + 4 * (n % 3))) for n in range(1000)]
    pdb = _file(
        _list(_member("Late", 80)), *between, _list(_member("Middle", 40), _go_on(0x1000)), *between,
        _list(_member("Early", 0), _go_on(0x1000 + 1001)), _structure("Long", 0x1000 + 2002), *between,
    )  # fmt: skip
    assert [pdb.field_offset("Long", name) for name in ("Early", "Middle", "Late", "None")] == [0, 40, 80, None]


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        ([_list(_member("a", 0), _go_on(0x1000)), _structure("T", 0x1000)], "goes on in more than 64 records"),
        ([_structure("T", 0x1005)], "there is no type 0x1005"),
        ([_structure("T", 0xFFFF_FFFF)], "there is no type 0xffffffff"),
        ([_structure("T", 0x74)], "there is no type 0x74"),
        ([_structure("T", 0x1000)], "type 0x1000 is no list of fields"),
        (
            [_list(struct.pack("<HHI", 0x1299, 0, 0)), _structure("T", 0x1000)],
            "an entry 0x1299 in the list of",
        ),
        (
            [_list(struct.pack("<HHIH", 0x150D, 0, 0, 0x8004)), _structure("T", 0x1000)],
            "an entry 0x150d in the list",
        ),
        ([bytes(4), _structure("T", 0x1000)], "the record at 0x38 is said to be 0 bytes long"),
    ],
)
def test_what_leads_nowhere_is_an_error(types: list[bytes], problem: str) -> None:
    with pytest.raises(PdbFormatError, match=problem):
        _file(*types).field_offset("T", "x")


def _header(**changes: int) -> bytes:
    fields = {"version": 20040203, "size": 56, "first": 0x1000, "end": 0x1000, "bytes": 0} | changes
    return struct.pack("<5I36x", *fields.values())


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (b"", "it ends inside its header"),
        (None, "there is no stream 2"),
        (_header(bytes=8), "its records do not lie inside it"),
        (_header(size=8), "its records do not lie inside it"),
        (_header(size=0xFFFF_FFFF), "its records do not lie inside it"),
    ],
)
def test_a_stream_that_cannot_be_is_an_error(stream: bytes | None, problem: str) -> None:
    data = built.msf_file([b"", built.info_stream(bytes(16)), stream, built.dbi_stream(6, {})])
    with pytest.raises(PdbFormatError, match=problem):
        built.pdb_of(data).field_offset("T", "x")
