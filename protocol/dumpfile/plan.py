"""What a dump file will be, before it is written: its first bytes, then which pages in which order, and its size.

Every offset is known before the first page is there, so pages may come in any order, and twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from protocol.address import PAGE_SIZE, PageRuns
from protocol.errors import DumpFormatError

from .bitmap import (
    BITMAP_HEADER,
    MOST_BITS,
    BitmapHeader,
    bitmap_bit_count,
    bitmap_chunks,
    encode_bitmap_header,
    first_page_offset,
)
from .complete import complete_size
from .header import DumpHeader, DumpType, encode_header
from .header_layout import MOST_RUNS
from .index import PageIndex, RunIndex

__all__ = ["DumpPlan", "plan_bitmap", "plan_complete"]


@dataclass(frozen=True, slots=True)
class DumpPlan:
    """A file to be written: `prefix()`, then `pages` in ascending order, then `secondary`. Sizes in bytes."""

    header: DumpHeader
    pages: PageRuns
    bitmap: BitmapHeader | None
    """None in a complete dump."""
    first_page_offset: int
    secondary: bytes = b""

    @property
    def total_size(self) -> int:
        """Bytes of the finished file."""
        return self.first_page_offset + self.pages.page_count * PAGE_SIZE + len(self.secondary)

    def prefix(self) -> Iterator[bytes]:
        """Everything before the first page, piece by piece."""
        yield encode_header(self.header)
        if self.bitmap is not None:
            yield encode_bitmap_header(self.bitmap, self.header.dump_type)
            yield from bitmap_chunks(self.pages, self.bitmap.bit_count)
            yield bytes(self.first_page_offset - self.bitmap.bits_offset - self.bitmap.bitmap_size)

    def with_secondary(self, secondary: bytes) -> DumpPlan:
        """The same file with this behind its last page (dump-formats 2.6)."""
        space = (self.header.required_dump_space or 0) - len(self.secondary) + len(secondary)
        return replace(self, header=replace(self.header, required_dump_space=space), secondary=secondary)

    def index(self) -> PageIndex:
        """Where each page will lie."""
        return RunIndex(self.first_page_offset, self.pages)


def plan_complete(header: DumpHeader, runs: PageRuns, secondary: bytes = b"") -> DumpPlan:
    """A complete dump, type 1: every page of `runs`; unreadable ones are written as UNREADABLE_PAGE.

    The header's type, runs and size are set here; all else is the caller's.
    Raises DumpFormatError when there are no runs, or more than a header holds: then plan_bitmap.
    """
    most = MOST_RUNS[header.bits]
    if not 0 < len(runs) <= most:
        advice = "; a bitmap dump holds any number of them" if runs else ""
        raise DumpFormatError(f"a complete dump holds from 1 to {most} runs of memory, not {len(runs)}{advice}")
    filled = replace(header, dump_type=DumpType.FULL, physical_memory=tuple(runs), surplus_runs=0, claimed_pages=None)
    filled = replace(filled, required_dump_space=complete_size(filled) + len(secondary))
    return DumpPlan(filled, runs, None, header.size, secondary)


def plan_bitmap(
    header: DumpHeader, memory: PageRuns, pages: PageRuns, kind: DumpType, secondary: bytes = b""
) -> DumpPlan:
    """A bitmap dump, type 5 (all of memory) or 6 (the kernel's): `pages` out of `memory`.

    The header's type, runs and size are set here; all else is the caller's. The runs of memory are for information
    in such a dump: they stay unset where a header cannot hold them.
    Raises DumpFormatError when there is no page to write, `kind` has no bitmap, or memory reaches beyond 32 TiB.
    """
    if not pages:
        raise DumpFormatError("a dump needs at least one page of memory, and there is none")
    bits_offset = header.size + BITMAP_HEADER.size
    bits = bitmap_bit_count(max(memory.end_page, pages.end_page))
    if bits > MOST_BITS:
        raise DumpFormatError(
            f"a bitmap of {bits:#x} bits is not believable: memory ends at frame {memory.end_page:#x}"
        )
    first = first_page_offset(bits_offset, bits)
    bitmap = BitmapHeader(bits_offset, bits, first, pages.page_count)
    encode_bitmap_header(bitmap, kind)  # refuses other kinds now, not when the file is half written
    filled = replace(
        header,
        dump_type=kind,
        physical_memory=tuple(memory) if len(memory) <= MOST_RUNS[header.bits] else (),
        surplus_runs=0,
        claimed_pages=None,
        required_dump_space=first + pages.page_count * PAGE_SIZE + len(secondary),
    )
    return DumpPlan(filled, pages, bitmap, first, secondary)
