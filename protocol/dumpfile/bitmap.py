"""Bitmap dumps, types 5 and 6: one bit for each page frame, then the pages of the set ones (dump-formats 2.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import construct as cs

from protocol.address import PAGE_SIZE, PageRuns
from protocol.errors import DumpFormatError
from protocol.structure import StructureLayout

from .header import DumpType

__all__ = [
    "BITMAP_HEADER",
    "MOST_BITS",
    "BitmapHeader",
    "bitmap_bit_count",
    "bitmap_chunks",
    "encode_bitmap_header",
    "first_page_offset",
    "parse_bitmap_header",
]

BITMAP_HEADER = StructureLayout(
    "BMP_HEADER",
    cs.Struct(
        "signature" / cs.Bytes(4),
        "valid_dump" / cs.Bytes(4),
        "dump_options" / cs.Int32ul,
        cs.Padding(0x14),
        "header_size" / cs.Int64ul,
        "pages" / cs.Int64ul,
        "bitmap_size" / cs.Int64ul,
    ),
    {"valid_dump": 4, "dump_options": 8, "header_size": 0x20, "pages": 0x28, "bitmap_size": 0x30},
    0x38,
)

MOST_BITS = 1 << 33
"""Bits of the largest bitmap that is believed: 32 TiB of physical address space."""

_SIGNATURES = {DumpType.BITMAP_FULL: b"FDMP", DumpType.BITMAP_KERNEL: b"SDMP"}

# Readers differ in how they cut a bitmap that is no whole number of bytes or words.
_BIT_ALIGNMENT = 64

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class BitmapHeader:
    """What says where bits and pages are. Offsets count from the start of the file."""

    bits_offset: int
    bit_count: int
    first_page_offset: int
    page_count: int
    """Pages, as claimed: the number of set bits is the truth."""

    @property
    def bitmap_size(self) -> int:
        """Bytes that hold bits."""
        return self.bit_count + 7 >> 3

    def checked(self) -> tuple[BitmapHeader, tuple[str, ...]]:
        """The header, with no more bits than lie before the first page; and what was wrong with it.

        Raises DumpFormatError when there can be no bitmap, or none that is believable.
        """
        if self.first_page_offset <= self.bits_offset:
            raise DumpFormatError(
                f"the first page is said to lie at {self.first_page_offset:#x}, which is before the bitmap's end",
                self.bits_offset,
            )
        room = 8 * (self.first_page_offset - self.bits_offset)
        bits, shortcomings = self.bit_count, []
        if bits > room:
            shortcomings.append(f"the bitmap says {bits:#x} bits, but only {room:#x} lie before the first page")
            bits = room
        if bits > MOST_BITS:
            raise DumpFormatError(f"a bitmap of {bits:#x} bits is not believable", self.bits_offset)
        return BitmapHeader(self.bits_offset, bits, self.first_page_offset, self.page_count), tuple(shortcomings)


def parse_bitmap_header(data: bytes, offset: int) -> BitmapHeader:
    """Read the header that lies at this file offset, right behind the dump's header.

    As WinDbg does, it takes either signature in either type, and does not look at the bytes behind it.
    Raises DumpFormatError when it is none, or cut short.
    """
    if len(data) < BITMAP_HEADER.size:
        raise DumpFormatError("the file ends inside the header of its bitmap", offset + len(data))
    if data[:4] not in _SIGNATURES.values():
        raise DumpFormatError(f"a bitmap's header begins with FDMP or SDMP, not with {data[:4]!r}", offset)
    fields = BITMAP_HEADER.decode(data)
    return BitmapHeader(offset + BITMAP_HEADER.size, fields["bitmap_size"], fields["header_size"], fields["pages"])


def encode_bitmap_header(header: BitmapHeader, kind: DumpType) -> bytes:
    """The 0x38 bytes before the bits. Raises DumpFormatError when `kind` has no bitmap like this."""
    if kind not in _SIGNATURES:
        raise DumpFormatError(f"a dump of type {kind:X} has no such bitmap; 5 and 6 have")
    return BITMAP_HEADER.encode(
        {
            "signature": int.from_bytes(_SIGNATURES[kind], "little"),
            "valid_dump": int.from_bytes(b"DUMP", "little"),
            "header_size": header.first_page_offset,
            "pages": header.page_count,
            "bitmap_size": header.bit_count,
        }
    )


def bitmap_bit_count(end_page: int) -> int:
    """Bits for all page frames below `end_page`, in whole words."""
    return -(-end_page // _BIT_ALIGNMENT) * _BIT_ALIGNMENT


def first_page_offset(bits_offset: int, bit_count: int) -> int:
    """File offset of the first page: the next page border behind the bits."""
    return -(-(bits_offset + (bit_count + 7 >> 3)) // PAGE_SIZE) * PAGE_SIZE


def bitmap_chunks(pages: PageRuns, bit_count: int) -> Iterator[bytes]:
    """The bytes of a bitmap in which the bits of `pages` are set, 64 KiB at a time.

    Frame n is bit n & 7 of byte n >> 3. Raises DumpFormatError when a page lies beyond its end.
    """
    if pages.end_page > bit_count:
        raise DumpFormatError(f"page {pages.end_page - 1:#x} has no bit in a bitmap of {bit_count:#x} bits")
    runs = iter(pages)
    run = next(runs, None)
    for start in range(0, bit_count, 8 * _PIECE):
        end = min(start + 8 * _PIECE, bit_count)
        piece = bytearray(end - start + 7 >> 3)
        while run is not None and run.base_page < end:
            _set_bits(piece, max(run.base_page - start, 0), min(run.end_page, end) - start)
            if run.end_page > end:
                break
            run = next(runs, None)
        yield bytes(piece)


def _set_bits(piece: bytearray, start: int, end: int) -> None:
    first, last = start >> 3, end - 1 >> 3
    head, tail = 0xFF << (start & 7) & 0xFF, 0xFF >> (7 - (end - 1 & 7))
    if first == last:
        piece[first] |= head & tail
        return
    piece[first] |= head
    piece[first + 1 : last] = b"\xff" * (last - first - 1)
    piece[last] |= tail
