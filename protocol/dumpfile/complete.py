"""Complete dumps, type 1: the header, then the pages of every run, nothing in between (dump-formats 2.2)."""

from __future__ import annotations

from protocol.address import PAGE_SIZE
from protocol.errors import DumpFormatError

from .believed import BelievedRuns
from .header import DumpHeader, DumpType
from .header_layout import MOST_RUNS
from .index import RunIndex

__all__ = ["UNREADABLE_PAGE", "complete_index", "complete_page_count", "complete_size", "marks_unreadable"]

UNREADABLE_PAGE = b"\xed\xfe\xad\xde" * (PAGE_SIZE // 4)
"""0xDEADFEED, which WinDbg writes in the place of each page that could not be read: a run has no holes."""


def marks_unreadable(kind: DumpType, page: bytes) -> bool:
    """Whether this content stands for a page that could not be read: in a complete dump. Others leave such pages out,
    so that there it is what memory held."""
    return kind is DumpType.FULL and page == UNREADABLE_PAGE


def complete_page_count(header: DumpHeader) -> int:
    """Pages in the header's runs; NumberOfPages is not to be trusted."""
    return sum(run.page_count for run in header.physical_memory)


def complete_size(header: DumpHeader) -> int:
    """Bytes from the start of the file to the end of its last page. RequiredDumpSpace is this, or more."""
    return header.size + complete_page_count(header) * PAGE_SIZE


def complete_index(header: DumpHeader, stored: int | None = None) -> tuple[RunIndex, str]:
    """Where the pages lie, of which the file holds the first `stored` (None: all); and which run is not believed, if
    one is not: those before it are.

    Raises DumpFormatError when the header has no runs.
    """
    if not header.physical_memory:
        raise DumpFormatError(f"the header says no runs of memory; from 1 to {MOST_RUNS[header.bits]} can be there")
    runs = BelievedRuns(header.physical_memory, "the header's run")
    index = RunIndex(header.size, runs, stored)
    return index, runs.problem
