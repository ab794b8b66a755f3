"""Symbols: which name a place gets, and what is left out of files that are too much or damaged."""

from __future__ import annotations

import struct

import pytest

from protocol.errors import PdbFormatError
from protocol.pdb import symbols as symbols_module
from tests.protocol.pdb import built

SECTIONS = built.section_header(".text", 0x1000, 0x1000)


def _symbols(records: bytes, machine: int = 0x8664) -> list[tuple[int, str]]:
    return list(built.pdb_of(built.symbol_file(records, SECTIONS, machine=machine)).symbols())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        # Microsoft's documentation, "Decorated names", format of a C decorated name.
        ("_KeTickCount", "KeTickCount"),
        ("_KeBugCheckEx@20", "KeBugCheckEx"),
        ("@ObfDereferenceObject@4", "ObfDereferenceObject"),
        ("?f@@YAXXZ", "?f@@YAXXZ"),
        ("__except_handler4", "_except_handler4"),
        ("_strange@name", "_strange@name"),
        ("_", "_"),
    ],
)
def test_only_32_bit_names_lose_their_decoration(written: str, meant: str) -> None:
    record = built.public(written, 1, 4)
    assert _symbols(record, machine=0x14C) == [(0x1004, meant)]
    assert _symbols(record, machine=0x8664) == [(0x1004, written)]


def test_of_two_names_the_first_stays_and_other_records_are_passed_over() -> None:
    records = (
        built.record(0x1125, bytes(20))
        + built.public("one", 1, 8)
        + built.record(0x110E, b"")
        + built.public("two", 1, 8)
    )
    assert _symbols(records + built.public("before", 1, 0)) == [(0x1000, "before"), (0x1008, "one")]


def test_a_variables_own_name_is_better_than_a_public_one() -> None:
    for kind in (0x110C, 0x110D):
        own = built.record(kind, struct.pack("<IIH", 0x74, 8, 1) + b"Rivers::all\0")
        assert _symbols(built.public("?all@Rivers@@3HA", 1, 8) + own) == [(0x1008, "Rivers::all")]


def test_a_stream_that_is_too_long_is_looked_through_in_part_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [built.public(f"s{number}", 1, number) for number in range(9)]
    monkeypatch.setattr(symbols_module, "_LARGEST_STREAM", sum(map(len, records[:4])))
    pdb = built.pdb_of(built.symbol_file(b"".join(records), SECTIONS))
    assert [name for _, name in pdb.symbols()] == ["s0", "s1", "s2", "s3"]
    assert pdb.shortcomings == ("0xb4 bytes of symbols are more than are looked through: the first 0x50 are",)


def test_a_name_of_any_length_and_bytes_is_a_name() -> None:
    long = "x" * 60_000
    record = built.record(0x110E, struct.pack("<IIH", 0, 0, 1) + long.encode())
    assert _symbols(record) == [(0x1000, "x" * 4096)]
    record = built.record(0x110E, struct.pack("<IIH", 0, 0, 1) + b"\xff\xfe\0\0")
    assert _symbols(record) == [(0x1000, "\ufffd\ufffd")]


def _with_module(body: bytes, said: int | None = None) -> bytes:
    names = b"a.obj\0\0\0"
    size = len(body) if said is None else said
    module = bytes(34) + struct.pack("<HI", 7, size) + bytes(24) + names
    dbi = built.dbi_stream(6, {5: 5}, modules=module)
    public = built.public("_decorated", 1, 0x10) + built.public("alone", 1, 0x20)
    return built.msf_file([b"", built.info_stream(bytes(16)), b"", dbi, b"", SECTIONS, public, body])


def _procedure(kind: int, name: str, offset: int) -> bytes:
    return built.record(kind, bytes(28) + struct.pack("<IHB", offset, 1, 0) + name.encode() + b"\0")


def test_a_modules_own_name_is_better_than_a_public_one() -> None:
    body = struct.pack("<I", 4) + _procedure(0x1110, "Own::name", 0x10) + _procedure(0x1146, "hidden", 0x18)
    pdb = built.pdb_of(_with_module(body))
    assert list(pdb.symbols()) == [(0x1010, "Own::name"), (0x1018, "hidden"), (0x1020, "alone")]
    assert pdb.shortcomings == ()


def test_damaged_modules_leave_the_public_symbols() -> None:
    body = struct.pack("<I", 4) + _procedure(0x1110, "fine", 0x18) + b"\x00\x00\x00\x00"
    pdb = built.pdb_of(_with_module(body))
    assert list(pdb.symbols()) == [(0x1010, "_decorated"), (0x1018, "fine"), (0x1020, "alone")]
    assert pdb.shortcomings == ("module's symbols: the record at 0x30 is said to be 0 bytes long",)


def test_modules_that_are_too_much_are_left_out_and_said() -> None:
    pdb = built.pdb_of(_with_module(bytes(8), said=1 << 30))
    assert [name for _, name in pdb.symbols()] == ["_decorated", "alone"]
    assert "0x40000000 bytes of modules' symbols are more than are looked through" in pdb.shortcomings[0]


def test_more_symbols_than_are_held_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbols_module, "_MOST_SYMBOLS", 3)
    pdb = built.pdb_of(built.symbol_file(b"".join(built.public(f"s{n}", 1, n) for n in range(9)), SECTIONS))
    assert [name for _, name in pdb.symbols()] == ["s0", "s1", "s2"]
    assert pdb.shortcomings == ("more than 3 symbols: the rest was left out",)


def test_damaged_records_are_an_error() -> None:
    with pytest.raises(PdbFormatError, match="symbol records: the record at 0x14 is said"):
        _symbols(built.public("one", 1, 8) + bytes(4))
