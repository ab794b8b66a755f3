"""How a dump file is laid out: one value that says where each page is, from a file's first bytes.

The file is asked for through a callable, so that nothing here opens one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from protocol.address import PAGE_SIZE, PageRun
from protocol.errors import DumpFormatError

from .believed import BelievedRuns
from .bitmap import BITMAP_HEADER, BitmapHeader, parse_bitmap_header
from .complete import complete_index
from .header import DumpHeader, DumpType, parse_header
from .header_layout import DUMP_HEADER64
from .index import LARGE_CHUNK_SIZE, BitmapIndex, PageIndex, RunIndex
from .range_index import GROUP, RangeIndex
from .ranges import RANGE_HEADER, RANGE_SIZE, columns_of_table, parse_range_header, ranges_of_bytes, ranges_of_table
from .secondary import SecondaryBlob, parse_secondary
from .summary import SUMMARY_HEADER, parse_summary_header
from .triage import parse_triage

__all__ = ["DumpLayout", "ReadFile", "parse_layout"]

ReadFile = Callable[[int, int], bytes]
"""(offset, size) to bytes of the file: fewer than asked for only at its end."""

_PIECE = 1 << 16

_KEPT_BITMAP = 4 << 20
"""Bytes of a bitmap that is kept in memory whole: 128 GiB of physical memory."""

_KEPT_RANGES = 1 << 16
"""Ranges that are kept in memory, in whatever order they are."""

_TRIAGE_TRAILER = b"TRGD"


@dataclass(frozen=True, slots=True)
class DumpLayout:
    """A dump file, as far as it can be told from its tables. Sizes and offsets in bytes.

    `shortcomings` says in words what is missing or contradictory in a file that can be used all the same.
    A small dump (type 4) holds no pages, but pieces by virtual address: `pages` is empty then.
    """

    header: DumpHeader
    pages: PageIndex
    first_page_offset: int
    claimed_page_count: int
    """Pages that should be there; fewer are where the file was cut off."""
    expected_size: int
    """End of the last page that should be there (of all triage data in a small dump)."""
    size: int
    secondary: tuple[SecondaryBlob, ...]
    shortcomings: tuple[str, ...]

    @property
    def kind(self) -> DumpType:
        """How memory lies in the file."""
        return self.header.dump_type

    @property
    def is_triage(self) -> bool:
        """A small dump: pieces of memory by virtual address, no pages."""
        return self.kind is DumpType.TRIAGE


@dataclass(frozen=True, slots=True)
class _Pages:
    index: PageIndex
    first_offset: int
    shortcomings: tuple[str, ...] = ()


def parse_layout(read: ReadFile, size: int) -> DumpLayout:
    """Find out where everything lies in a file of `size` bytes.

    Raises DumpFormatError, with the file offset, when it is no dump at all, or of an unknown type. Everything else that
    is wrong is told by `shortcomings`: a file that was cut off, or whose tables are damaged, is used as far as they
    can be believed. At worst no page is found, and the header tells all the same.
    """
    header = parse_header(read(0, DUMP_HEADER64.size))
    if header.dump_type is DumpType.TRIAGE:
        return _triage(read, header, size)
    try:
        pages = _PARSERS[header.dump_type](read, header, size)
    except DumpFormatError as error:
        nothing = RunIndex(header.size, ())
        return DumpLayout(
            header, nothing, header.size, 0, size, size, (), (f"no page of memory can be found in it: {error}",)
        )
    claimed = pages.index.claimed_count
    expected = pages.first_offset + claimed * PAGE_SIZE
    shortcomings = list(pages.shortcomings)
    if missing := max(claimed - _stored(size, pages.first_offset), 0):
        shortcomings.append(
            f"the file was cut off: {size:#x} bytes of {expected:#x} are there, and {missing} of {claimed} pages"
            " are not"
        )
    blobs, faults = parse_secondary(read, expected, size) if size > expected else ((), ())
    shortcomings += faults
    needed = max((blob.file_offset + blob.size for blob in blobs), default=expected)
    space = header.required_dump_space
    if header.dump_type in (DumpType.BITMAP_FULL, DumpType.BITMAP_KERNEL) and space is not None and space < needed:
        shortcomings.append(
            f"RequiredDumpSpace says {space:#x}, less than the {needed:#x} bytes of data: WinDbg reads no further"
        )
    return DumpLayout(header, pages.index, pages.first_offset, claimed, expected, size, blobs, tuple(shortcomings))


def _complete(_read: ReadFile, header: DumpHeader, size: int) -> _Pages:
    index, problem = complete_index(header, _stored(size, header.size))
    shortcomings = [problem] if problem else []
    if header.surplus_runs and not problem:
        shortcomings.append(
            f"the header counts {header.surplus_runs} more runs of memory than it can hold: their pages are not found"
        )
    shortcomings += _of_overlaps(index)
    claimed = header.claimed_pages
    if claimed == int.from_bytes(b"PAGE" * (header.bits // 32), "little"):
        shortcomings.append("the header does not say how many pages there are (NumberOfPages): WinDbg warns of that")
    elif claimed is not None and claimed != index.claimed_count and not header.surplus_runs:
        shortcomings.append(
            f"the header says {claimed} pages (NumberOfPages), its runs have {index.claimed_count}: runs are believed"
        )
    return _Pages(index, header.size, tuple(shortcomings))


def _of_overlaps(index: RunIndex) -> list[str]:
    if not (twice := index.ambiguous):
        return []
    count, first = twice.page_count, twice[0].base_page
    return [f"pages that two runs of memory hold are left out: {count} of them, {first:#x} the first"]


def _bitmap(read: ReadFile, header: DumpHeader, size: int) -> _Pages:
    return _by_bits(read, parse_bitmap_header(read(header.size, BITMAP_HEADER.size), header.size), size)


def _summary(read: ReadFile, header: DumpHeader, size: int) -> _Pages:
    raw = read(header.size, SUMMARY_HEADER.size)
    return _by_bits(read, parse_summary_header(raw, header.size, header.bits), size)


def _by_bits(read: ReadFile, claimed: BitmapHeader, size: int) -> _Pages:
    bitmap, shortcomings = claimed.checked()
    pieces = _pieces(read, bitmap.bits_offset, bitmap.bitmap_size, size, "bitmap")

    def chunk(number: int) -> bytes:
        return read(bitmap.bits_offset + number * LARGE_CHUNK_SIZE, LARGE_CHUNK_SIZE)

    index = BitmapIndex(
        bitmap.first_page_offset, _cut(pieces, bitmap.bit_count), _stored(size, bitmap.first_page_offset),
        chunk if bitmap.bitmap_size > _KEPT_BITMAP else None,
    )  # fmt: skip
    if index.claimed_count != bitmap.page_count:
        shortcomings += (
            f"{index.claimed_count} bits of the bitmap are set, its header says {bitmap.page_count}: bits are believed",
        )
    return _Pages(index, bitmap.first_page_offset, shortcomings)


def _ranges(read: ReadFile, header: DumpHeader, size: int) -> _Pages:
    if header.bits != 64:
        raise DumpFormatError(f"a dump of type {header.dump_type:X} exists for 64-bit machines only", 0)
    table = parse_range_header(read(header.size, RANGE_HEADER.size), header.size, header.dump_type)
    pieces = _pieces(read, table.table_offset, table.table_size, size, "table of ranges")
    stored = _stored(size, table.first_page_offset)

    def group(number: int) -> Iterator[PageRun]:
        part = GROUP * RANGE_SIZE
        return ranges_of_bytes(read(table.table_offset + number * part, part))

    index: RunIndex | RangeIndex
    shortcomings = []
    if table.table_size <= _KEPT_RANGES * RANGE_SIZE:
        runs = BelievedRuns(ranges_of_table(pieces, table), "range")
        index = RunIndex(table.first_page_offset, runs, stored)
        shortcomings += [runs.problem] if runs.problem else []
        shortcomings += _of_overlaps(index)
    else:
        index = RangeIndex(table.first_page_offset, columns_of_table(pieces, table), group, stored)
        shortcomings += [index.problem] if index.problem else []
    if table.total_pages is not None and table.total_pages != index.claimed_count:
        shortcomings.append(f"the ranges have {index.claimed_count} pages, their header says {table.total_pages}")
    return _Pages(index, table.first_page_offset, tuple(shortcomings))


_PARSERS: dict[DumpType, Callable[[ReadFile, DumpHeader, int], _Pages]] = {
    DumpType.FULL: _complete,
    DumpType.SUMMARY: _summary,
    DumpType.BITMAP_FULL: _bitmap,
    DumpType.BITMAP_KERNEL: _bitmap,
    DumpType.KERNEL_RANGES: _ranges,
    DumpType.KERNEL_AND_USER_RANGES: _ranges,
    DumpType.COMPLETE_RANGES: _ranges,
}


def _triage(read: ReadFile, header: DumpHeader, size: int) -> DumpLayout:
    """Where a small dump ends, what follows there, and what is wrong with its tables (4.1)."""
    raw = read(header.size + 4, 4)
    if len(raw) < 4:
        raise DumpFormatError("the file ends before TRIAGE_DUMP", header.size)
    end = int.from_bytes(raw, "little")
    shortcomings: tuple[str, ...] = ()
    blobs: tuple[SecondaryBlob, ...] = ()
    if end > size:
        shortcomings = (f"the file was cut off: {size:#x} bytes of {end:#x} are there",)
    elif end < header.size or read(end - 4, 4) != _TRIAGE_TRAILER:
        shortcomings = (f"TRGD does not stand at the end of the triage data ({end:#x}): WinDbg calls that damaged",)
    else:
        blobs, shortcomings = parse_secondary(read, end, size)
    shortcomings += parse_triage(read, header, size).shortcomings
    return DumpLayout(header, RunIndex(header.size, ()), header.size, 0, end, size, blobs, shortcomings)


def _stored(size: int, first_page_offset: int) -> int:
    """Whole pages that a file of this size can hold."""
    return max(size - first_page_offset, 0) // PAGE_SIZE


def _pieces(read: ReadFile, offset: int, length: int, size: int, what: str) -> Iterator[bytes]:
    """The bytes of a table, 64 KiB at a time. Raises DumpFormatError where the file ends inside it."""
    if offset + length > size:
        raise DumpFormatError(f"the file ends inside its {what}, which reaches to {offset + length:#x}", size)
    for at in range(offset, offset + length, _PIECE):
        wanted = min(_PIECE, offset + length - at)
        piece = read(at, wanted)
        if len(piece) != wanted:
            raise DumpFormatError(f"the file ends inside its {what}, sooner than its size says", at + len(piece))
        yield piece


def _cut(pieces: Iterator[bytes], bit_count: int) -> Iterator[bytes]:
    """The same bitmap without the bits of its last byte that do not belong to it."""
    left = bit_count
    for piece in pieces:
        left -= 8 * len(piece)
        yield piece if left >= 0 else piece[:-1] + bytes([piece[-1] & 0xFF >> -left])
