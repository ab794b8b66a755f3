"""Range dumps, types 8, 9 and A: what WinDbg since 2022 writes for .dump /k, /ka and /f. Read only (dump-formats 2.5).

They are known from other people's readers alone, and older readers cannot open them: so nothing here writes one.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import construct as cs

from protocol.address import PageRun
from protocol.errors import DumpFormatError
from protocol.structure import StructureLayout

from .header import DumpType

__all__ = [
    "MOST_RANGES",
    "RANGE_HEADER",
    "RANGE_SIZE",
    "Columns",
    "RangeHeader",
    "columns_of_table",
    "parse_range_header",
    "ranges_of_bytes",
    "ranges_of_table",
]

MOST_RANGES = 1 << 21
"""More ranges than this are not believed."""

RANGE_HEADER = StructureLayout(
    "RDMP_HEADER64",
    cs.Struct(
        "marker" / cs.Int32ul,
        "signature" / cs.Bytes(4),
        "valid_dump" / cs.Bytes(4),
        cs.Padding(4),
        "metadata_size" / cs.Int64ul,
        "first_page_offset" / cs.Int64ul,
        "number_of_ranges" / cs.Int32ul,  # these last three in type A only
        cs.Padding(4),
        "total_pages" / cs.Int64ul,
    ),
    {"signature": 4, "valid_dump": 8, "metadata_size": 0x10, "first_page_offset": 0x18, "total_pages": 0x28},
    0x30,
)

_RANGE = struct.Struct("<QQ")
RANGE_SIZE = 16
"""Bytes of an entry."""
assert _RANGE.size == RANGE_SIZE


Columns = tuple[tuple[int, ...], tuple[int, ...]]
"""First pages and page counts of ranges that follow each other in a table."""


@dataclass(frozen=True, slots=True)
class RangeHeader:
    """Where the table of ranges lies, and where the pages begin (at no page border). Offsets in the file."""

    table_offset: int
    table_size: int
    first_page_offset: int
    total_pages: int | None
    """Type A: pages in all ranges, with which its table ends. None: the table ends with an empty entry."""


def parse_range_header(data: bytes, offset: int, kind: DumpType) -> RangeHeader:
    """Read the header that lies at this file offset. Raises DumpFormatError when it is none, or cut short."""
    if len(data) < RANGE_HEADER.size:
        raise DumpFormatError("the file ends inside the header of its ranges", offset + len(data))
    if data[4:8] != b"RDMP":
        raise DumpFormatError(f"the header of ranges begins with RDMP, not with {data[4:8]!r}", offset + 4)
    fields = RANGE_HEADER.decode(data)
    table = offset + RANGE_HEADER.size
    first = fields["first_page_offset"]
    size = first - table
    if size < 0:
        raise DumpFormatError(f"the first page is said to lie at {first:#x}, which is before its ranges", offset + 0x18)
    if size > MOST_RANGES * _RANGE.size:
        raise DumpFormatError(f"a table of {size:#x} bytes of ranges is not believable", offset + 0x18)
    return RangeHeader(table, size, first, fields["total_pages"] if kind is DumpType.COMPLETE_RANGES else None)


def columns_of_table(pieces: Iterable[bytes], header: RangeHeader) -> Iterator[Columns]:
    """The ranges in a table that comes in pieces, each a whole number of entries, in the order of their pages.

    There may be two million of them: so nothing here is done for each one alone.
    """
    left = header.total_pages
    for piece in pieces:
        words = struct.unpack(f"<{len(piece) // RANGE_SIZE * 2}Q", piece[: len(piece) // RANGE_SIZE * RANGE_SIZE])
        bases, counts = words[::2], words[1::2]
        if left is None:
            if 0 in bases:
                end = bases.index(0)
                yield bases[:end], counts[:end]
                return
        else:
            sums = list(itertools.accumulate(counts))
            if not sums or sums[-1] >= left:
                end = bisect.bisect_left(sums, left) + 1 if left else 0
                yield bases[:end], counts[:end]
                return
            left -= sums[-1]
        yield bases, counts


def ranges_of_table(pieces: Iterable[bytes], header: RangeHeader) -> Iterator[PageRun]:
    """The same, one after the other."""
    for bases, counts in columns_of_table(pieces, header):
        yield from map(PageRun, bases, counts)


def ranges_of_bytes(data: bytes) -> Iterator[PageRun]:
    """The ranges in a part of the table, wherever it may end."""
    for base, count in _RANGE.iter_unpack(data[: len(data) // RANGE_SIZE * RANGE_SIZE]):
        yield PageRun(base, count)
