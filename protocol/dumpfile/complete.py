"""Complete dumps, type 1: the header, then the pages of every run, nothing in between (dump-formats 2.2)."""

from __future__ import annotations

from protocol.address import PAGE_SIZE
from protocol.errors import DumpFormatError

from .header import DumpHeader
from .header_layout import MOST_RUNS
from .index import RunIndex

__all__ = ["UNREADABLE_PAGE", "complete_index", "complete_page_count", "complete_size"]

UNREADABLE_PAGE = b"\xed\xfe\xad\xde" * (PAGE_SIZE // 4)
"""0xDEADFEED, which WinDbg writes in the place of each page that could not be read: a run has no holes."""


def complete_page_count(header: DumpHeader) -> int:
    """Pages in the header's runs; NumberOfPages is not to be trusted."""
    return sum(run.page_count for run in header.physical_memory)


def complete_size(header: DumpHeader) -> int:
    """Bytes from the start of the file to the end of its last page. RequiredDumpSpace is this, or more."""
    return header.size + complete_page_count(header) * PAGE_SIZE


def complete_index(header: DumpHeader, stored: int | None = None) -> RunIndex:
    """Where the pages lie, of which the file holds the first `stored` (None: all).

    Raises DumpFormatError when the header has no runs, or runs that cannot be.
    """
    if not header.physical_memory:
        most = MOST_RUNS[header.bits]
        raise DumpFormatError(f"the header says no runs of memory (from 1 to {most}), so no page can be found")
    return RunIndex(header.size, header.physical_memory, stored)
