"""Summary dumps, type 2: how Windows 2000 to 7 wrote kernel dumps. Read only (dump-formats 2.4)."""

from __future__ import annotations

from collections.abc import Mapping

import construct as cs

from protocol.errors import DumpFormatError
from protocol.structure import StructureLayout

from .bitmap import BitmapHeader
from .header_layout import Bits

__all__ = ["SUMMARY_HEADER", "parse_summary_header"]

SUMMARY_HEADER = StructureLayout(
    "SUMMARY_DUMP",
    cs.Struct(
        "signature" / cs.Bytes(4),
        "valid_dump" / cs.Bytes(4),
        "dump_options" / cs.Int32ul,
        "header_size" / cs.Int32ul,
        "bitmap_size" / cs.Int32ul,
        "pages" / cs.Int32ul,
        "size_of_bitmap" / cs.Int32ul,
        cs.Padding(4),
    ),
    {"valid_dump": 4, "dump_options": 8, "header_size": 0xC, "bitmap_size": 0x10, "pages": 0x14},
    0x20,
)

_BITS_AT: Mapping[Bits, int] = {32: 0x20, 64: 0x28}


def parse_summary_header(data: bytes, offset: int, bits: Bits) -> BitmapHeader:
    """Read the header that lies at this file offset. Raises DumpFormatError when it is none, or cut short."""
    if len(data) < SUMMARY_HEADER.size:
        raise DumpFormatError("the file ends inside the header of its summary", offset + len(data))
    if data[:4] != b"SDMP":
        raise DumpFormatError(f"the header of a summary begins with SDMP, not with {data[:4]!r}", offset)
    fields = SUMMARY_HEADER.decode(data)
    return BitmapHeader(offset + _BITS_AT[bits], fields["bitmap_size"], fields["header_size"], fields["pages"])
