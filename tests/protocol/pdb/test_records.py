"""Records one after the other: lengths that lie, numbers of every kind, names that do not end."""

from __future__ import annotations

import struct

import pytest

from protocol.errors import PdbFormatError
from protocol.pdb.msf import Msf, Stream
from protocol.pdb.records import c_string, numeric, record_at, records
from tests.protocol.pdb import built


def _stream(data: bytes) -> Stream:
    file = built.msf_file([data], 512)
    return Msf(built.reader(file), len(file)).stream(0, "stream")


def test_each_record_comes_once_whatever_the_pieces_it_is_read_in() -> None:
    """Enough of the longest kind that the walk has to read on several times, within records too."""
    bodies = [bytes([n % 251]) * (n * 4093 % 65_000 // 4 * 4) for n in range(40)]
    data = b"".join(built.record(0x1000 + n, body) for n, body in enumerate(bodies))
    assert len(data) > 4 << 18
    stream, expected, found = _stream(data), 0, []
    for offset, buffer, at, end in records(stream, 0, len(data)):
        assert offset == expected
        found.append(buffer[at + 4 : end])
        assert struct.unpack_from("<HH", buffer, at) == (end - at - 2, 0x1000 + len(found) - 1)
        assert record_at(stream, offset) == buffer[at:end]
        expected += end - at
    assert found == bodies


def test_only_the_part_that_was_asked_for_is_walked() -> None:
    data = built.record(1, b"") * 10
    assert [offset for offset, *_ in records(_stream(data), 8, 20)] == [8, 12, 16]
    assert [offset for offset, *_ in records(_stream(data), 36, 1 << 40)] == [36]
    assert list(records(_stream(data), 100, 200)) == []


@pytest.mark.parametrize("length", [0, 1, 40, 0xFFFF])
def test_a_length_that_cannot_be_ends_the_walk(length: int) -> None:
    data = built.record(1, b"1234") + struct.pack("<HH", length, 2) + bytes(8)
    walk = records(_stream(data), 0, len(data))
    next(walk)
    with pytest.raises(PdbFormatError, match=f"stream: the record at 0x8 is said to be {length} bytes long"):
        next(walk)
    with pytest.raises(PdbFormatError, match="stream: there is no whole record at 0x8"):
        record_at(_stream(data), 8)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("0000", 0),
        ("ff7f", 0x7FFF),
        ("0080ff", -1),
        ("0180feff", -2),
        ("02800080", 0x8000),
        ("0380ffffffff", -1),
        ("0480b0110100", 70064),
        ("0980ffffffffffffffff", -1),
        ("0a80ffffffffffffffff", (1 << 64) - 1),
    ],
)
def test_numbers_are_as_cvinfo_h_writes_them(data: str, value: int) -> None:
    piece = bytes.fromhex(data)
    assert numeric(b"??" + piece + b"?", 2, 3 + len(piece)) == (value, 2 + len(piece))
    assert numeric(piece, 0, len(piece) - 1) is None, "cut short"


def test_a_real_number_is_none_of_an_offset() -> None:
    assert numeric(bytes.fromhex("058000000000"), 0, 6) is None


def test_a_name_ends_at_a_zero_byte_or_where_the_record_does() -> None:
    assert c_string(b"abc\0def", 0, 7) == ("abc", 4)
    assert c_string(b"abcdef", 2, 5) == ("cde", 6)
    assert c_string(b"a\xffb\0", 0, 4) == ("a\ufffdb", 4)
    assert c_string(b"abc", 9, 3) == ("", 4)
