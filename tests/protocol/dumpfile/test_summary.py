"""Type 2, which nothing here writes: laid out by hand after the published offsets (dump-formats 2.4)."""

from __future__ import annotations

import pytest

from protocol.dumpfile.bitmap import BitmapHeader
from protocol.dumpfile.summary import parse_summary_header
from protocol.errors import DumpFormatError

# SDMP, DUMP, options, HeaderSize, BitmapSize, Pages, SizeOfBitMap, reserved
_RAW = bytes.fromhex("53444d50 44554d50 01000000 00300000 00040000 15000000 00040000 00000000")


def test_bits_lie_at_28_on_64_bit_and_at_20_on_32_bit() -> None:
    assert parse_summary_header(_RAW, 0x2000, 64) == BitmapHeader(0x2028, 0x400, 0x3000, 0x15)
    assert parse_summary_header(_RAW, 0x1000, 32) == BitmapHeader(0x1020, 0x400, 0x3000, 0x15)


def test_damage_is_named() -> None:
    with pytest.raises(DumpFormatError, match="0x2000: the header of a summary begins with SDMP"):
        parse_summary_header(bytes(0x20), 0x2000, 64)
    with pytest.raises(DumpFormatError, match="0x201f: the file ends inside the header of its summary"):
        parse_summary_header(_RAW[:-1], 0x2000, 64)
